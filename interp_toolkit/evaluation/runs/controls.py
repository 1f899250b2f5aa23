"""Measure controls: what held-out titles cost, and what names them, without the right vector or the right title."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.bench import GREEDY, SEED, Bench
from interp_toolkit.evaluation.conditions import describe_each
from interp_toolkit.evaluation.controls import SCALES, controls, tabulate
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.retrieval import recall_table
from interp_toolkit.evaluation.runs.bias import bias_training, train_bias
from interp_toolkit.evaluation.runs.losses import describe, measure, ranks
from interp_toolkit.results import finished_result, json_rows, write_result

_MEASURED = 500
# A description names its title if it finds it among so many.
_WITHIN = 10
_EXAMPLES = 12


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Score and describe held-out titles under every control.

    Half an hour on two cores, less for adapters of several sites; half of it is the training of a bias alone, which the
    run of the bias shares.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` (``count`` and ``rows`` with reasons),
        ``bias_only`` (its digest), ``tables``: ``controls`` (see `control_table`; a title is named if it is among the
        first 10 of all) and ``retrieval`` (under each control recall at several depths); and ``examples``.

    Raises:
        InterpToolkitError: an adapter without a site, or too few titles.
    """
    settings = bench.facts | dict(
        task="controls",
        adapter=adapter.digest,
        n=len(bench.titles.held[:_MEASURED]),
        scales=list(SCALES),
        named_within=_WITHIN,
        training=bias_training(bench, adapter),
        protocol=GREEDY,
    )
    if kept := finished_result(results, settings):
        return kept
    held = Held.read(bench, adapter, _MEASURED)
    bias_only = train_bias(bench, adapter)
    asked = measure(
        bench,
        held.titles,
        held.vectors,
        lambda vectors, labels: controls(adapter, vectors, labels, bias_only=bias_only, seed=SEED),
    )
    texts = describe_each(asked.conditions, partial(describe, bench))
    found = [ranks(bench, asked.titles, told, one.faced) for told, one in zip(texts, asked.conditions)]
    table = tabulate(asked.conditions, asked.losses, [rank <= _WITHIN for rank in found], SEED)
    retrieval = [
        dict(control=one.name, scale=one.scale) | row
        for rank, one in zip(found, asked.conditions)
        for row in recall_table(rank, seed=SEED).to_dict("records")
    ]
    failed = held.failed + asked.failed
    told = dict(
        settings=settings,
        versions=bench.versions,
        failed=dict(count=len(failed), rows=failed),
        bias_only=dict(digest=bias_only.digest),
        tables=dict(controls=json_rows(table), retrieval=retrieval),
        examples=[
            dict(title=title, control=one.name, scale=one.scale, description=told[i])
            for i, title in enumerate(asked.titles[:_EXAMPLES])
            for one, told in zip(asked.conditions, texts)
        ],
    )
    write_result(results, told)
    return told
