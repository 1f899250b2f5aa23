"""Charts in a page: a figure with its title, a text alternative and its numbers."""

from __future__ import annotations

import html
import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.tables import escaped, visible
from interp_toolkit.views.libraries import PLOTLY
from interp_toolkit.views.page import View, widget
from interp_toolkit.views.table import table_body

# Distinguishable without red and green, and legible on white and on black.
COLOURS = ("#3f83c9", "#dd7f2a", "#27997a", "#b55fa5", "#8b8f96", "#b59a1d")
_ABOUT, _NUMBERS = "about", "numbers"
_LINES, _LINE = 6, 60
# Pixels of a title, which a page writes itself, and of a row of the legend: two entries in a narrow notebook.
_TITLE, _ROW = 40, 20


def chart_view(figure: Any) -> View:
    """Make a view of a plotly figure: its title, the chart with a text alternative, and a table of its numbers.

    Args:
        figure: any plotly figure. Figures of this package carry their numbers and text alternative; those of another
            figure are read from its traces.

    Raises:
        InterpToolkitError: it is no plotly figure.
    """
    if not hasattr(figure, "to_plotly_json"):
        raise InterpToolkitError(f"expected a plotly figure, got {type(figure).__name__}")
    meta = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    title = html.unescape(figure.layout.title.text or "") or "Chart"
    content = json.loads(figure.to_json())
    layout = content["layout"]
    for name in ("meta", "title"):
        layout.pop(name, None)
    if _ABOUT in meta:
        layout["margin"]["t"] -= _TITLE
    table = pd.DataFrame(**meta[_NUMBERS]) if _NUMBERS in meta else _trace_numbers(figure)
    about = meta.get(_ABOUT) or f"{title}. Series: {', '.join(_names(figure))}."
    chart = widget("chart", dict(data=content["data"], layout=layout, about=visible(about)), title)
    number_table = table_body(table, f"Numbers of: {title}", caption=False)
    return View(
        title,
        f"{chart}<details><summary>The numbers of this chart</summary>{number_table}</details>",
        frozenset((PLOTLY,)),
    )


def styled(figure: Any, title: str, about: str, numbers: pd.DataFrame, x_title: str, y_title: str) -> Any:
    """Give a figure its titles, the common style, a text alternative and its numbers.

    Args:
        figure: the plotly figure; it is changed.
        title: title of the figure.
        about: one sentence for readers who cannot see the figure.
        numbers: the data frame that the figure draws, shown as a table below it in a page.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.

    Returns:
        the same figure.
    """
    number_rows = dict(
        columns=list(numbers.columns), data=numbers.astype(object).where(numbers.notna(), None).values.tolist()
    )
    entries = sum(trace.showlegend is not False for trace in figure.data)
    figure.update_layout(
        title=dict(text=escaped(title), yref="container", y=0.98, yanchor="top", font_size=15),
        meta={_ABOUT: about, _NUMBERS: number_rows},
        template="none",
        colorway=COLOURS,
        height=420,
        margin=dict(l=60, r=20, t=_TITLE + _ROW * math.ceil(entries / 2), b=60),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=0),
        hoverlabel=dict(align="left"),
        xaxis=dict(title_text=escaped(x_title), automargin=True),
        yaxis=dict(title_text=escaped(y_title), automargin=True),
    )
    return figure


def hover_text(text: str) -> str:
    """Escape a text for plotly's hover label and wrap it in a few short lines."""
    lines = textwrap.wrap(visible(text[: 2 * _LINES * _LINE]), _LINE) or [""]
    more = " …" if len(lines) > _LINES or len(text) > 2 * _LINES * _LINE else ""
    return "<br>".join(map(html.escape, lines[:_LINES])) + more


def _names(figure: Any) -> Sequence[str]:
    return [html.unescape(trace.name or trace.type) for trace in figure.data] or ["none"]


def _trace_numbers(figure: Any) -> pd.DataFrame:
    rows = []
    for name, trace in zip(_names(figure), figure.data):
        x, y, z = (getattr(trace, axis, None) if axis in trace else None for axis in "xyz")
        if z is not None:
            width = len(z[0]) if len(z) else 0
            across = range(width) if x is None else x
            down = range(len(z)) if y is None else y
            rows += [dict(series=name, x=a, y=b, z=z[j][i]) for j, b in enumerate(down) for i, a in enumerate(across)]
        elif y is not None:
            rows += [dict(series=name, x=a, y=b) for a, b in zip(range(len(y)) if x is None else x, y)]
    return pd.DataFrame(rows)
