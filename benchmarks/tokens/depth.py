"""What it is worth to say at which site a vector was read: a trained vector for each place beside one for all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.titles import contract_and_site
from benchmarks.tokens.questions import at_place
from benchmarks.tokens.reading import read_topics
from interp_toolkit import Adapter
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.runtime import PromptRun, score
from interp_toolkit.statistics import paired_difference

# Titles that choose nothing are measured, each at every place; training ones are drawn from those of the adapter.
_MEASURED, _CHOOSING = 400, 100
_STEPS, _BATCH = 30, 64
# The one with the lowest loss of the titles that choose is taken, for each of the two.
_LRS = (0.0003, 0.001, 0.003)
AS_IT_IS, COMMON, BY_PLACE = "as it is", "one vector for all places", "a vector for each place"


@dataclass(frozen=True, eq=False)
class Rows:
    """Vectors as an adapter takes them, the place of each, and the tokens of its label."""

    vectors: Tensor
    places: Tensor
    targets: Sequence[Sequence[int]]


def measure_depth(context: EvalContext, adapter: Adapter, path: Path) -> None:
    """Train a vector that is added to the soft tokens, one for all places or one for each, all else frozen.

    Both see the same examples in the same steps, at the learning rate that is best for titles that choose. The table
    has the loss of held-out titles at each place, in nats per token, and what each vector takes off it, paired by
    title.

    Args:
        context: titles and model.
        adapter: with several places.
        path: of the results file.
    """
    contract, _ = contract_and_site(adapter)
    steps = _STEPS if context.limit is None else 2
    titles = context.titles.held_out[:_MEASURED]
    settings = context.facts | dict(
        adapter=adapter.digest,
        n=len(titles),
        steps=steps,
        batch=_BATCH,
        lrs=list(_LRS),
        optimizer="AdamW, no weight decay",
    )
    if finished_result(path, settings):
        print(f"depth: done before, see {path}")
        return
    run = PromptRun(context.model, contract.require_soft_prompt())
    sites = [str(place.site) for place in contract.reading_places]
    # Half of the examples are of the first place, the stack, as in the adapter's own training.
    kinds = range(len(sites))
    examples = context.titles.train[: steps * _BATCH]
    drawn = random.Random(SEED).choices(kinds, [len(sites) - 1] + [1] * (len(sites) - 1), k=len(examples))
    train = _rows(context, adapter, run, examples, drawn)
    choosing = context.titles.dev[:_CHOOSING]
    chosen_by, held_out = (
        [_rows(context, adapter, run, some, [kind] * len(some)) for kind in kinds] for some in (choosing, titles)
    )
    rates: dict[str, float | None] = {AS_IT_IS: None}
    losses = {AS_IT_IS: [_losses(run, adapter, rows, None) for rows in held_out]}
    for name, vectors in ((COMMON, 1), (BY_PLACE, len(sites))):
        rates[name], added = _best(run, adapter, train, chosen_by, vectors, steps)
        losses[name] = [_losses(run, adapter, rows, added) for rows in held_out]
    table: list[dict[str, Any]] = []
    for kind, site in enumerate(sites):
        for name, by_site in losses.items():
            row: dict[str, Any] = dict(
                site=site, adapter=name, lr=rates[name], loss=by_site[kind].mean().item(), n=len(titles)
            )
            for other in list(losses)[: list(losses).index(name)]:
                gain = paired_difference(losses[other][kind].numpy(), by_site[kind].numpy(), seed=SEED)
                row |= {f"less than {other}": gain.value, f"low {other}": gain.low, f"high {other}": gain.high}
            table.append(row)
            print(row, flush=True)
    write_result(path, make_result(settings, context.versions, dict(depth=table)))


def _rows(context: EvalContext, adapter: Adapter, run: PromptRun, titles: Sequence[str], kinds: Sequence[int]) -> Rows:
    """Titles in wordings of training, in turn at their last token and at the last of all, at a place each."""
    contract, stack = contract_and_site(adapter)
    wordings = random.Random(SEED).choices(WORDINGS, k=len(titles))
    both = torch.stack(list(read_topics(context.model, titles, wordings, stack).values()))
    raw = both[torch.arange(len(titles)) % len(both), torch.arange(len(titles))]
    vectors, places = torch.zeros(len(titles), adapter.config.width), torch.tensor(kinds)
    for kind, place in enumerate(contract.reading_places):
        vectors[places == kind] = at_place(contract, raw[places == kind], place)
    return Rows(vectors, places, run.soft_prompt.targets(run.model.tokenizer, titles))


def _best(
    run: PromptRun, adapter: Adapter, train: Rows, chosen_by: Sequence[Rows], vectors: int, steps: int
) -> tuple[float, Tensor]:
    """The best learning rate, by the mean loss over all places, and what was trained with it."""
    tried = {lr: _trained(run, adapter, train, vectors, steps, lr) for lr in _LRS}
    means = {
        lr: float(torch.stack([_losses(run, adapter, rows, added).mean() for rows in chosen_by]).mean())
        for lr, added in tried.items()
    }
    print(f"{vectors} vectors: loss of titles that choose by learning rate {means}", flush=True)
    best = min(_LRS, key=lambda lr: means[lr])
    return best, tried[best]


def _trained(run: PromptRun, adapter: Adapter, train: Rows, vectors: int, steps: int, lr: float) -> Tensor:
    """The trained vectors, [vectors, soft tokens, d_model]; one is for all places."""
    shape = adapter(train.vectors[:1]).shape[1:]
    added = torch.zeros(vectors, *shape, requires_grad=True)
    optimizer = torch.optim.AdamW([added], lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batch = len(train.targets) // steps
    for step in range(steps):
        numbers = list(range(step * batch, (step + 1) * batch))
        soft_tokens = adapter(train.vectors[numbers]) + _of_places(added, train.places[numbers])
        optimizer.zero_grad()
        (-score(run, soft_tokens, [train.targets[i] for i in numbers]).mean().mean()).backward()
        optimizer.step()
        schedule.step()
    return added.detach()


@torch.no_grad()
def _losses(run: PromptRun, adapter: Adapter, rows: Rows, added: Tensor | None) -> Tensor:
    """The loss of each row, in nats per token."""
    soft_tokens = adapter(rows.vectors)
    if added is not None:
        soft_tokens = soft_tokens + _of_places(added, rows.places)
    return -score(run, soft_tokens, rows.targets).mean()


def _of_places(added: Tensor, places: Tensor) -> Tensor:
    return added[places if len(added) > 1 else torch.zeros_like(places)]
