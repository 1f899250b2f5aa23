"""Given adapters on all of `val`, under three protocols that are kept apart, beside what finds titles without them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from interp_toolkit import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import control_losses
from interp_toolkit.evaluation.bench import GREEDY, SAMPLES, TEMPERATURE, Bench
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.shipped import find_adapter
from interp_toolkit.sites import SiteStack

# Factors on the normalised vector that are tried without training, on this many training titles.
SWEEP = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)
SWEPT_TITLES = 300
# Losses are even enough for fewer titles to tell them.
SCORED = 1000


def evaluate(names: Sequence[str], bench: Bench, path: Path) -> None:
    """Measure adapters (paths, ids, or names of shipped ones); what was described before is not described again."""
    adapters = {_short(name): find_adapter(name) for name in names}
    held, swept = bench.titles.held, bench.titles.train[:SWEPT_TITLES]
    settings = bench.facts | dict(
        adapters={name: adapter.digest for name, adapter in adapters.items()},
        n=len(held),
        samples=SAMPLES,
        temperature=TEMPERATURE,
        sweep=list(SWEEP),
        swept_titles=len(swept),
        scored=len(held[:SCORED]),
    )
    if finished_result(path, settings):
        print(f"done before, see {path}")
        return
    told: dict[str, Any] = dict(
        settings=settings,
        versions=bench.versions,
        title_to_itself=bench.ceiling(held),
        adapters={},
        untrained={},
    )
    for name, adapter in adapters.items():
        contract = _contract(name, adapter)
        # Read in the order of training, whose files are shared.
        assert contract.site is not None
        read = contract.centre(topic_vectors(bench.model, bench.titles.shards, contract.site, progress=True))
        vectors = read[-len(held) :]
        told["adapters"][name] = _adapter(bench, adapter, vectors, held)
        if isinstance(contract.site, SiteStack):
            continue  # several directions side by side are no direction that could be scaled
        # One baseline a site and soft prompt; the means of adapters of one site hardly differ.
        where = f"{contract.site}, {contract.soft_prompt}"
        if where not in told["untrained"]:
            told["untrained"][where] = _untrained(bench, contract, vectors, read[: len(swept)], held)
    told["untrained"] = list(told["untrained"].values())
    write_result(path, told)
    print(f"written to {path}")


def _adapter(bench: Bench, adapter: Adapter, vectors: Tensor, held: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    losses = control_losses(bench.model, adapter, vectors[:SCORED], held[:SCORED])
    seconds = time.perf_counter() - start
    greedy, sampled = (bench.describe(adapter, vectors, samples) for samples in (1, SAMPLES))
    nothing, guesses = (bench.describe_nothing(adapter, samples).repeated(len(held)) for samples in (1, SAMPLES))
    answers = bench.answers(held)
    assert adapter.contract is not None
    return dict(
        kind=adapter.kind,
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        site=str(adapter.contract.site),
        trained_with=dict(adapter.contract.versions),
        losses=asdict(losses),
        retrieval=dict(
            own=bench.look_up(greedy, sampled, answers),
            # Each title faces the descriptions of the vector half-way round the list.
            shuffled=bench.look_up(greedy, sampled, answers.roll(len(held) // 2)),
            bias_only=bench.look_up(nothing, guesses, answers),
        ),
        seconds=dict(
            scoring=seconds,
            describing_greedy=greedy.seconds,
            describing_samples=sampled.seconds,
        ),
        examples=[
            dict(title=title, greedy=one[0], samples=six, evidence=[round(x, 3) if x == x else None for x in of])
            for title, one, six, of in zip(held[:12], greedy.texts, sampled.texts, sampled.evidence.tolist())
        ],
    )


def _untrained(bench: Bench, contract: Contract, vectors: Tensor, inputs: Tensor, held: list[str]) -> dict[str, Any]:
    """The vectors' own directions at the best scale of a sweep, chosen on training titles by the mean reciprocal rank.

    Recall@1 is a handful of titles there, and would choose by luck.
    """
    answers = bench.answers(bench.titles.train[: len(inputs)])
    sweep = {}
    for scale in SWEEP:
        found = bench.look_up(bench.describe(_scaled(contract, scale), inputs, 1), None, answers)
        sweep[scale] = found[GREEDY]
    best = max(SWEEP, key=lambda scale: sweep[scale]["mrr"][0])
    adapter = _scaled(contract, best)
    greedy, sampled = (bench.describe(adapter, vectors, samples) for samples in (1, SAMPLES))
    return dict(
        site=str(contract.site),
        scale=best,
        sweep=[dict(scale=scale, **found) for scale, found in sweep.items()],
        retrieval=dict(own=bench.look_up(greedy, sampled, bench.answers(held))),
        seconds=dict(describing_greedy=greedy.seconds, describing_samples=sampled.seconds),
    )


def _scaled(contract: Contract, scale: float) -> Adapter:
    adapter = Adapter.create("scale", contract.d_model, init_scale=scale)
    adapter.contract = contract
    return adapter.requires_grad_(False).eval()


def _contract(name: str, adapter: Adapter) -> Contract:
    contract = adapter.contract
    if contract is None or contract.site is None or contract.soft_prompt is None:
        raise SystemExit(f"the adapter {name} does not say where its vectors were read or what its soft prompt is")
    return contract


def _short(name: str) -> str:
    """What an adapter is called in the results: its name, or the end of its path."""
    return "/".join(Path(name).parts[-2:])
