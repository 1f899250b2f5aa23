"""Reports of results files: evaluations, benchmarks and training logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.json_lines import parse_json, read_json, read_lines
from interp_toolkit.settings import naming
from interp_toolkit.views.curves import coverage_curve, loss_curves, scale_sweep, scaling_curve
from interp_toolkit.views.page import View
from interp_toolkit.views.report import Section, report
from interp_toolkit.views.table import table_view

_LOG = "a training log of JSON lines with a step each"
_MEASURE = 3
# This many objects with this many names in common are a table.
_SHARED = 2
# Tables that are also drawn as a chart, by the columns they must have.
_CHARTS: tuple[tuple[tuple[str, ...], Callable[[pd.DataFrame], Any]], ...] = (
    (("coverage", "accuracy"), coverage_curve),
    (("scale", "value"), scale_sweep),
    (("scale", "loss"), lambda frame: scale_sweep(frame, "loss")),
)


def read_log(path: str | Path) -> pd.DataFrame:
    """Read the events of a training run, one per row: ``event``, ``step``, and values such as ``loss``.

    Args:
        path: ``log.jsonl`` of a run's folder. A last line that an interruption cut off is skipped.

    Returns:
        a data frame.

    Raises:
        FileFormatError: the file is missing, holds no event, or another line than the last is damaged.
    """
    path = _existing(Path(path))
    lines = [(number, line) for number, line in read_lines(path, _LOG) if line.strip()]
    rows = []
    for number, line in lines:
        try:
            row = parse_json(line)
        except ValueError as error:
            if number == lines[-1][0]:
                continue
            raise FileFormatError(f"{path}, line {number}: expected an event of {_LOG}: {error}") from error
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, Real) or isinstance(step, bool):
            raise FileFormatError(f"{path}, line {number}: expected an event of {_LOG}, got {line[:60]!r}")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"expected {_LOG} at {path}, and no event is in it")
    return pd.DataFrame(rows)


def results_report(paths: Sequence[str | Path], title: str = "Results") -> View:
    """Make the report of ``interp-toolkit report``: the tables of each file, with charts of those that are curves.

    Args:
        paths: results of ``interp-toolkit evaluate`` or of a benchmark (``.json``), training logs (``.jsonl``), or
            folders of these.
        title: title of the page.

    Returns:
        the page.

    Raises:
        FileFormatError: a file is missing, or is neither results nor a log.
        InterpToolkitError: a folder holds no results, or there is no path.
    """
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise InterpToolkitError("expected at least one file of results, got none")
    headings = {file: file.stem if file.name != "log.jsonl" else f"training of {file.parent.name}" for file in files}
    return report(*(Section(headings[file], *_content(file)) for file in files), title=title)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [_existing(path)]
    files = sorted([*path.rglob("*.json"), *path.rglob("log.jsonl")])
    if not files:
        raise InterpToolkitError(f"expected results (.json) or training logs (log.jsonl) in {path}, found none")
    return files


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileFormatError(f"cannot read results at {path}: there is no such file")
    return path


def _content(path: Path) -> list[Any]:
    with naming(path):
        return [loss_curves(read_log(path))] if path.suffix == ".jsonl" else _result_content(path)


def _result_content(path: Path) -> list[Any]:
    result = read_json(path, "a result of an evaluation")
    if not isinstance(result, dict):
        raise FileFormatError(f"expected an object of settings and tables in {path}, got {type(result).__name__}")
    contents = _Contents()
    try:
        contents.collect(result, ())
    except RecursionError:
        raise FileFormatError(f"{path} is damaged: nested too deeply") from None
    items: list[Any] = []
    if contents.measures:
        items.append(table_view(pd.DataFrame(contents.measures), "Measures"))
    for name, rows in contents.tables.items():
        frame = pd.DataFrame(rows)
        items += [*_figures(frame), table_view(frame, name)]
    if contents.facts:
        facts = pd.DataFrame(list(contents.facts.items()), columns=pd.Index(("setting", "value")))
        items.append(table_view(facts, "How it was made"))
    return items


def _figures(frame: Any) -> list[Any]:
    """Draw the charts of a table."""
    if _has_numbers(frame, "parameters", "value") and _has_texts(frame, "source", "measure"):
        if frame["parameters"].nunique() > 1:
            return [scaling_curve(rows, f"Scaling: {name}") for name, rows in frame.groupby("measure", sort=False)]
        return []
    return [draw(frame) for columns, draw in _CHARTS if _has_numbers(frame, *columns)][:1]


def _has_numbers(frame: Any, *columns: str) -> bool:
    """Whether these columns and the ends of intervals hold numbers, and the names of lines are plain values."""
    ends = [name for name in ("low", "high") if name in frame]
    names = [x for name in ("right", "measure", "source") if name in frame for x in frame[name]]
    numeric = set(columns) <= set(frame) and all(is_numeric_dtype(frame[name]) for name in (*columns, *ends))
    return numeric and not any(map(_is_nested, names))


def _has_texts(frame: Any, *columns: str) -> bool:
    return set(columns) <= set(frame) and all(isinstance(x, str) for name in columns for x in frame[name])


class _Contents:
    """What a results file holds: tables, measures with their intervals, and single facts."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.measures: list[dict[str, Any]] = []
        self.facts: dict[str, str] = {}

    def collect(self, values: dict[str, Any], under: tuple[str, ...]) -> None:
        """Sort the values below some keys into tables, measures and facts."""
        for key, value in values.items():
            where = (*under, key)
            name = " / ".join(x for x in where if x not in ("tables", "settings"))
            if isinstance(value, dict):
                if rows := _rows_of_one_table(value):
                    self.tables[name] = rows
                    value = {one: {k: x for k, x in row.items() if _is_nested(x)} for one, row in value.items()}
                self.collect(value, where)
            elif isinstance(value, list) and value and all(isinstance(x, dict) for x in value):
                self.tables[name] = value
            elif _is_measure(value):
                low, high = value[1:]
                self.measures.append(dict(of=" / ".join(under), measure=key, value=value[0], low=low, high=high))
            elif value not in (None, [], {}):
                self.facts[name] = ", ".join(map(_fact, value)) if isinstance(value, list) else _fact(value)


def _rows_of_one_table(objects: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per object where the objects share names of values; no rows where they do not."""
    if len(objects) < _SHARED or not all(isinstance(values, dict) for values in objects.values()):
        return []
    rows = [{key: x for key, x in values.items() if not _is_nested(x)} for values in objects.values()]
    shared = set.intersection(*map(set, rows))
    return [dict(name=name) | row for name, row in zip(objects, rows)] if len(shared) >= _SHARED else []


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _fact(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_measure(value: Any) -> bool:
    """Whether a value is a number with the ends of its interval, as the benchmarks write them."""
    if not isinstance(value, list) or len(value) != _MEASURE or not all(isinstance(x, (int, float)) for x in value):
        return False
    return value[1] <= value[0] <= value[2]
