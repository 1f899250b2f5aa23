"""Scores of sources of labels, from those of single labels: best labels, and means with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.statistics import mean_interval, paired_difference

BEST, MEAN, CHOSEN = "best label", "mean of labels", "best label, chosen by other texts"
PROTOCOLS = {BEST: "best", MEAN: "mean", CHOSEN: "chosen"}
_HITS = {"rate": "hits", "strict_rate": "strict_hits"}


def best_labels(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    """Choose each feature's best label from each source.

    Args:
        scores: of `generation_scores` or `detection_scores`.
        score: which of their columns, such as ``"strict_rate"`` or ``"auroc"``.

    Returns:
        one row per source and feature: ``source``, ``feature``, ``label`` (the best, the first of equals), ``best``
        (its score: the paper's), ``mean`` (of all labels), ``chosen`` (the score of the label that is best on the texts
        of even number, on those of odd number, and the other way round, averaged: what the best of many labels is worth
        without the luck; NaN where single hits are not known or there is one text), ``tries`` (labels). Rows without a
        score are left out, and so are features without any.

    Raises:
        InterpToolkitError: no such column.
    """
    if score not in scores:
        raise InterpToolkitError(f"expected a column {score!r} of scores, got {', '.join(map(str, scores))}")
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in scores.to_dict("records"):
        if row[score] == row[score]:
            groups.setdefault((row["source"], row["feature"]), []).append(row)
    best = []
    for (source, feature), rows in groups.items():
        values = [float(row[score]) for row in rows]
        best.append(
            dict(
                source=source,
                feature=feature,
                label=rows[int(np.argmax(values))]["label"],
                best=max(values),
                mean=float(np.mean(values)),
                chosen=_chosen([row[_HITS[score]] for row in rows]) if score in _HITS else float("nan"),
                tries=len(rows),
            )
        )
    return pd.DataFrame(best, columns=["source", "feature", "label", "best", "mean", "chosen", "tries"])


def score_table(scores: pd.DataFrame, score: str, *, against: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Mean scores over features for each source of labels.

    Args:
        scores: of `generation_scores` or `detection_scores`.
        score: which of their columns.
        against: a source that each other one is compared with, over the features that both have.
        seed: of the bootstrap.

    Returns:
        columns ``source``, ``score``, ``protocol`` (``best label``, the paper's figure; ``mean of labels``; ``best
        label, chosen by other texts``, see `best_labels`), ``what`` (``mean``, or ``less AGAINST`` for the paired
        difference), ``value``, ``low``, ``high`` (95% bootstrap over features), ``p`` (of a difference; else NaN),
        ``n`` (features), ``tries`` (labels per feature), ``failed`` (rows without a score), ``seed``.

    Raises:
        InterpToolkitError: no such column, no scored row, or an unknown source to compare with.

    Example:
        >>> score_table(scores, "strict_rate", against="original")
    """
    by_source: dict[str, dict[int, dict[str, Any]]] = {}
    for row in best_labels(scores, score).to_dict("records"):
        by_source.setdefault(row["source"], {})[row["feature"]] = row
    if not by_source:
        raise InterpToolkitError(f"expected at least one row with a {score}, got none; see the column reason")
    if against is not None and against not in by_source:
        raise InterpToolkitError(f"expected one of the sources {', '.join(by_source)} to compare with, got {against!r}")
    failed = Counter(source for source, value in zip(scores["source"], scores[score]) if value != value)
    rows = []
    for protocol, column in PROTOCOLS.items():
        known = {
            source: {feature: row[column] for feature, row in best.items() if row[column] == row[column]}
            for source, best in by_source.items()
        }
        for source, values in known.items():
            if not values:
                continue
            start = dict(source=source, score=score, protocol=protocol)
            start |= dict(tries=max(row["tries"] for row in by_source[source].values()), failed=failed[source])
            rows.append(
                start | dict(what="mean", p=float("nan")) | mean_interval(list(values.values()), seed=seed).to_dict()
            )
            if against is not None and source != against and (both := [x for x in values if x in known[against]]):
                gap = paired_difference([values[x] for x in both], [known[against][x] for x in both], seed=seed)
                rows.append(start | dict(what=f"less {against}") | gap.to_dict())
    columns = ["source", "score", "protocol", "what", "value", "low", "high", "p", "n", "tries", "failed", "seed"]
    return pd.DataFrame(rows, columns=columns)


def _chosen(hits: Sequence[Sequence[bool]]) -> float:
    """The rate of the label chosen on one half of the texts, on the other half; both ways, averaged."""
    table = np.array(hits, dtype=float)
    even, odd = table[:, ::2], table[:, 1::2]
    if not odd.size:
        return float("nan")
    # Equally good labels: all that are best on one half are averaged on the other.
    sides = [other[one.mean(1) == one.mean(1).max()].mean() for one, other in ((even, odd), (odd, even))]
    return float(np.mean(sides))
