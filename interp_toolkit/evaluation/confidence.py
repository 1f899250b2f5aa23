"""Confidence: fitted on descriptions that are known to be right or wrong, and how far it can be trusted on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import rankdata

from interp_toolkit.confidence import AGREEMENT, FEATURES, ConfidenceModel, TokenKind
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sites import Place
from interp_toolkit.statistics import mean_interval, resampled_interval

# Fewer say little of five weights.
_FEWEST = 50
_BINS = 10
# More of these need not be better or worse.
_LENGTHS = ("tokens", "words")


def fit_confidence(
    features: Mapping[str, np.ndarray],
    right: Sequence[bool] | np.ndarray,
    *,
    site: Place,
    token: TokenKind,
    several: bool = False,
    seed: int = 0,
) -> ConfidenceModel:
    """Fit the probability that a description is right by a logistic regression on standardised features.

    Weights are at least 0, but for those of lengths: no description is less likely right for more evidence, or for
    coming back nearer to its vector. Features that go together, such as the cosines, would else get weights of both
    signs that cancel on the vectors of the fit, and not on others, such as random directions. The penalty on the
    weights is half their square (as scikit-learn's C=1).

    Args:
        features: of each description, see `interp_toolkit.confidence.description_features`.
        right: whether each is right.
        site: where the vectors were read.
        token: which tokens they are of.
        several: whether the descriptions are several samples of each vector.
        seed: of the vectors and samples, for the record.

    Returns:
        the model, for `Contract.confidence`.

    Raises:
        InterpToolkitError: counts that differ, fewer than 50 descriptions that are not empty, all right or all wrong.

    Example:
        >>> features = description_features(samples, log_probs, evidences, tokens, cosines)
        >>> fit_confidence(features, right, site=Site.after(23), token="text")
    """
    names = (*FEATURES, AGREEMENT) if several else FEATURES
    values = np.stack([np.asarray(features[name], dtype=float) for name in names], 1)
    verdicts = np.asarray(right, dtype=bool)
    require_verdicts(len(values), len(verdicts))
    known = np.isfinite(values).all(1)
    values, verdicts = values[known], verdicts[known]
    if len(values) < _FEWEST or not 0 < verdicts.sum() < len(verdicts):
        raise InterpToolkitError(
            f"expected at least {_FEWEST} descriptions, some right and some wrong, to fit a confidence on, got "
            f"{len(values)} that are not empty, {int(verdicts.sum())} of them right"
        )
    centre, spread = values.mean(0), values.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    intercept, weights = _logistic((values - centre) / spread, verdicts, [name not in _LENGTHS for name in names])
    weights = weights / spread
    return ConfidenceModel(
        site=site,
        token=token,
        several=several,
        intercept=float(intercept - weights @ centre),
        weights=dict(zip(names, weights.tolist())),
        n=len(values),
        seed=seed,
    )


def _logistic(features: np.ndarray, right: np.ndarray, at_least_0: Sequence[bool]) -> tuple[float, np.ndarray]:
    """Intercept and weights of least penalised loss, those weights at least 0 of which it is said."""
    signs = np.where(right, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (parameters[0] + features @ parameters[1:])
        slopes = -signs * expit(-margins)
        gradient = np.concatenate([[slopes.sum()], features.T @ slopes + parameters[1:]])
        return float(parameters[1:] @ parameters[1:] / 2 - log_expit(margins).sum()), gradient

    bounds = [(None, None), *((0.0 if bounded else None, None) for bounded in at_least_0)]
    start = np.zeros(features.shape[1] + 1)
    parameters = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(parameters[0]), parameters[1:]


def calibration_table(
    probabilities: Sequence[float] | np.ndarray, right: Sequence[bool] | np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Tabulate how far probabilities of being right can be trusted, on descriptions that they were not fitted on.

    Args:
        probabilities: of each description, from 0 to 1.
        right: whether each is right.
        seed: of the bootstrap over descriptions.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high`` (95%), ``n``, ``seed``. Measures: ``calibration error`` (the
        mean distance between confidence and the share that is right, over ten groups of equal size by confidence,
        weighted by their size; 0 is best), ``Brier score`` (the mean squared error), ``AUROC`` (the chance that a right
        description has the higher confidence), ``right`` (the share that is), ``confidence`` (its mean).

    Raises:
        InterpToolkitError: counts that differ, no description, or what is no probability.
    """
    p, y = _checked(probabilities, right)
    intervals = {
        name: resampled_interval(lambda rows, of=measure: of(p[rows], y[rows]), len(p), seed)
        for name, measure in (("calibration error", calibration_error), ("AUROC", auroc))
    }
    for name, values in (("Brier score", (p - y) ** 2), ("right", y), ("confidence", p)):
        intervals[name] = mean_interval(values, seed=seed)
    rows = [dict(measure=name) | interval.to_dict() for name, interval in intervals.items()]
    return pd.DataFrame(rows).drop(columns="clusters")


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error over ten groups of equal size (Naeini et al. 2015, with quantile bins).

    Args:
        probabilities: of each description.
        right: whether each is right.
    """
    order = np.argsort(probabilities, kind="stable")
    groups = [group for group in np.array_split(order, _BINS) if len(group)]
    gaps = [abs(probabilities[group].mean() - right[group].mean()) * len(group) for group in groups]
    return float(sum(gaps) / len(probabilities))


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right description has the higher score, ties counted half; NaN where all are right or wrong.

    Args:
        scores: of each description.
        right: whether each is right.
    """
    is_right = right > 0
    count = int(is_right.sum())
    pairs = count * (len(scores) - count)
    if not pairs:
        return float("nan")
    # Mann and Whitney's U by its definition: scipy's function for it takes four to six times as long, for its p-value.
    return float((rankdata(scores)[is_right].sum() - count * (count + 1) / 2) / pairs)


def area_under_risk_coverage(scores: np.ndarray, right: np.ndarray) -> float:
    """The mean share that is wrong among the descriptions with the highest scores, over all coverages; lower is better.

    Descriptions with equal scores are taken together in the order in which they stand (Geifman and El-Yaniv 2017).

    Args:
        scores: of each description; NaN is taken last.
        right: whether each is right.
    """
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    wrong = 1.0 - right[order].astype(float)
    return float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())


def require_verdicts(descriptions: int, verdicts: int) -> None:
    """Refuse numbers of descriptions and of verdicts on them that differ, and none.

    Raises:
        InterpToolkitError: the text names both numbers.
    """
    if descriptions != verdicts or not descriptions:
        raise InterpToolkitError(
            f"expected whether each description is right, got {descriptions} descriptions and {verdicts} verdicts"
        )


def _checked(
    probabilities: Sequence[float] | np.ndarray, right: Sequence[bool] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities, dtype=float), np.asarray(right, dtype=float)
    require_verdicts(len(p), len(y))
    if not ((p >= 0) & (p <= 1)).all():
        raise InterpToolkitError("expected probabilities between 0 and 1; leave out descriptions without confidence")
    return p, y
