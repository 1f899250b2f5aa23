"""Reports of kept results: evaluations, benchmarks and training logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.views.curves import coverage_curve, loss_curves, scale_sweep, scaling_curve
from interp_toolkit.views.page import View
from interp_toolkit.views.report import Section, report
from interp_toolkit.views.table import table_view

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
    rows = []
    for line in _read(Path(path)).splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    if not rows or not all(isinstance(row, dict) and "step" in row for row in rows):
        raise FileFormatError(f"expected a training log of JSON lines with a step each at {path}")
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
        return [path]
    found = sorted([*path.rglob("*.json"), *path.rglob("log.jsonl")])
    if not found:
        raise InterpToolkitError(f"expected results (.json) or training logs (log.jsonl) in {path}, found none")
    return found


def _parts(path: Path) -> list[Any]:
    if path.suffix == ".jsonl":
        return [loss_curves(read_log(path))]
    text = _read(path)
    try:
        told = json.loads(text)
    except ValueError as error:
        raise FileFormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise FileFormatError(f"expected an object of settings and tables in {path}, got {type(told).__name__}")
    found = _Found()
    found.collect(told, ())
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
    if {"parameters", "source", "value", "measure"} <= set(frame) and frame["parameters"].nunique() > 1:
        return [scaling_curve(rows, f"Scaling: {name}") for name, rows in frame.groupby("measure", sort=False)]
    return [draw(frame) for columns, draw in _CHARTS if set(columns) <= set(frame)][:1]


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"cannot read results at {path}: {error}") from error
