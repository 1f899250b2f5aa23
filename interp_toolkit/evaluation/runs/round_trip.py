"""Measure the round trip: how near descriptions of held-out titles come to their vectors, and what that tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap, mannwhitneyu

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.bench import GREEDY, SEED, Bench
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.protocols import description_ranks
from interp_toolkit.evaluation.round_trip import round_trip, round_trip_summary
from interp_toolkit.results import finished_result, write_result

# A description is right if its title is found among so many.
_WITHIN = (1, 10)
_EXAMPLES = 12
_RESAMPLES = 999


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Turn one greedy description of each held-out title back into a vector.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` (``count``, and ``rows`` with reasons), ``tables``:
        ``round_trip`` (see `round_trip_summary`) and ``telling`` (the chance that a right description scores higher
        than a wrong one, by its cosine and by its evidence; no row where all are right or all wrong), and
        ``examples``.

    Raises:
        InterpToolkitError: an adapter without a site, or fewer than two titles.
    """
    settings = bench.facts | dict(
        task="round trip", adapter=adapter.digest, n=len(bench.titles.held), protocol=GREEDY, within=list(_WITHIN)
    )
    if kept := finished_result(results, settings):
        return kept
    held = Held.read(bench, adapter)
    told = bench.describe(adapter, held.vectors, 1)
    described = [text for (text,) in told.texts]
    table = round_trip(bench.model, adapter, held.vectors, described, titles=held.titles, progress=bench.progress)
    ranks = description_ranks(told.texts, bench.embed, bench.index, bench.answers(held.titles))[:, 0].numpy()
    scores = dict(
        cosine=table["cosine"].to_numpy(),
        # An empty description has no evidence.
        evidence=told.evidence[:, 0].nan_to_num(nan=-torch.inf).numpy(),
    )
    found = dict(
        settings=settings,
        versions=bench.versions,
        failed=dict(count=len(held.failed), rows=held.failed),
        tables=dict(
            round_trip=round_trip_summary(table, SEED).to_dict("records"),
            telling=[
                dict(score=name, right=f"within {k}") | _telling(score, ranks <= k)
                for k in _WITHIN
                for name, score in scores.items()
                if 0 < (ranks <= k).sum() < len(ranks)
            ],
        ),
        examples=[
            dict(title=title) | row
            for title, row in zip(
                held.titles, table.head(_EXAMPLES).drop(columns=["vector", "title"]).to_dict("records")
            )
        ],
    )
    write_result(results, found)
    return found


def _telling(scores: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The area under the ROC curve (Mann-Whitney's U over the number of pairs), with a bootstrap interval."""

    def area(scores: np.ndarray, right: np.ndarray) -> float:
        high, low = scores[right > 0], scores[right == 0]
        # A draw may have but one kind, which tells nothing.
        return (
            mannwhitneyu(high, low, method="asymptotic").statistic / (len(high) * len(low))
            if len(high) * len(low)
            else 0.5
        )

    interval = bootstrap(
        (scores, right.astype(float)),
        area,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=SEED,
    ).confidence_interval
    return dict(
        value=float(area(scores, right)), low=float(interval.low), high=float(interval.high), n=len(scores), seed=SEED
    )
