"""The log of a run: JSON Lines in its folder, and a tracking service where the settings name one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import parse_json, read_lines

_PROJECT = "interp-toolkit"


class RunLog:
    """Events of a run, one JSON object per line: ``start``, ``step``, ``validation``, ``end``, each with its ``step``.

    Args:
        path: the file; None for none.
        tracker: ``"wandb"``, ``"trackio"`` or None.
        step: where the run goes on; events of later steps are removed from the file, since they are done again.
        facts: of the run, for its first event and for the tracker.

    Raises:
        InterpToolkitError: the tracker is not installed.
    """

    def __init__(self, path: Path | None, tracker: str | None, step: int, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._tracker = _tracker(tracker)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = _lines_until(path, step) if step and path.exists() else []
            with whole_file(path) as draft:
                draft.write_text("".join(lines))
        if self._tracker:
            self._tracker.init(project=_PROJECT, name=path.parent.name if path else None, config=dict(facts))
        self.write("start", step, **facts)

    def write(self, event: str, step: int, **values: Any) -> None:
        """Write an event; the tracker gets its numbers.

        Args:
            event: its kind.
            step: of the run.
            values: what happened.
        """
        if self._path:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(dict(event=event, step=step, **values), ensure_ascii=False) + "\n")
        numbers = {f"{event}/{key}": x for key, x in values.items() if isinstance(x, (int, float))}
        if self._tracker and event != "start":
            self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        if self._tracker:
            self._tracker.finish()


def _lines_until(path: Path, step: int) -> list[str]:
    """The lines of events up to a step; one that an interruption cut off is no event."""
    lines = []
    for _, line in read_lines(path, "the log of a run"):
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if event["step"] <= step and event["event"] != "end":
            lines.append(f"{line}\n")
    return lines


def _tracker(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InterpToolkitError(f"tracker {name!r} is not installed: pip install {name}") from error
