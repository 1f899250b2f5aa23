"""Text and tables as HTML, safe whatever the text holds."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Collection, Iterable, Sequence

# Joiners are part of ordinary words and emoji; line breaks and tabs are laid out by the page.
_ORDINARY = frozenset("\n\t\u200c\u200d")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_LONG = 300


def visible(text: str) -> str:
    """A text in which nothing hides: characters that control the page or the reading direction stand as signs.

    A control character becomes its picture (``\\x00`` becomes U+2400), another invisible one its number
    (``⟨U+202E⟩``), half of a surrogate pair U+FFFD. Line breaks, tabs and the joiners within words stay.

    Example:
        >>> visible("a\\u202eb")
        'a⟨U+202E⟩b'
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def escaped(text: str, limit: int = _LONG) -> str:
    """A text to stand in HTML, in an element or an attribute, cut after ``limit`` characters with their number told."""
    if len(text) > limit:
        text = f"{text[:limit]} … ({len(text):,} characters)"
    return html.escape(visible(text))


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """Cells in columns, in HTML that takes its colours from the page around it.

    Args:
        columns: names.
        rows: the cells of each, as they are to be read; none is taken for HTML.
        right: columns of numbers, which stand on the right.
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
