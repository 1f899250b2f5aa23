"""Given adapters on all of `val`, under three protocols that are reported apart, beside what needs no adapter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.titles import centred_vectors, contract_and_site
from interp_toolkit import Adapter
from interp_toolkit.adapters import untrained_adapter
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import control_losses
from interp_toolkit.evaluation.context import GREEDY, SAMPLES, TEMPERATURE, EvalContext
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.shipped import find_adapter
from interp_toolkit.sites import SiteStack

# Factors on the normalised vector that are tried without training, on this many training titles.
SWEEP = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)
SWEPT_TITLES = 300
# The titles on which losses are measured: these have narrow enough intervals on fewer titles.
SCORED = 1000


def evaluate(names: Sequence[str], context: EvalContext, path: Path) -> None:
    """Measure adapters; what was described before is not described again.

    Args:
        names: of shipped adapters, or paths, or ids on the hub.
        context: titles, model and embedder.
        path: of the results file.
    """
    adapters = {_short(name): find_adapter(name) for name in names}
    held_out, swept = context.titles.held_out, context.titles.train[:SWEPT_TITLES]
    settings = context.facts | dict(
        adapters={name: adapter.digest for name, adapter in adapters.items()},
        n=len(held_out),
        samples=SAMPLES,
        temperature=TEMPERATURE,
        sweep=list(SWEEP),
        swept_titles=len(swept),
        scored=len(held_out[:SCORED]),
    )
    if finished_result(path, settings):
        print(f"done before, see {path}")
        return
    measured, untrained = {}, {}
    for name, adapter in adapters.items():
        # Read in the order of training, whose files are shared.
        all_vectors = centred_vectors(context.model, adapter, context.titles.shards)
        vectors = all_vectors[-len(held_out) :]
        measured[name] = _adapter(context, adapter, vectors, held_out)
        contract, site = contract_and_site(adapter)
        if isinstance(site, SiteStack):
            continue  # several directions side by side are no direction that could be scaled
        # One baseline per site and soft prompt; the means of adapters of one site hardly differ.
        place = f"{site}, {contract.soft_prompt}"
        if place not in untrained:
            untrained[place] = _untrained(context, contract, vectors, all_vectors[: len(swept)], held_out)
    result = dict(settings=settings, versions=context.versions, title_to_itself=context.ceiling(held_out))
    write_result(path, result | dict(adapters=measured, untrained=list(untrained.values())))
    print(f"written to {path}")


def _adapter(context: EvalContext, adapter: Adapter, vectors: Tensor, held_out: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    losses = control_losses(context.model, adapter, vectors[:SCORED], held_out[:SCORED])
    seconds = time.perf_counter() - start
    n = len(held_out)
    greedy, sampled = (context.describe(adapter, vectors, samples) for samples in (1, SAMPLES))
    null_greedy, null_sampled = (context.describe_null(adapter, samples).repeated(n) for samples in (1, SAMPLES))
    answers = context.answers(held_out)
    contract, site = contract_and_site(adapter)
    return dict(
        kind=adapter.kind,
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        site=str(site),
        trained_with=dict(contract.versions),
        losses={"own": losses.matched, "shuffled": losses.shuffled, "null": losses.null},
        retrieval={
            "own": context.look_up(greedy, sampled, answers),
            # Each title is compared with the descriptions of the vector half-way round the list.
            "shuffled": context.look_up(greedy, sampled, answers.roll(n // 2)),
            "bias_only": context.look_up(null_greedy, null_sampled, answers),
        },
        seconds=dict(
            scoring=seconds,
            describing_greedy=greedy.seconds,
            describing_samples=sampled.seconds,
        ),
        examples=[
            dict(title=title, greedy=one[0], samples=six, evidence=[round(x, 3) if x == x else None for x in evidence])
            for title, one, six, evidence in zip(held_out[:12], greedy.texts, sampled.texts, sampled.evidence.tolist())
        ],
    )


def _untrained(
    context: EvalContext, contract: Contract, vectors: Tensor, swept: Tensor, held_out: list[str]
) -> dict[str, Any]:
    """The vectors themselves at the best scale of a sweep, chosen on training titles by the mean reciprocal rank.

    Recall@1 is a handful of titles there, and would choose by luck.
    """
    answers = context.answers(context.titles.train[: len(swept)])
    sweep = {
        scale: context.look_up(context.describe(untrained_adapter(contract, scale), swept, 1), None, answers)[GREEDY]
        for scale in SWEEP
    }
    best = max(SWEEP, key=lambda scale: sweep[scale]["mrr"][0])
    adapter = untrained_adapter(contract, best)
    greedy, sampled = (context.describe(adapter, vectors, samples) for samples in (1, SAMPLES))
    return dict(
        site=str(contract.site),
        scale=best,
        sweep=[dict(scale=scale, **recall) for scale, recall in sweep.items()],
        retrieval={"own": context.look_up(greedy, sampled, context.answers(held_out))},
        seconds=dict(describing_greedy=greedy.seconds, describing_samples=sampled.seconds),
    )


def _short(name: str) -> str:
    """The name of an adapter in the results: its own, or the end of its path."""
    return "/".join(Path(name).parts[-2:])
