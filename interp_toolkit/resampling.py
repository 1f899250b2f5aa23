"""95% intervals of statistics of sums over independent units, by resampling the units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

_RESAMPLES = 9999
# Rows that are drawn at a time: all at once would take a gigabyte for some thousand units.
_DRAWN = 2**22
# With fewer units Student's t covers more: the bootstrap of three of them cannot leave the range of the three.
_FEWEST = 6
_TAIL = 0.025


def bootstrap_interval(statistic: Callable[..., Any], *columns: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95% interval of a statistic of the sums of some columns, of which whole units are resampled.

    The bias-corrected and accelerated bootstrap (BCa; Efron 1987), with its quantiles set wider for few units, as the t
    distribution asks for (Hesterberg 2015). For two to five units, Student's t with the jackknife's standard error.

    Args:
        statistic: of one sum for each column, element by element.
        columns: one number for each unit.
        seed: of the draws.

    Returns:
        low and high: NaN for a single unit, or where leaving one out makes the statistic infinite; both the statistic
        itself where all units agree.

    Example:
        >>> bootstrap_interval(lambda total, rows: total / rows, sums, counts, seed=0)
    """
    totals, n = [column.sum() for column in columns], len(columns[0])
    value = float(statistic(*totals))
    if n == 1:
        return math.nan, math.nan
    left_out = np.asarray(statistic(*(total - column for total, column in zip(totals, columns))), dtype=np.float64)
    if not (math.isfinite(value) and np.isfinite(left_out).all()):
        return math.nan, math.nan
    if np.ptp(left_out) <= 1e-12 * abs(value):
        return value, value
    influence = left_out.mean() - left_out
    t = float(stdtrit(n - 1, 1 - _TAIL))
    if n < _FEWEST:
        half = t * math.sqrt((n - 1) / n * float((influence**2).sum()))
        return value - half, value + half
    drawn = np.sort(_resampled(statistic, columns, seed))
    acceleration = float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
    below = (np.searchsorted(drawn, value, "left") + np.searchsorted(drawn, value, "right")) / 2
    bias = float(ndtri(np.clip(below, 0.5, _RESAMPLES - 0.5) / _RESAMPLES))

    def end(z: float) -> float:
        # The denominator nears zero only where a single unit outweighs all others.
        quantile = float(ndtr(bias + (bias + z) / max(1 - acceleration * (bias + z), 0.1)))
        return float(drawn[round(quantile * (_RESAMPLES - 1))])

    wide = math.sqrt(n / (n - 1)) * t
    return end(-wide), end(wide)


def _resampled(statistic: Callable[..., Any], columns: tuple[np.ndarray, ...], seed: int) -> np.ndarray:
    rng, n = np.random.default_rng(seed), len(columns[0])
    size = max(1, _DRAWN // n)
    parts = []
    for start in range(0, _RESAMPLES, size):
        rows = rng.integers(0, n, (min(size, _RESAMPLES - start), n))
        # Columns of ones, as where every unit is one row, need no sums.
        sums = [np.full(len(rows), float(n)) if (x == 1).all() else x[rows].sum(1) for x in columns]
        parts.append(np.asarray(statistic(*sums), dtype=np.float64))
    return np.concatenate(parts)
