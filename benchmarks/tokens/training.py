"""The pairs that the adapter for any token is trained on, and its training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.data import PASSAGES
from interp_toolkit import Adapter, SiteStack, SoftPrompt, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.contract import ReadingPlace
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.pairs import context_pairs, reworded_topic_pairs, with_common_mean, with_sites_alone
from interp_toolkit.sites import Site

STACK = SiteStack([4, 10, 16, 23])
# Shares of the examples: topics in many wordings, tokens of plain text, tokens of text in a user's turn.
_RATIOS = (0.6, 0.25, 0.15)
# So many vectors hold one site of the stack alone.
_ALONE = 0.3


@dataclass(frozen=True)
class Sizes:
    """How much is read and trained.

    Attributes:
        titles: training titles.
        val: titles that choose the weights, which are trained on by nothing.
        passages: texts read as plain text.
        turns: texts read as user turns.
        steps: of the training.
        batch: examples per step.
        rank: of the adapter.
    """

    titles: int = 16_000
    val: int = 500
    passages: int = 4_500
    turns: int = 2_500
    steps: int = 2_400
    batch: int = 48
    rank: int = 400

    @classmethod
    def for_limit(cls, limit: int | None) -> Sizes:
        """The sizes of a whole run, or of a trial on ``limit`` titles and texts of each kind."""
        if limit is None:
            return cls()
        return cls(titles=limit, val=2, passages=limit, turns=limit, steps=2, batch=4, rank=8)


def passages(data: Path, split: str, count: int, seed: int = SEED) -> list[str]:
    """Texts of a split of the corpus, drawn by a seed.

    Args:
        data: folder of the data.
        split: ``"train"`` or ``"eval"``.
        count: how many, fewer where there are not so many.
        seed: of the draw.
    """
    rows = list(_texts(data / PASSAGES, split))
    random.Random(seed).shuffle(rows)
    return rows[:count]


def _texts(path: Path, split: str) -> Iterator[str]:
    for _, row in read_json_lines(path, "passages", "a JSON object with text and split"):
        if row["split"] == split:
            yield row["text"]


def training_pairs(context: EvalContext, data: Path, sizes: Sizes) -> VectorLabelPairs:
    """Topics in many wordings and tokens of texts, with one mean, sites of the stack on their own among them.

    Args:
        context: with titles and model.
        data: folder of the data.
        sizes: how much.
    """
    titles = [*context.titles.train[: sizes.titles], *context.titles.dev[: sizes.val]]
    splits = ["train"] * (len(titles) - sizes.val) + ["val"] * sizes.val
    settings: dict[str, Any] = dict(seed=SEED, progress=context.progress)
    topics = reworded_topic_pairs(context.model, titles, STACK, splits=splits, **settings)
    texts = passages(data, "train", sizes.passages + sizes.turns)
    plain = context_pairs(context.model, texts[: sizes.passages], STACK, chat=False, val_fraction=0.05, **settings)
    turns = context_pairs(context.model, texts[sizes.passages :], STACK, chat=True, val_fraction=0.05, **settings)
    joined = VectorLabelPairs.concat(with_common_mean([topics, plain, turns]), ratios=_RATIOS, seed=SEED)
    return with_sites_alone(joined, _ALONE, SEED)


def train(context: EvalContext, data: Path, sizes: Sizes, folder: Path) -> Adapter:
    """Train the adapter, or go on with it, and give it the places that it reads.

    Args:
        context: with titles and model.
        data: folder of the data.
        sizes: how much.
        folder: of the run.
    """
    pairs = training_pairs(context, data, sizes)
    adapter = Adapter.create("low_rank", pairs.width // len(STACK.sites), sites=4, tokens=4, rank=sizes.rank)
    config = TrainConfig(
        epochs=50,
        max_steps=sizes.steps,
        batch_size=sizes.batch,
        lr=0.001,
        ridge_init=0.03,
        warmup_steps=20,
        eval_every=min(200, sizes.steps),
        val_examples=300,
    )
    prompt = SoftPrompt.for_chat(context.model.tokenizer, 'Repeat this: "{slot}"', '"', tokens=4)
    run = train_adapter(context.model, pairs, adapter, config, soft_prompt=prompt, folder=folder)
    trained, contract = run.adapter, run.adapter.require_contract()
    assert contract.mean is not None
    means = contract.mean.split(contract.d_model)
    more = tuple(ReadingPlace(site, mean) for site, mean in zip(STACK.sites, means) if isinstance(site, Site))
    trained.contract = replace(contract, more=more)
    return trained
