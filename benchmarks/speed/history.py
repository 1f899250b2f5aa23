"""Speeds of earlier runs by kind of machine, so that a change that makes something slower is seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json_lines

Ratios = Mapping[str, Sequence[float]]


def ratios_of(comparisons: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Median, lowest and highest ratio of each comparison that was made.

    Args:
        comparisons: by name, as `compare` gives them.
    """
    measured = {name: row for name, row in comparisons.items() if row["ratio"] is not None}
    return {name: [row["ratio"], row["lowest"], row["highest"]] for name, row in measured.items()}


def read_history(path: Path) -> list[dict[str, Any]]:
    """Earlier runs, the oldest first; none where there is no file.

    Args:
        path: of the history, in JSON Lines.
    """
    return [row for _, row in read_json_lines(path, "a history of speeds")] if path.exists() else []


def add_to_history(path: Path, row: Mapping[str, Any]) -> None:
    """Add a run to the history.

    Args:
        path: of the history.
        row: ``kind``, ``date``, ``versions``, ``noise`` and ``ratios``.
    """
    rows = [*read_history(path), row]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        draft.write_text("".join(json.dumps(one) + "\n" for one in rows))


def with_new(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], kind: str, part: bool
) -> list[dict[str, Any]]:
    """Rows of a table with those of a new run, each with its machine; rows of other machines stay.

    Args:
        old: rows as they stand, each with its ``machine``.
        new: rows of this run.
        kind: of this machine.
        part: whether the run is of a part alone, beside which other comparisons of this machine stay.
    """
    measured = {row.get("comparison") for row in new}

    def stays(row: Mapping[str, Any]) -> bool:
        return row["machine"] != kind or (part and row.get("comparison") not in measured)

    return [*(dict(row) for row in old if stays(row)), *(dict(row, machine=kind) for row in new)]


def slower(history: Sequence[Mapping[str, Any]], kind: str, ratios: Ratios) -> list[str]:
    """What is slower than in the last run on the same kind of machine, beyond the spread of both.

    Args:
        history: earlier runs.
        kind: of this machine.
        ratios: of this run: median, lowest and highest by comparison.

    Returns:
        a line for each comparison all of whose ratios are below all those of the last run that made it.
    """
    lines = []
    for name, (median, _, highest) in ratios.items():
        last = next((row["ratios"][name] for row in reversed(history) if _is_of(row, kind, name)), None)
        if last is not None and highest < last[1]:
            lines.append(f"{name}: {median:.2f} (at most {highest:.2f}), last {last[0]:.2f} (at least {last[1]:.2f})")
    return lines


def _is_of(row: Mapping[str, Any], kind: str, name: str) -> bool:
    return row["kind"] == kind and name in row["ratios"]
