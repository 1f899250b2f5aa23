"""Tables and texts for a terminal and in HTML."""

from __future__ import annotations

import html
import io
import reprlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp_toolkit.tensor_type import is_tensor

if TYPE_CHECKING:
    import pandas as pd


def text_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = (), width: int = 80
) -> str:
    """Lay cells out in columns of plain text.

    Args:
        columns: names of the columns.
        rows: the cells of each row; rich's markup in them is printed as it is.
        right: names of the columns of numbers, which are aligned to the right and never wrapped.
        width: greatest width of a line, in characters.

    Returns:
        the lines, without a final line break.
    """
    table = Table(box=None, pad_edge=False, expand=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        table.add_row(*map(Text, row))
    stream = io.StringIO()
    # In a notebook rich would also display the table.
    Console(file=stream, width=width, color_system=None, force_jupyter=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def frame_text(frame: pd.DataFrame, width: int = 80) -> str:
    """Lay a data frame out as plain text of at most ``width`` characters per line, with numbers to three digits.

    The columns ``low`` and ``high`` become one interval. A column with the same value in every row (a seed, for
    example) stands once, below the table.
    """
    import pandas as pd

    cells = pd.DataFrame({name: frame[name].map(_cell) for name in frame})
    numbers = [name for name in frame if pd.api.types.is_numeric_dtype(frame[name])]
    if {"low", "high"} <= set(cells):
        cells["interval"] = [interval_text(low, high) for low, high in zip(cells.pop("low"), cells.pop("high"))]
    names = list(cells.columns)
    same = [name for name in names if len(cells) > 1 and name != "interval" and len(set(cells[name])) == 1]
    shown = [name for name in names if name not in same]
    right = [name for name in shown if name in numbers or name == "interval"]
    text = text_table(shown, cells[shown].itertuples(index=False), right, width)
    once = {name: str(cells[name].iloc[0]) for name in same}
    note = ", ".join(f"{name} {value}" for name, value in once.items() if value)
    return f"{text}\n({note})" if note else text


def interval_text(low: object, high: object) -> str:
    """Format an interval to three digits: empty where an end is missing, ``unbounded`` where neither end is finite."""
    ends = [_cell(low), _cell(high)]
    if "" in ends:
        return ""
    return "unbounded" if ends == ["-inf", "inf"] else " to ".join(ends)


def brief_repr(self: Any) -> str:
    """Write a short ``repr`` of a dataclass: sizes of tensors and frames, and the start of long values.

    Notebooks store what they display, so the text stays short for large objects.
    """
    values = ", ".join(f"{field.name}={_brief(getattr(self, field.name))}" for field in fields(self))
    return f"{type(self).__name__}({values})"


_short = reprlib.Repr()
_short.maxother, _short.maxstring = 200, 100


def _brief(value: Any) -> str:
    import pandas as pd

    if is_tensor(value):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, pd.DataFrame):
        return f"DataFrame({len(value):,} rows: {', '.join(map(str, value))})"
    text = _short.repr(value)
    return f"{text} ({len(value):,})" if isinstance(value, (tuple, list, dict)) and "..." in text else text


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{round(value, 3) + 0.0:g}"
    return "" if value is None else str(value)


# Joiners are part of ordinary words and emoji; the page lays out line breaks and tabs.
_ORDINARY = frozenset("\n\t\u200c\u200d")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_LONG = 300


def visible(text: str) -> str:
    """Replace characters that control the page or the reading direction by visible signs.

    A control character becomes its picture (``\\x00`` becomes U+2400), another invisible character its number
    (``⟨U+202E⟩``), and half of a surrogate pair U+FFFD. Line breaks, tabs and the joiners within words stay.

    Example:
        >>> visible("a\\u202eb")
        'a⟨U+202E⟩b'
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def escaped(text: str, limit: int = _LONG) -> str:
    """Escape a text for HTML; one of more than ``limit`` characters is cut, with its length behind it."""
    if len(text) > limit:
        text = f"{text[:limit]} … ({len(text):,} characters)"
    return html.escape(visible(text))


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """Lay cells out as a table of HTML, which takes its colours from the page around it.

    Args:
        columns: names of the columns.
        rows: the cells of each row, as plain text; they are escaped.
        right: names of the columns of numbers, which are aligned to the right.

    Returns:
        a ``table`` element.
    """
    styles = [f"text-align:{'right' if name in right else 'left'}" for name in columns]
    head = "".join(f"<th style='{style}'>{escaped(name)}</th>" for name, style in zip(columns, styles))
    body = ""
    for row in rows:
        cells = "".join(f"<td style='{style}'>{escaped(cell)}</td>" for cell, style in zip(row, styles))
        body += f"<tr>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _sign(char: str) -> str:
    if char in _ORDINARY or (kind := unicodedata.category(char)) not in _HIDDEN:
        return char
    if kind == "Cs":
        return "\ufffd"
    if char < " ":
        return chr(0x2400 + ord(char))
    return "\u2421" if char == "\x7f" else f"⟨U+{ord(char):04X}⟩"
