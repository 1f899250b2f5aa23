"""Results files: what one holds, how it is written and found again, and its tables as Markdown.

A results file is one JSON object:

- ``settings``: all that decides the result (model, revision, dtype, digest of the adapter, n, seed, split, ...);
- ``versions``: of the libraries that the numbers depend on;
- ``failed``: ``count``, and ``rows``, each with a ``reason``;
- ``tables``: a list of rows by name of the table;
- any further keys, such as ``examples``.

Example:
    >>> settings = dict(model="smollm2", adapter=adapter.digest, n=len(titles), seed=0)
    >>> if (result := finished_result(path, settings)) is None:
    ...     result = make_result(settings, versions, tables=dict(recall=recall_table(ranks)))
    ...     write_result(path, result)
    >>> columns = {"measure": "`{measure}`", "value (95% interval)": percent_text, "n": "{n:,}"}
    >>> print(markdown_table(result["tables"]["recall"], columns))
    | measure | value (95% interval) | n |
    |---|---|---|
    | `recall@1` | 17.4% (16.3 to 18.5) | 4,664 |
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.errors import FileFormatError
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json

Row = Mapping[str, Any]
"""A row of a table, by column."""
Table = pd.DataFrame | Iterable[Row]
"""A data frame, or its rows."""


def make_result(
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    tables: Mapping[str, Table],
    failed: Iterable[Row] = (),
    **further: Any,
) -> dict[str, Any]:
    """Build what a results file holds.

    Args:
        settings: all that decides the result.
        versions: of the libraries that the numbers depend on, see `library_versions`.
        tables: by name; numbers that are not finite become null.
        failed: rows that could not be measured, each with its ``reason``.
        further: more keys of the file.
    """
    failed = list(failed)
    return dict(
        settings=dict(settings),
        versions=dict(versions),
        failed=dict(count=len(failed), rows=failed),
        tables={name: json_rows(table) for name, table in tables.items()},
        **further,
    )


def write_result(path: str | Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        ValueError: a number that is not finite; see `json_rows`.
    """
    with whole_file(Path(path)) as draft:
        draft.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        FileFormatError: missing, damaged, or without settings.
    """
    result = read_json(Path(path), "a results file")
    if not isinstance(result, dict) or not isinstance(result.get("settings"), dict):
        raise FileFormatError(
            f"expected a results file with settings at {path}, and it holds something else; move it away or delete it"
        )
    return result


def finished_result(path: str | Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result at a path if it was made with these settings, else None.

    Results of version 0.1 do not say from which weights they are; they count as made with the weights at hand.

    Args:
        path: of the results file; it need not exist.
        settings: what the result must have been made with.

    Raises:
        FileFormatError: a file that is damaged, or holds no result.
    """
    if not Path(path).exists():
        return None
    result = read_result(path)
    expected = json.loads(json.dumps(settings))
    if "weights" not in result["settings"]:
        expected.pop("weights", None)
    return result if result["settings"] == expected else None


def json_rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a table as JSON can hold them: a number that is missing or not finite becomes null."""
    return [{name: None if _is_missing(value) else value for name, value in row.items()} for row in _rows(table)]


def intervals_by_measure(table: Table) -> dict[str, list[float]]:
    """Value, low and high for each ``measure`` of a table, rounded to four decimals."""
    return {row["measure"]: [round(row[key], 4) for key in ("value", "low", "high")] for row in _rows(table)}


def markdown_table(table: Table, columns: Mapping[str, str | Callable[[Row], str]]) -> str:
    """Render a table as Markdown.

    Args:
        table: its rows.
        columns: for each heading what its cells show: a format string with the names of columns, or a function of the
            row, such as `interval_text` and `percent_text`.

    Example:
        >>> print(markdown_table([dict(name="a", n=1200)], {"adapter": "`{name}`", "n": "{n:,}"}))
        | adapter | n |
        |---|---|
        | `a` | 1,200 |
    """
    lines = [_line(columns), "|" + "---|" * len(columns)]
    for row in _rows(table):
        lines.append(_line(cell.format(**row) if isinstance(cell, str) else cell(row) for cell in columns.values()))
    return "\n".join(lines)


def interval_text(value: Row | Sequence[float | int], digits: str = ".3g") -> str:
    """A number with its 95% interval: ``"1.75 (1.67 to 1.83)"``; the number alone where no interval is known.

    Args:
        value: a row with ``value``, ``low`` and ``high``, or these three.
        digits: format of the three numbers.
    """
    point, low, high = _three(value)
    if low is None or low != low:
        return f"{point:{digits}}"
    return f"{point:{digits}} ({low:{digits}} to {high:{digits}})"


def percent_text(value: Row | Sequence[float | int]) -> str:
    """A share with its 95% interval in per cent: ``"17.4% (16.3 to 18.5)"``.

    Args:
        value: a row with ``value``, ``low`` and ``high``, or these three, as shares of 1.
    """
    point, low, high = (100 * x for x in _three(value))
    return f"{point:.1f}% ({low:.1f} to {high:.1f})"


def _rows(table: Table) -> Iterable[Row]:
    return table.astype(object).to_dict("records") if isinstance(table, pd.DataFrame) else table


def _is_missing(value: Any) -> bool:
    return value is pd.NA or (isinstance(value, float) and not math.isfinite(value))


def _three(value: Row | Sequence[float | int]) -> Sequence[Any]:
    return [value[key] for key in ("value", "low", "high")] if isinstance(value, Mapping) else value


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
