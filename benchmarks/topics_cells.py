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

from interp_toolkit import Adapter, SoftPrompt, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.evaluation import control_losses
from interp_toolkit.evaluation.bench import GREEDY, SEED, SITE, Bench
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.pairs.topics import PROMPT
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.sites import parse_place
from interp_toolkit.training import TrainResult

# Titles on which a cell is measured: of `val` those described and those scored, and as many it was trained on.
HELD, _LOSSES = 1000, 500
_BATCH = 32
_STEPS = 100
# On the two cores for which minutes are estimated: pairs trained on, vectors described, and labels scored, a second.
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


def run_cell(cell: Cell, bench: Bench, results: Path, runs: Path) -> None:
    """Train and measure a cell, or go on with it; a result with the same settings is left as it is."""
    count = SIZES[cell.size][0]
    titles = bench.titles.train[:count]
    site = parse_place(LAYERS if KINDS[cell.kind][0].get("sites") else SITE)
    held = bench.titles.held[:HELD]
    config = cell.config
    if bench.limit is not None:  # a trial: one pass over its few titles, whatever the size
        config = replace(config, epochs=1)
    settings = bench.facts | dict(
        cell=cell.name,
        site=str(site),
        soft_prompt=[QUESTION, ANSWER],
        adapter=KINDS[cell.kind][0],
        training=config.to_dict(),
        train_titles=len(titles),
        dev_titles=len(bench.titles.dev),
        n=len(held),
        scored=len(held[:_LOSSES]),
        protocol=GREEDY,
    )
    path = results / f"{cell.name}.json"
    if finished_result(path, settings):
        print(f"{cell.name}: done before, see {path}")
        return
    raw = topic_vectors(bench.model, bench.titles.shards, site, progress=True)
    row = {title: i for i, title in enumerate(bench.titles.shards)}
    vectors = {
        side: raw[[row[title] for title in listed]]
        for side, listed in (("train", titles), ("dev", bench.titles.dev), ("held", held))
    }
    facts = model_facts(bench.model)
    # Centred on the training rows alone: of a small cell, that is part of what there is to learn from few titles.
    mean = vectors["train"].mean(0)
    pairs = VectorLabelPairs.build(
        torch.cat([vectors["train"], vectors["dev"]]) - mean,
        [*titles, *bench.titles.dev],
        splits=["train"] * len(titles) + ["val"] * len(bench.titles.dev),
        site=site,
        mean=mean,
        origin=dict(model=facts.model_id, revision=facts.revision, prompt=PROMPT, source="contrastive topic vectors"),
    )
    adapter = Adapter.create(**KINDS[cell.kind][0], d_model=facts.d_model, seed=SEED)
    folder = runs / cell.name
    prompt = SoftPrompt.for_chat(bench.model.tokenizer, QUESTION, ANSWER, tokens=adapter.config.tokens)
    result = train_adapter(bench.model, pairs, adapter, config, soft_prompt=prompt, folder=folder)
    told = _measure(bench, result, vectors, titles, held)
    told["seconds"]["training"] = _seconds(folder / "log.jsonl", config.batch_size)
    write_result(path, dict(settings=settings, versions=bench.versions, **told))
    print(f"{cell.name}: {json.dumps({key: told[key] for key in ('val_loss', 'shuffled_loss', 'retrieval')})}")


def _measure(
    bench: Bench, result: TrainResult, vectors: dict[str, torch.Tensor], titles: list[str], held: list[str]
) -> dict[str, Any]:
    adapter = result.adapter
    contract = adapter.contract
    assert contract is not None
    start = time.perf_counter()
    inputs = contract.centre(vectors["held"])
    trained = control_losses(bench.model, adapter, contract.centre(vectors["train"][:_LOSSES]), titles[:_LOSSES])
    unseen = control_losses(bench.model, adapter, inputs[:_LOSSES], held[:_LOSSES])
    scoring = time.perf_counter() - start
    if adapter.kind == "bias_only":
        greedy = bench.describe_nothing(adapter, 1).repeated(len(held))
    else:
        greedy = bench.describe(adapter, inputs, 1)
    found = bench.look_up(greedy, None, bench.answers(held))
    return dict(
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        steps=int(result.last.metadata["global_step"]),
        best_step=result.best_step,
        dev_loss=result.best_val_loss,
        train_loss=trained.own,
        val_loss=unseen.own,
        shuffled_loss=unseen.shuffled,
        null_loss=unseen.null,
        retrieval=found[GREEDY],
        title_to_itself=bench.ceiling(held),
        seconds=dict(scoring=scoring, describing=greedy.seconds),
        examples=[dict(title=title, description=row[0]) for title, row in zip(held[:12], greedy.texts)],
        history=[
            {key: round(row[key], 5) for key in ("step", "train_loss", "val_loss", "shuffled_loss")}
            for row in result.history.to_dict("records")
        ],
    )


def _seconds(log: Path, batch: int) -> float:
    """What the steps of a run took, over all its sittings, by its log; validations are left out."""
    steps = [told for told in map(json.loads, log.read_text().splitlines()) if told["event"] == "step"]
    return sum(batch / told["pairs_per_second"] for told in steps)
