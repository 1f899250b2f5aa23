"""The family of adapters and its learning curves: a table of cells, each trained and measured on its own.

All cells of one size have the same titles, and the sizes are nested. Up to 3,200 titles each cell is given the same 100
steps of at most 32, so that the number of different titles differs and little else; 10,000 titles take one pass of 313
steps, and all of them one of 1,325. In each, the weights of the lowest loss on 300 further training titles are kept.
Learning rates are those of the shipped adapters' training files, by kind of parameter. The soft prompt asks to repeat
the soft token: on 1,280 titles a scalar affine adapter came to a loss of 3.0 by it, to 3.2 by a line of examples of
repeating before it, and on 3,200 to 3.1 by the paper's wording.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.arguments import Folders
from interp_toolkit import Adapter, SoftPrompt, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.evaluation import control_losses
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.pairs.topics import PROMPT
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.sites import Place, Site, SiteStack
from interp_toolkit.training import TrainResult

# Titles on which a cell is measured: of `val` those described and those scored, and as many it was trained on.
HELD, _LOSSES = 1000, 500
_BATCH = 32
_STEPS = 100
# Per second, on the two cores for which minutes are estimated: pairs trained on, vectors described, labels scored.
_TRAINED, _DESCRIBED, _SCORED = 12, 14, 35

_BY_BIAS = dict(lr=0.02)
_BY_MATRIX = dict(lr=0.01, scale_lr=0.02, matrix_lr=0.003)
# From a start in closed form, which larger steps would leave again.
_BY_RIDGE = dict(lr=0.001, ridge_init=0.03)
# name: the adapter's settings, how it is trained
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scale": (dict(kind="scale"), _BY_BIAS),
    "bias_only": (dict(kind="bias_only"), _BY_BIAS),
    "scalar_affine": (dict(kind="scalar_affine"), _BY_BIAS),
    "low_rank_64": (dict(kind="low_rank", rank=64), _BY_MATRIX),
    "scalar_affine_low_rank_64": (dict(kind="scalar_affine_low_rank", rank=64), _BY_MATRIX),
    "full_rank": (dict(kind="full_rank", identity_start=True), _BY_MATRIX),
    "full_rank_ridge_start": (dict(kind="full_rank"), _BY_RIDGE),
    "four_layers_four_tokens": (dict(kind="full_rank", tokens=4, sites=4), _BY_RIDGE),
}
LAYERS = [4, 10, 16, 23]
SITE = "blocks.23.hook_resid_post"
QUESTION, ANSWER = 'Repeat this: "{slot}"', '"'
CURVES = ("scalar_affine", "full_rank_ridge_start")
# size: how many titles, and how they are trained on
SIZES: dict[str, tuple[int | None, dict[str, int]]] = {
    "100": (100, dict(epochs=25, eval_every=25)),
    "1000": (1000, dict(epochs=4, max_steps=_STEPS, eval_every=25)),
    "3200": (3200, dict(epochs=1)),
    "10000": (10000, dict(epochs=1)),
    "all": (None, dict(epochs=1, eval_every=100)),
}
FAMILY_SIZE = "3200"


@dataclass(frozen=True)
class Cell:
    """One adapter to train and measure.

    Attributes:
        kind: name in `KINDS`.
        size: name in `SIZES`.
    """

    kind: str
    size: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}"

    @property
    def config(self) -> TrainConfig:
        rates, length = KINDS[self.kind][1], SIZES[self.size][1]
        settings: dict[str, Any] = dict(batch_size=_BATCH, val_examples=300, seed=SEED, log_samples=0) | rates | length
        return TrainConfig(**settings)

    def minutes(self, all_titles: int) -> float:
        """What it takes at most, by the speeds above."""
        config = self.config
        steps = max(_STEPS, math.ceil((SIZES[self.size][0] or all_titles) / _BATCH))
        scored = 6 * _LOSSES + 2 * config.val_examples * math.ceil(steps / config.eval_every)
        return (steps * _BATCH / _TRAINED + HELD / _DESCRIBED + scored / _SCORED) / 60


CELLS = {cell.name: cell for cell in [Cell(kind, FAMILY_SIZE) for kind in KINDS]}
CELLS |= {cell.name: cell for cell in [Cell(kind, size) for size in SIZES for kind in CURVES]}


def run_cell(cell: Cell, context: EvalContext, folders: Folders) -> None:
    """Train and measure a cell, or go on with it; a result with the same settings is left as it is.

    Args:
        cell: what to train, and on how many titles.
        context: titles, model and embedder.
        folders: of the result and of the training run.
    """
    count = SIZES[cell.size][0]
    titles, dev = context.titles.train[:count], context.titles.dev
    site = SiteStack(LAYERS) if KINDS[cell.kind][0].get("sites") else Site.parse(SITE)
    held_out = context.titles.held_out[:HELD]
    config = cell.config
    if context.limit is not None:  # a trial: one pass over its few titles, whatever the size
        config = replace(config, epochs=1)
    settings = context.facts | dict(
        cell=cell.name,
        site=str(site),
        soft_prompt=[QUESTION, ANSWER],
        adapter=KINDS[cell.kind][0],
        training=config.to_dict(),
        train_titles=len(titles),
        dev_titles=len(dev),
        n=len(held_out),
        scored=len(held_out[:_LOSSES]),
        protocol=GREEDY,
    )
    path = folders.results / f"{cell.name}.json"
    if finished_result(path, settings):
        print(f"{cell.name}: done before, see {path}")
        return
    raw = topic_vectors(context.model, context.titles.shards, site, progress=True)
    row = {title: i for i, title in enumerate(context.titles.shards)}
    train, chosen_by, measured = (raw[[row[title] for title in side]] for side in (titles, dev, held_out))
    pairs = centred_pairs(context.model, site, (train, titles), (chosen_by, dev))
    facts = model_facts(context.model)
    adapter = Adapter.create(**KINDS[cell.kind][0], d_model=facts.d_model, seed=SEED)
    folder = folders.runs / cell.name
    prompt = SoftPrompt.for_chat(context.model.tokenizer, QUESTION, ANSWER, tokens=adapter.config.tokens)
    result = train_adapter(context.model, pairs, adapter, config, soft_prompt=prompt, folder=folder)
    measures = _measure(context, result, (train, titles), (measured, held_out))
    measures["seconds"]["training"] = _seconds(folder / "log.jsonl", config.batch_size)
    write_result(path, dict(settings=settings, versions=context.versions, **measures))
    print(f"{cell.name}: {json.dumps({key: measures[key] for key in ('val_loss', 'shuffled_loss', 'retrieval')})}")


def centred_pairs(
    model: Any, site: Place, train: tuple[Tensor, list[str]], dev: tuple[Tensor, list[str]]
) -> VectorLabelPairs:
    """Pairs of topic vectors and titles, centred on the training rows alone.

    Of a small training set, the mean is part of what there is to learn from few titles.

    Args:
        model: that the vectors are of.
        site: where they were read.
        train: vectors, [n, width], and titles.
        dev: likewise, the pairs of split ``val``, which choose the weights.
    """
    facts = model_facts(model)
    mean = train[0].mean(0)
    return VectorLabelPairs.from_tensors(
        torch.cat([train[0], dev[0]]) - mean,
        [*train[1], *dev[1]],
        splits=["train"] * len(train[1]) + ["val"] * len(dev[1]),
        site=site,
        mean=mean,
        origin=dict(model=facts.model_id, revision=facts.revision, prompt=PROMPT, source="contrastive topic vectors"),
    )


def _measure(
    context: EvalContext, result: TrainResult, train: tuple[Tensor, list[str]], held_out: tuple[Tensor, list[str]]
) -> dict[str, Any]:
    adapter = result.adapter
    contract = adapter.require_contract()
    start = time.perf_counter()
    losses = [
        control_losses(context.model, adapter, contract.centre(vectors[:_LOSSES]), titles[:_LOSSES])
        for vectors, titles in (train, held_out)
    ]
    scoring = time.perf_counter() - start
    vectors, titles = held_out
    if adapter.kind == "bias_only":
        greedy = context.describe_null(adapter, 1).repeated(len(titles))
    else:
        greedy = context.describe(adapter, contract.centre(vectors), 1)
    retrieval = context.look_up(greedy, None, context.answers(titles))[GREEDY]
    return dict(
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        steps=int(result.last.metadata["global_step"]),
        best_step=result.best_step,
        dev_loss=result.best_val_loss,
        train_loss=losses[0].matched,
        val_loss=losses[1].matched,
        shuffled_loss=losses[1].shuffled,
        null_loss=losses[1].null,
        retrieval=retrieval,
        title_to_itself=context.ceiling(titles),
        seconds=dict(scoring=scoring, describing=greedy.seconds),
        examples=[dict(title=title, description=row[0]) for title, row in zip(titles[:12], greedy.texts)],
        history=[
            {key: round(row[key], 5) for key in ("step", "train_loss", "val_loss", "shuffled_loss")}
            for row in result.history.to_dict("records")
        ],
    )


def _seconds(log: Path, batch: int) -> float:
    """What the steps of a run took, over all its sittings, by its log; validations are left out."""
    events = [event for _, event in read_json_lines(log, "a training log") if event["event"] == "step"]
    return sum(batch / event["pairs_per_second"] for event in events)
