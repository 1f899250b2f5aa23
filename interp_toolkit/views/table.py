"""Tables of any length that readers filter and sort."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp_toolkit.tables import interval_text
from interp_toolkit.views.frames import plain
from interp_toolkit.views.page import View, widget

# Columns whose cells are drawn with a bar, to compare them at a glance.
_BARS = frozenset(("evidence",))
_TWO_DIGITS = frozenset(("evidence", "log_prob"))


def table_view(frame: pd.DataFrame, title: str = "Table") -> View:
    """Show a data frame as a table in pages of 50 rows, which readers filter by text and sort by any column.

    The columns ``low`` and ``high`` become one interval. A column with the same value in every row stands once, below
    the table; an empty column is left out.

    Args:
        frame: any columns of texts, numbers, truth values or lists.
        title: caption of the table.

    Returns:
        the view.

    Example:
        >>> table_view(explanations.to_df(), "What the model says")
    """
    return View(title, table_body(frame, title))


def table_body(frame: pd.DataFrame, title: str, caption: bool = True) -> str:
    """Write the HTML of `table_view`.

    Args:
        frame: as `table_view` takes it.
        title: caption of the table, and its name for screen readers.
        caption: whether the title is visible.

    Returns:
        a ``figure`` element.
    """
    cells: dict[str, list[Any]] = {
        name: [plain(value) for value in frame.iloc[:, i].tolist()] for i, name in enumerate(map(str, frame.columns))
    }
    if {"low", "high"} <= set(cells):
        del cells["low"], cells["high"]
        ends = zip(frame["low"].tolist(), frame["high"].tolist())
        cells["interval"] = [interval_text(low, high) or None for low, high in ends]
    cells = {name: column for name, column in cells.items() if not frame.size or any(x is not None for x in column)}
    same = {name: column[0] for name, column in cells.items() if len(column) > 1 and len(set(column)) == 1}
    if len(same) == len(cells):
        same = {}
    shown = {name: column for name, column in cells.items() if name not in same}
    data = dict(
        columns=[dict(name=name, kind=_kind(name, column), digits=_digits(name)) for name, column in shown.items()],
        rows=list(zip(*shown.values())),
        same=[[name, value] for name, value in same.items()],
    )
    return widget("table", data, title, caption)


def _kind(name: str, column: list[Any]) -> str:
    number = any(x is not None for x in column) and all(x is None or isinstance(x, (int, float)) for x in column)
    return "bar" if number and name in _BARS else "number" if number else "text"


def _digits(name: str) -> int | None:
    return 2 if name in _TWO_DIGITS else None
