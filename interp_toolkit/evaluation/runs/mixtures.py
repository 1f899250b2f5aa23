"""Measure mixtures: which of two held-out titles in one vector is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.bench import SEED, TEMPERATURE, Bench
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.mixtures import SAMPLES, SHARES, mix, mixture_table, named_within
from interp_toolkit.results import finished_result, write_result

# Pairs: five vectors each are described, by one greedy text and by six samples. Whole shards of vectors.
_MOST = 512
# A title is named if a description finds it among so many.
_WITHIN = (1, 10)
_EXAMPLES = 12


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Describe mixtures of held-out titles' vectors, and look for both titles and for a third.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` (``count``, and ``rows`` with reasons), ``tables``:
        ``mixtures`` (see `mixture_table`, with a column ``named`` for what counts as naming), and ``examples`` of
        halves.

    Raises:
        InterpToolkitError: an adapter without a site, one that does not normalise, or fewer than three titles.
    """
    settings = bench.facts | dict(
        task="mixtures",
        adapter=adapter.digest,
        n=len(bench.titles.held[:_MOST]),
        shares=list(SHARES),
        samples=list(SAMPLES),
        temperature=TEMPERATURE,
        within=list(_WITHIN),
    )
    if kept := finished_result(results, settings):
        return kept
    held = Held.read(bench, adapter, _MOST)
    tables = [
        mixture_table(
            adapter,
            held.vectors,
            held.titles,
            lambda vectors, samples: bench.describe(adapter, vectors, samples).texts,
            named_within(k, bench.embed, bench.index, bench.titles.index),
        ).assign(named=f"within {k}", seed=SEED)
        for k in _WITHIN
    ]
    halves = mix(held.vectors, held.vectors.roll(-1, 0), 0.5, adapter.config.sites)
    told = bench.describe(adapter, halves, 1)
    found = dict(
        settings=settings,
        versions=bench.versions,
        failed=dict(count=len(held.failed), rows=held.failed),
        tables=dict(mixtures=pd.concat(tables).to_dict("records")),
        examples=[
            dict(first=first, second=second, half_and_half=text)
            for first, second, (text,) in zip(held.titles, held.titles[1:], told.texts[:_EXAMPLES])
        ],
    )
    write_result(results, found)
    return found
