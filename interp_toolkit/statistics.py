"""Statistics: intervals, paired differences and many comparisons, the same for every table.

All intervals are of 95%: Wilson's for shares, the accelerated bootstrap's for means and ratios (`bootstrap_interval`).
On skewed rows, of which a percentile bootstrap covers the truth in 86% (exponential, n = 10) and 89% of cases
(lognormal, n = 60), it covers it in 92%. Rows that belong together, such as the samples of one vector, are no
independent rows: give their ``clusters``, and whole clusters are drawn (or flipped) together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError

Values = Sequence[float | int] | np.ndarray | pd.Series | Tensor
"""One number per row."""
Clusters = Sequence[Hashable] | np.ndarray | pd.Series | Tensor
"""For each row what it belongs to, such as the number of its vector."""

# Numbers that are drawn at a time: all at once would take a gigabyte for some thousand rows.
_DRAWN = 2**22
_METHODS = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval.

    Attributes:
        value: the figure.
        low: lower end of the interval.
        high: upper end.
        n: number of rows.
        clusters: number of independent units among them: as many as rows where none belong together.
        seed: of the bootstrap; None for an interval in closed form.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    seed: int | None

    def to_dict(self) -> dict[str, Any]:
        """A row of a data frame."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Interval):
    """A mean paired difference with its 95% interval.

    Attributes:
        p: two-sided p-value of the sign-flip test: how often differences as large as these come of signs by chance.
    """

    p: float


def mean_interval(values: Values, clusters: Clusters | None = None, *, seed: int = 0) -> Interval:
    """The mean over rows, with a bootstrap interval.

    Of truths (``bool``) the mean is a share, and the interval that of `proportion_interval`. Of numbers, a single unit
    says nothing of the spread, and low and high are NaN; where all units are equal, low and high are the mean.

    Args:
        values: one a row.
        clusters: for each row what it belongs to; by default every row stands alone.
        seed: of the bootstrap.

    Raises:
        InterpToolkitError: no rows, a number that is not finite, or counts that differ.

    Example:
        >>> mean_interval(losses, seed=0).to_dict()
    """
    (sums,), counts = _units([values], clusters)
    if _are_truths(values):
        return replace(proportion_interval(values, clusters), seed=seed)
    ends = bootstrap_interval(_mean, sums, counts, seed=seed)
    return Interval(float(_mean(sums.sum(), counts.sum())), *ends, len(values), len(sums), seed)


def proportion_interval(hits: Values, clusters: Clusters | None = None) -> Interval:
    """The share of rows that are true, with Wilson's score interval, which holds near 0 and 1 too.

    With clusters the count of rows is replaced by the effective one: that with which independent rows would vary as the
    shares of the clusters do, at most the rows there are, and the clusters there are where all rows agree (Korn and
    Graubard 1998; with Wilson's interval Franco, Little, Louis and Slud 2019).

    Args:
        hits: one a row, true or false, or 1 and 0.
        clusters: for each row what it belongs to; by default every row stands alone.

    Raises:
        InterpToolkitError: no rows, values other than true and false, or counts that differ.

    Example:
        >>> proportion_interval(ranks == 1).to_dict()
    """
    (sums,), counts = _units([hits], clusters)
    truths = _array(hits)
    if len(bad := truths[~np.isin(truths, (0.0, 1.0))]):
        raise InterpToolkitError(f"expected true or false for each row, got {bad[0]}; see mean_interval")
    n, units, share = len(truths), len(sums), float(truths.mean())
    spread = float(((sums - share * counts) ** 2).sum()) / n**2 * units / max(units - 1, 1)
    if units == 1 or share in (0.0, 1.0):
        effective = units
    else:
        # No spread between clusters says no more than independent rows would.
        effective = min(n, 1 + share * (1 - share) / spread) if spread else n
    ends: Any = proportion_confint(share * effective, effective, method="wilson")
    return Interval(share, float(ends[0]), float(ends[1]), n, units, None)


def ratio_interval(
    numerators: Values, denominators: Values, clusters: Clusters | None = None, *, seed: int = 0
) -> Interval:
    """The ratio of two means over the same rows, with a bootstrap interval in which rows stay paired.

    Where the interval of the denominator's mean holds zero, or there is a single unit, the ratio may be anything: low
    and high are infinite (compare Fieller's theorem), and the value NaN where the denominator's mean is zero itself.

    Args:
        numerators: one a row.
        denominators: one a row.
        clusters: for each row what it belongs to; by default every row stands alone.
        seed: of the bootstrap.

    Raises:
        InterpToolkitError: no rows, a number that is not finite, or counts that differ.

    Example:
        >>> ratio_interval(untrained - bias, untrained - trained, seed=0).value
    """
    (over, under), counts = _units([numerators, denominators], clusters)
    of = (len(numerators), len(counts), seed)
    value = float(over.sum() / under.sum()) if under.sum() else float("nan")
    low, high = bootstrap_interval(_mean, under, counts, seed=seed)
    if not (low > 0 or high < 0):
        return Interval(value, -np.inf, np.inf, *of)
    return Interval(value, *bootstrap_interval(_ratio, over, under, seed=seed), *of)


def paired_difference(first: Values, second: Values, clusters: Clusters | None = None, *, seed: int = 0) -> Difference:
    """The mean of ``first - second`` over the same rows, with a bootstrap interval and a sign-flip p-value.

    Of truths that differ alike in every row, the interval is as wide as that of the share of rows that may differ
    otherwise. The p-value is exact for up to 13 units, where every choice of signs is tried; else of 9,999 random ones.
    Rows of a cluster keep their signs together.

    Args:
        first: one a row.
        second: of the same rows.
        clusters: for each row what it belongs to; by default every row stands alone.
        seed: of the bootstrap and of the signs.

    Raises:
        InterpToolkitError: no rows, a number that is not finite, or counts that differ.

    Example:
        >>> gain = paired_difference(trained, untrained, clusters=vector_of_sample, seed=0)
        >>> gain.value, gain.low, gain.high, gain.p
    """
    (one, other), counts = _units([first, second], clusters)
    differences = one - other
    low, high = bootstrap_interval(_mean, differences, counts, seed=seed)
    value = float(_mean(differences.sum(), counts.sum()))
    if low == high and _are_truths(first) and _are_truths(second):
        # Rows that all agree do not say that no row differs, but that few do.
        few = proportion_interval(np.zeros(len(first)), clusters).high
        low, high = max(-1.0, value - few), min(1.0, value + few)
    p = 1.0
    if len(differences) > 1 and differences.any():
        p = permutation_test(
            (differences,),
            lambda x, axis: x.sum(axis),
            permutation_type="samples",
            vectorized=True,
            # Signs of several copies of the differences are held at a time.
            batch=max(1, _DRAWN // (8 * len(differences))),
            rng=seed,
        ).pvalue
    return Difference(value, low, high, len(first), len(counts), seed, float(p))


def adjust_p_values(p_values: Values, method: Literal["holm", "benjamini-hochberg"] = "holm") -> list[float]:
    """P-values corrected for as many comparisons as there are.

    Args:
        p_values: of all comparisons that were made, not of the best alone.
        method: ``"holm"`` bounds the chance of any false finding, ``"benjamini-hochberg"`` the expected share of false
            ones among the findings.

    Returns:
        in the same order; a comparison stands at 5% where its corrected value is at most 0.05.

    Raises:
        InterpToolkitError: an unknown method, or a value outside 0 to 1.

    Example:
        >>> adjust_p_values([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    raw = _array(p_values)
    if method not in _METHODS:
        raise InterpToolkitError(f"expected method {' or '.join(_METHODS)}, got {method!r}")
    if not ((raw >= 0) & (raw <= 1)).all():
        raise InterpToolkitError(f"expected p-values from 0 to 1, got {raw[~((raw >= 0) & (raw <= 1))][0]}")
    adjusted: Any = multipletests(raw, method=_METHODS[method])[1] if len(raw) else raw
    return adjusted.tolist()


def _array(values: Values) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def _are_truths(values: Values) -> bool:
    """Whether the values say of themselves that they are true or false: numbers of 0 and 1 may be anything."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values).dtype == bool


def _units(columns: Sequence[Values], clusters: Clusters | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Sums of each column over the rows of each independent unit, and its count of rows."""
    arrays = [_array(column) for column in columns]
    lengths = [len(column) for column in arrays] + ([] if clusters is None else [len(clusters)])
    if len(set(lengths)) > 1 or not lengths[0] or any(column.ndim != 1 for column in arrays):
        raise InterpToolkitError(
            f"expected one number for each of the same rows, and at least one row, got "
            f"{' and '.join(map(str, lengths))}" + (", the last for clusters" if clusters is not None else "")
        )
    for column in arrays:
        if len(bad := (~np.isfinite(column)).nonzero()[0]):
            raise InterpToolkitError(f"expected finite numbers, but row {bad[0]} holds {column[bad[0]]}; leave it out")
    if clusters is None:
        return arrays, np.ones(lengths[0])
    named: Any = clusters.cpu().numpy() if isinstance(clusters, Tensor) else clusters
    codes, names = pd.factorize(pd.Series(named, dtype=object), use_na_sentinel=False)
    return [np.bincount(codes, column, len(names)) for column in arrays], np.bincount(codes).astype(np.float64)


def _mean(total: Any, rows: Any) -> Any:
    return total / rows


def _ratio(over: Any, under: Any) -> Any:
    """Over divided by under; what a rare draw divides by zero is larger than all others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.divide(over, under), nan=np.inf, posinf=np.inf, neginf=-np.inf)


_RESAMPLES = 9999
# Of a statistic that takes milliseconds each time.
_FEWER_RESAMPLES = 999
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


def resampled_interval(statistic: Callable[[np.ndarray], float], count: int, seed: int) -> Interval:
    """The 95% interval of any statistic of rows, such as an area under a curve, that is none of their sums.

    The percentile bootstrap of 999 draws; draws that have no value, as an area of right answers alone, are left out.

    Args:
        statistic: from numbers of rows, which may repeat, to its value for them.
        count: how many rows there are, each a unit of its own.
        seed: of the draws.

    Raises:
        InterpToolkitError: no rows.

    Example:
        >>> resampled_interval(lambda rows: auroc(scores[rows], right[rows]), len(scores), seed=0)
    """
    if count < 1:
        raise InterpToolkitError("expected at least one row, got none")
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, count, count)) for _ in range(_FEWER_RESAMPLES)])
    low, high = np.nanquantile(values, [_TAIL, 1 - _TAIL]) if np.isfinite(values).any() else (math.nan, math.nan)
    return Interval(float(statistic(np.arange(count))), float(low), float(high), count, count, seed)


def _resampled(statistic: Callable[..., Any], columns: tuple[np.ndarray, ...], seed: int) -> np.ndarray:
    rng, n = np.random.default_rng(seed), len(columns[0])
    size = max(1, _DRAWN // n)
    values = []
    for start in range(0, _RESAMPLES, size):
        rows = rng.integers(0, n, (min(size, _RESAMPLES - start), n))
        # Columns of ones, as where every unit is one row, need no sums.
        sums = [np.full(len(rows), float(n)) if (x == 1).all() else x[rows].sum(1) for x in columns]
        values.append(np.asarray(statistic(*sums), dtype=np.float64))
    return np.concatenate(values)
