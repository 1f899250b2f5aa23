"""Values in headers and configs of published adapters: texts in the one, of any kind in the other, alike in meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from interp_toolkit.errors import FileFormatError

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def is_given(value: object) -> bool:
    """Whether a value says anything: None does not, in Python's words neither, and an empty text does not."""
    return not (value is None or (isinstance(value, str) and value in ("", "None")))


def parse_flag(value: Any, where: str) -> bool:
    """True or false, as a bool or as a text in whatever case.

    Raises:
        FileFormatError: anything else; the text names ``where``.
    """
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    if not isinstance(value, bool):
        raise FileFormatError(f"expected true or false for {where}, got {value!r:.60}")
    return value


def parse_number(value: Any, where: str) -> float:
    """A number, as one or as its text.

    Raises:
        FileFormatError: anything else; the text names ``where``.
    """
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise FileFormatError(f"expected a number for {where}, got {value!r:.60}")


def parse_count(value: Any, where: str) -> int:
    """A whole number of at least 1, as one or as its text.

    Raises:
        FileFormatError: anything else; the text names ``where``.
    """
    number = parse_number(value, where)
    if not math.isfinite(number) or not number.is_integer() or number < 1:
        raise FileFormatError(f"expected a whole number of at least 1 for {where}, got {value!r:.60}")
    return int(number)


def parse_text(value: Any, where: str) -> str:
    """A text; an empty one where the file says nothing.

    Raises:
        FileFormatError: anything else; the text names ``where``.
    """
    if not isinstance(value, (str, type(None))):
        raise FileFormatError(f"expected a text for {where}, got {value!r:.60}")
    return value or ""


def parse_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A part with parts of its own; an empty one where the file says nothing.

    Raises:
        FileFormatError: anything else; the text names ``where``.
    """
    if not isinstance(value, (dict, type(None))):
        raise FileFormatError(f"expected a mapping for {where}, got {value!r:.60}")
    return value or {}
