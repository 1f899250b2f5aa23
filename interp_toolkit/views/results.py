"""Reports of kept results: evaluations, benchmarks and training logs."""

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
# Things of which so many share so many names make a table.
_SHARED = 2
# Tables that say more as a chart, by what they must hold.
_CHARTS: tuple[tuple[tuple[str, ...], Callable[[pd.DataFrame], Any]], ...] = (
    (("coverage", "accuracy"), coverage_curve),
    (("scale", "value"), scale_sweep),
    (("scale", "loss"), lambda frame: scale_sweep(frame, "loss")),
)


def read_log(path: str | Path) -> pd.DataFrame:
    """The events of a training run, one a row: ``event``, ``step`` and what each tells (``loss``, ``val_loss``, ...).

    Args:
        path: ``log.jsonl`` of a run's folder. A last line that an interruption cut off is left out.

    Raises:
        FileFormatError: missing, or no such log.
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
    """The report of ``interp-toolkit report``: each file's tables, with charts of those that are curves.

    Args:
        paths: results of ``interp-toolkit evaluate`` or of a benchmark (``.json``), training logs (``.jsonl``), or
            folders of these.
        title: of the page.

    Raises:
        FileFormatError: missing, or neither.
        InterpToolkitError: a folder without results, or no path.
    """
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise InterpToolkitError("expected at least one file of results, got none")
    named = {file: file.stem if file.name != "log.jsonl" else f"training of {file.parent.name}" for file in files}
    return report(*(Section(named[file], *_parts(file)) for file in files), title=title)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [_existing(path)]
    found = sorted([*path.rglob("*.json"), *path.rglob("log.jsonl")])
    if not found:
        raise InterpToolkitError(f"expected results (.json) or training logs (log.jsonl) in {path}, found none")
    return found


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileFormatError(f"cannot read results at {path}: there is no such file")
    return path


def _parts(path: Path) -> list[Any]:
    with naming(path):
        return [loss_curves(read_log(path))] if path.suffix == ".jsonl" else _result_parts(path)


def _result_parts(path: Path) -> list[Any]:
    told = read_json(path, "a result of an evaluation")
    if not isinstance(told, dict):
        raise FileFormatError(f"expected an object of settings and tables in {path}, got {type(told).__name__}")
    found = _Found()
    try:
        found.collect(told, ())
    except RecursionError:
        raise FileFormatError(f"{path} is damaged: nested too deeply") from None
    parts: list[Any] = []
    if found.measures:
        parts.append(table_view(pd.DataFrame(found.measures), "Measures"))
    for name, rows in found.tables.items():
        frame = pd.DataFrame(rows)
        parts += [*_figures(frame), table_view(frame, name)]
    if found.facts:
        facts = pd.DataFrame(list(found.facts.items()), columns=pd.Index(("setting", "value")))
        parts.append(table_view(facts, "How it was made"))
    return parts


def _figures(frame: Any) -> list[Any]:
    """The charts of a table."""
    if _has_numbers(frame, "parameters", "value") and _has_texts(frame, "source", "measure"):
        if frame["parameters"].nunique() > 1:
            return [scaling_curve(rows, f"Scaling: {name}") for name, rows in frame.groupby("measure", sort=False)]
        return []
    return [draw(frame) for columns, draw in _CHARTS if _has_numbers(frame, *columns)][:1]


def _has_numbers(frame: Any, *columns: str) -> bool:
    """Whether these columns are there and hold numbers, as do the ends of intervals, and lines go by plain names."""
    ends = [name for name in ("low", "high") if name in frame]
    names = [x for name in ("right", "measure", "source") if name in frame for x in frame[name]]
    numeric = set(columns) <= set(frame) and all(is_numeric_dtype(frame[name]) for name in (*columns, *ends))
    return numeric and not any(map(_is_nested, names))


def _has_texts(frame: Any, *columns: str) -> bool:
    return set(columns) <= set(frame) and all(isinstance(x, str) for name in columns for x in frame[name])


class _Found:
    """What a result file holds: tables, measures with their intervals, and single facts."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.measures: list[dict[str, Any]] = []
        self.facts: dict[str, str] = {}

    def collect(self, told: dict[str, Any], under: tuple[str, ...]) -> None:
        """Sort what stands below some keys into its kind."""
        for key, value in told.items():
            where = (*under, key)
            name = " / ".join(x for x in where if x not in ("tables", "settings"))
            if isinstance(value, dict):
                if rows := _alike(value):
                    self.tables[name] = rows
                    value = {one: {k: x for k, x in parts.items() if _is_nested(x)} for one, parts in value.items()}
                self.collect(value, where)
            elif isinstance(value, list) and value and all(isinstance(x, dict) for x in value):
                self.tables[name] = value
            elif _is_measure(value):
                low, high = value[1:]
                self.measures.append(dict(of=" / ".join(under), measure=key, value=value[0], low=low, high=high))
            elif value not in (None, [], {}):
                self.facts[name] = ", ".join(map(_told, value)) if isinstance(value, list) else _told(value)


def _alike(told: dict[str, Any]) -> list[dict[str, Any]]:
    """A table of things that are told of by the same names, a row each; none where they are not alike."""
    if len(told) < _SHARED or not all(isinstance(parts, dict) for parts in told.values()):
        return []
    rows = [{key: x for key, x in parts.items() if not _is_nested(x)} for parts in told.values()]
    shared = set.intersection(*map(set, rows))
    return [dict(name=name) | row for name, row in zip(told, rows)] if len(shared) >= _SHARED else []


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _told(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_measure(value: Any) -> bool:
    """Whether it is a value with the ends of its interval, as the benchmarks write them."""
    if not isinstance(value, list) or len(value) != _MEASURE or not all(isinstance(x, (int, float)) for x in value):
        return False
    return value[1] <= value[0] <= value[2]
