"""Data frames as the page's script takes them."""

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

    Raises:
        InterpToolkitError: it lacks some.
    """
    if missing := [name for name in columns if name not in frame.columns]:
        raise InterpToolkitError(
            f"{where} takes a data frame with the columns {', '.join(columns)}; it lacks {', '.join(missing)} and has "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )


def plain(value: Any) -> Any:
    """A cell as JSON can hold it: a number, a text without hidden characters, or None for a missing value."""
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
    """Values that must be numbers; None where missing or not finite.

    Raises:
        InterpToolkitError: one is no number.
    """
    told = []
    for value in values:
        if value is None or value is pd.NA:
            told.append(None)
        elif isinstance(value, Real):
            told.append(_finite(value))
        else:
            raise InterpToolkitError(f"expected numbers in {where}, got {value!r:.80}")
    return told


def _finite(value: Real) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # a whole number too great for any axis
        return None
    return number if math.isfinite(number) else None
