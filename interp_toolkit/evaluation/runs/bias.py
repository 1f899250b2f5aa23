"""Measure the bias: its share of what training gains on held-out titles, in loss and in what is named."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import GREEDY, SEED, Bench
from interp_toolkit.evaluation.bias import ARMS, bias_conditions, share_table
from interp_toolkit.evaluation.conditions import describe_each, untrained
from interp_toolkit.evaluation.controls import SCALES
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.runs.losses import describe, measure, ranks
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import VectorLabelPairs, topic_vectors
from interp_toolkit.results import finished_result, json_rows, write_result
from interp_toolkit.training import TrainConfig, train_adapter

# Titles to measure on, and training titles to choose the untrained direction's length by.
_MEASURED, _SWEPT = 1000, 300
# A bias has few numbers and needs few titles: eight of the shards in which training reads its own.
_TRAINED = 8 * 256
_TRAINING = TrainConfig(epochs=4, batch_size=32, lr=0.02, eval_every=32, val_examples=200, log_samples=0, seed=SEED)
_EXAMPLES = 12


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Train a bias alone, choose the untrained direction's length on training titles, and measure on held-out ones.

    Half an hour on two cores, most of it the training of the bias, which goes on where it was interrupted.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` (``count`` and ``rows`` with reasons),
        ``bias_only`` (digest and loss on the titles that chose its weights), ``tables``: ``bias`` (see `bias_share`,
        with recall and mean reciprocal rank among all titles for what is named; null where an end is infinite) and
        ``sweep`` (loss and mean reciprocal rank of untrained directions by length); and ``examples``.

    Raises:
        InterpToolkitError: an adapter without a site, or too few titles.
    """
    settings = bench.facts | dict(
        task="bias",
        adapter=adapter.digest,
        n=len(bench.titles.held[:_MEASURED]),
        swept=len(bench.titles.dev[:_SWEPT]),
        scales=list(SCALES),
        training=bias_training(bench, adapter),
        protocol=GREEDY,
    )
    if kept := finished_result(results, settings):
        return kept
    held = Held.read(bench, adapter, _MEASURED)
    bias_only = train_bias(bench, adapter)
    sweep, failed = _sweep(bench, adapter)
    by_loss = float(sweep.loc[sweep.loss.idxmin(), "scale"])
    by_rank = float(sweep.loc[sweep.mrr.idxmax(), "scale"])
    asked = measure(
        bench,
        held.titles,
        held.vectors,
        lambda vectors, labels: bias_conditions(adapter, vectors, labels, bias_only, by_loss),
    )
    tables = [share_table("loss", dict(zip(ARMS, asked.losses)), by_loss, SEED)]
    own = asked.conditions[ARMS.index("trained")]
    described = [untrained(adapter, own.vectors, by_rank), *asked.conditions[1:]]
    texts = describe_each(described, partial(describe, bench))
    found = {arm: ranks(bench, asked.titles, told, own.faced) for arm, told in zip(ARMS, texts)}
    for name, value in (
        ("recall@1", lambda rank: rank <= 1),
        ("recall@10", lambda rank: rank <= 10),
        ("mrr", lambda rank: 1 / rank.double()),
    ):
        tables.append(share_table(name, {arm: value(rank) for arm, rank in found.items()}, by_rank, SEED))
    failed = held.failed + failed + asked.failed
    told = dict(
        settings=settings,
        versions=bench.versions,
        failed=dict(count=len(failed), rows=failed),
        bias_only=dict(digest=bias_only.digest, dev_loss=bias_only.metadata["best_val_loss"]),
        tables=dict(bias=json_rows(pd.concat(tables)), sweep=json_rows(sweep)),
        examples=[dict(zip(("title", *ARMS), row)) for row in zip(asked.titles[:_EXAMPLES], *texts)],
    )
    write_result(results, told)
    return told


def train_bias(bench: Bench, adapter: Adapter) -> Adapter:
    """An adapter with nothing but a bias, trained for this adapter's soft prompt; kept in ``runs/bias_only``.

    Raises:
        InterpToolkitError: an adapter without a site.
        TrainingInterrupted: Ctrl-C; the same call goes on.
    """
    contract, config = adapter.require_contract(), adapter.config
    if contract.site is None:
        raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
    train, dev = bench.titles.train[:_TRAINED], bench.titles.dev[: _TRAINING.val_examples]
    facts = model_facts(bench.model)
    pairs = VectorLabelPairs.from_tensors(
        torch.cat([_read(bench, adapter, titles) for titles in (train, dev)]),
        [*train, *dev],
        splits=["train"] * len(train) + ["val"] * len(dev),
        site=contract.site,
        mean=contract.mean,
        origin=dict(
            model=facts.model_id,
            revision=facts.revision,
            chat=str(contract.chat),
            source="contrastive topic vectors",
        ),
    )
    made = Adapter.create("bias_only", config.d_model, sites=config.sites, tokens=config.tokens)
    trial = "" if bench.limit is None else f"-limit-{bench.limit}"
    folder = Path("runs") / "bias_only" / f"{adapter.digest}{trial}"
    return train_adapter(bench.model, pairs, made, _TRAINING, soft_prompt=contract.soft_prompt, folder=folder).adapter


def bias_training(bench: Bench, adapter: Adapter) -> dict[str, Any]:
    """The settings of `train_bias`: all that decides what it makes, beside the model and the titles."""
    prompt = adapter.require_contract().require_soft_prompt()
    return _TRAINING.to_dict() | dict(
        titles=len(bench.titles.train[:_TRAINED]),
        site=str(adapter.require_contract().site),
        tokens=adapter.config.tokens,
        soft_prompt=prompt.to_dict(),
    )


def _sweep(bench: Bench, adapter: Adapter) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Untrained directions of training titles by length, and the rows that failed."""
    dev = Held.read(bench, adapter, _SWEPT, bench.titles.dev)
    asked = measure(
        bench, dev.titles, dev.vectors, lambda vectors, _: [untrained(adapter, vectors, scale) for scale in SCALES]
    )
    rows = []
    texts = describe_each(asked.conditions, partial(describe, bench))
    for condition, losses, told in zip(asked.conditions, asked.losses, texts):
        mrr = (1 / ranks(bench, asked.titles, told, condition.faced).double()).mean().item()
        rows.append(dict(scale=condition.scale, loss=losses.mean().item(), mrr=mrr, n=len(losses), seed=SEED))
    return pd.DataFrame(rows), dev.failed + asked.failed


def _read(bench: Bench, adapter: Adapter, titles: list[str]) -> Tensor:
    contract = adapter.require_contract()
    assert contract.site is not None
    raw = topic_vectors(bench.model, titles, contract.site, chat=contract.chat, progress=bench.progress)
    return contract.centre(raw)
