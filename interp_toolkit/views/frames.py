"""Data frames as the page's script reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.tables import visible


def need(frame: pd.DataFrame, columns: Iterable[str], where: str) -> None:
    """Check that a frame has columns.

    Args:
        frame: the data frame.
        columns: names of the columns that it must have.
        where: name of the function that needs them, for the message.

    Raises:
        InterpToolkitError: the frame lacks one or more of them.
    """
    if missing := [name for name in columns if name not in frame.columns]:
        raise InterpToolkitError(
            f"{where} takes a data frame with the columns {', '.join(columns)}; it lacks {', '.join(missing)} and has "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )


def plain(value: Any) -> Any:
    """Convert a cell to what JSON can hold: a number, a text without hidden characters, or None where missing."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return None if math.isnan(value) else float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return " · ".join(str(plain(x)) for x in value)
    if isinstance(value, dict):
        return visible(json.dumps(value, ensure_ascii=False, default=str))
    return None if value is None or pd.isna(value) else visible(str(value))


def numbers(values: Iterable[Any], where: str) -> list[float | None]:
    """Convert values to floats, with None where one is missing or not finite.

    Raises:
        InterpToolkitError: a value is not a number.
    """
    floats = []
    for value in values:
        if value is None or value is pd.NA:
            floats.append(None)
        elif isinstance(value, Real):
            floats.append(_finite(value))
        else:
            raise InterpToolkitError(f"expected numbers in {where}, got {value!r:.80}")
    return floats


def _finite(value: Real) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # a whole number too great for any axis
        return None
    return number if math.isfinite(number) else None
