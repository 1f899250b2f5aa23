"""The pairs that the adapter for any token is trained on, and its training."""

from __future__ import annotations

import platform
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import PASSAGES
from benchmarks.titles import centred_vectors
from interp_toolkit import Adapter, SiteStack, SoftPrompt, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.contract import ReadingPlace
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.models import backend_of
from interp_toolkit.pairs import context_pairs, reworded_topic_pairs, with_common_mean, with_sites_alone
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.reconstruct import fit_way_back
from interp_toolkit.sites import Site

STACK = SiteStack([4, 10, 16, 23])
# Shares of the examples: topics in many wordings, tokens of plain text, tokens of text in a user's turn.
_RATIOS = (0.6, 0.25, 0.15)
# What the way back is fitted to, and the rank with which the adapter stays below 2 MB.
_WAY_BACK_TITLES, _WAY_BACK_RANK = 8_000, 36
# So many vectors hold one site of the stack alone.
_ALONE = 0.3


@dataclass(frozen=True)
class Sizes:
    """How much is read and trained.

    Attributes:
        titles: training titles.
        per_topic: wordings that each is put into.
        val: titles that choose the weights, which are trained on by nothing.
        passages: texts read as plain text.
        turns: texts read as user turns.
        words: greatest number of words of a token's label.
        following: how many words behind a token's own its label has, in plain text.
        steps: of the training.
        batch: examples per step.
        lr: learning rate at its peak.
        tokens: soft tokens of the adapter.
        rank: of the adapter.
    """

    titles: int = 40_000
    per_topic: int = 2
    val: int = 500
    passages: int = 8_000
    turns: int = 4_000
    words: int = 4
    following: int = 4
    steps: int = 900
    batch: int = 1024
    lr: float = 0.003
    tokens: int = 4
    rank: int = 360

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
    topics = reworded_topic_pairs(context.model, titles, STACK, per_topic=sizes.per_topic, splits=splits, **settings)
    texts = passages(data, "train", sizes.passages + sizes.turns)
    settings |= dict(words=sizes.words, val_fraction=0.05)
    plain = context_pairs(
        context.model, texts[: sizes.passages], STACK, chat=False, following=sizes.following, **settings
    )
    turns = context_pairs(context.model, texts[sizes.passages :], STACK, chat=True, **settings)
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
    adapter = Adapter.create("low_rank", pairs.width // len(STACK.sites), sites=4, tokens=sizes.tokens, rank=sizes.rank)
    config = TrainConfig(
        epochs=50,
        max_steps=sizes.steps,
        batch_size=sizes.batch,
        lr=sizes.lr,
        ridge_init=0.03,
        warmup_steps=20,
        eval_every=min(200, sizes.steps),
        val_examples=300,
    )
    prompt = SoftPrompt.for_chat(context.model.tokenizer, 'Repeat this: "{slot}"', '"', tokens=sizes.tokens)
    run = train_adapter(context.model, pairs, adapter, config, soft_prompt=prompt, folder=folder)
    trained, contract = run.adapter, run.adapter.require_contract()
    assert contract.mean is not None
    means = contract.mean.split(contract.d_model)
    more = tuple(ReadingPlace(site, mean) for site, mean in zip(STACK.sites, means) if isinstance(site, Site))
    trained.contract = replace(contract, more=more)
    trained.metadata |= dict(data=_recipe(sizes), device=device_name(context.model))
    return trained


def with_way_back(context: EvalContext, adapter: Adapter) -> Adapter:
    """The adapter with a way back from descriptions to vectors of topics, fitted to training titles.

    A text does not say at which token of which wording its vector was read, so the way back is for one kind of vector:
    the last token of the question *Tell me about ….*

    Args:
        context: with titles and model.
        adapter: as it was trained.
    """
    contract, titles = adapter.require_contract(), context.titles.train[:_WAY_BACK_TITLES]
    vectors = centred_vectors(context.model, adapter, titles, progress=context.progress)
    way_back = fit_way_back(context.model, titles, vectors, contract.site, _WAY_BACK_RANK, progress=context.progress)
    adapter.contract = replace(contract, way_back=way_back)
    return adapter


def device_name(model: Any) -> str:
    """What a model runs on, in words."""
    device = backend_of(model).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type


def _recipe(sizes: Sizes) -> str:
    topics, plain, turns = (f"{100 * share:.0f}%" for share in _RATIOS)
    return (
        f"{sizes.titles:,} titles of Wikipedia's vital articles (split `train`), each in {sizes.per_topic} of "
        f"{len(WORDINGS)} wordings, at the title's last token and at the last of the prompt, labelled with the title "
        f"({topics} of the examples); tokens of {sizes.passages:,} passages (split `train`) of plain text, labelled "
        f"with the phrase of up to {sizes.words} words that the token's word ends and up to {sizes.following} words "
        f"that follow ({plain}); tokens of {sizes.turns:,} passages in user turns, labelled with that phrase alone "
        f"({turns}). {100 * _ALONE:.0f}% of the vectors keep one of the four sites, with zeros for the others."
    )
