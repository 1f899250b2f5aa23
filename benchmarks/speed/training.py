"""Pairs per second against a straightforward training loop, on the embedded model and real topics.

The straightforward loop runs the whole prompt for each example through Hugging Face's model, with its default
attention, padded to the longest label of the batch, and takes logits at every position. Both loops get the same
batches, adapter, optimiser and dtype.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.data import TITLES
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import compare, linear_weights, matrix_peak, seconds
from interp_toolkit import Adapter, SoftPrompt, TrainConfig, load_model, topic_pairs
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.embedded import embedded_checkpoint
from interp_toolkit.pairs import read_titles
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training.examples import Examples, batches
from interp_toolkit.training.objective import losses
from interp_toolkit.training.optimizer import make_optimizer

SITE = "blocks.23.hook_resid_post"
CONFIG = TrainConfig(lr=0.01, scale_lr=0.02, matrix_lr=0.003)
# Steps per timing.
TIMED = 2
QUESTIONS = {1: "What is the meaning of this?", 2: 'What is the meaning of "{slot}"?'}
QUESTIONS[4] = 'What is the meaning of "{slot} {slot} {slot}"?'


class Loops:
    """Both loops on the same pairs, each with an adapter of its own that starts alike.

    Args:
        data: folder of the data.
        sizes: how many titles, and how many per step.
        dtype: of our model.
        their_dtype: of the straightforward loop's.
        checkpointing: whether the straightforward loop computes each block again on its way back, as the method's
            published trainer does.
    """

    def __init__(
        self,
        data: Path,
        sizes: Sizes,
        dtype: torch.dtype,
        their_dtype: torch.dtype = torch.float32,
        checkpointing: bool = False,
    ) -> None:
        self.sizes, self.checkpointing = sizes, checkpointing
        self.model = load_model("smollm2-135m", dtype=dtype)
        self.their_dtype = their_dtype
        titles, splits = read_titles(data / TITLES)
        chosen = [title for title, split in zip(titles, splits or []) if split == "train"]
        random.Random(0).shuffle(chosen)
        train, held_out = sizes.titles - sizes.held_out, sizes.held_out
        splits = ["train"] * train + ["val"] * held_out
        pairs = topic_pairs(self.model, chosen[: sizes.titles], SITE, splits=splits)
        self.run = PromptRun(self.model, SoftPrompt.for_chat(self.model.tokenizer))
        self.train = Examples.from_pairs(pairs.split("train"), self.run)
        self.held = Examples.from_pairs(pairs.split("val"), self.run)
        config = replace(CONFIG, batch_size=sizes.batch)
        self.batches = list(batches(self.train, config, train // sizes.batch, 0))
        self.reset()

    @cached_property
    def theirs(self) -> Any:
        """Hugging Face's model, loaded when it is first asked for."""
        model: Any = AutoModelForCausalLM.from_pretrained(embedded_checkpoint(), dtype=self.their_dtype).eval()
        if self.checkpointing:
            # Only a model in training mode does it; this one has nothing random in it.
            model.train().gradient_checkpointing_enable(dict(use_reentrant=False))
        return model.requires_grad_(False)

    def reset(self) -> None:
        """Start both adapters anew."""
        self.adapters = {
            side: Adapter.create("scalar_affine_low_rank", 576, rank=64, init_scale=5.0) for side in ("ours", "plain")
        }
        self.optimizers = {side: make_optimizer(adapter, CONFIG) for side, adapter in self.adapters.items()}
        self.step = dict.fromkeys(self.adapters, 0)

    def advance(self, side: str, steps: int) -> None:
        """So many steps of one loop."""
        adapter, optimizer = self.adapters[side], self.optimizers[side]
        for _ in range(steps):
            batch = self.batches[self.step[side] % len(self.batches)]
            self.step[side] += 1
            optimizer.zero_grad(set_to_none=True)
            self.losses(side, self.train, batch).mean().backward()
            torch.nn.utils.clip_grad_norm_(adapter.parameters(), CONFIG.max_grad_norm)
            optimizer.step()

    def losses(self, side: str, examples: Examples, numbers: Sequence[int]) -> torch.Tensor:
        """The loss of each example by one loop's code and adapter."""
        vectors = examples.vectors(numbers, torch.device("cpu"))
        targets = [examples.targets[i] for i in numbers]
        if side == "ours":
            return losses(self.run, self.adapters[side], vectors, targets)
        prompt = list(self.run.tokens.ids)
        rows = [torch.tensor(prompt + list(target)) for target in targets]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        embeddings = self.theirs.get_input_embeddings()(ids).clone()
        soft_tokens = self.adapters[side](vectors).to(embeddings.dtype)
        embeddings[:, list(self.run.tokens.slots)] = soft_tokens[:, None]
        logits = self.theirs(inputs_embeds=embeddings, attention_mask=mask).logits.float()[:, len(prompt) - 1 : -1]
        token_losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, len(prompt) :], reduction="none"
        )
        counted = mask[:, len(prompt) :]
        return (token_losses * counted).sum(1) / counted.sum(1)

    @torch.no_grad()
    def validation_loss(self, side: str) -> float:
        """The loss of one loop's adapter on the held-out examples; measured alike for both, by our code and model."""
        targets = list(self.held.targets)
        vectors = self.held.vectors(range(len(targets)), torch.device("cpu"))
        return losses(self.run, self.adapters[side], vectors, targets).mean().item()

    def flops(self) -> float:
        """Of the matrix products of one of our steps: forward, and backward to the activations alone."""
        blocks, head = linear_weights(self.theirs)
        tail = len(self.run.tokens.tail)
        first = self.batches[1 : 1 + TIMED]  # the first step is not timed
        tokens = sum(tail + len(self.train.targets[i]) - 1 for batch in first for i in batch)
        predicted = sum(len(self.train.targets[i]) for batch in first for i in batch)
        return 4.0 * (blocks * tokens + head * predicted) / TIMED


def measure(data: Path, sizes: Sizes, repeats: int) -> dict[str, Any]:
    """The comparisons, by name.

    Args:
        data: folder of the data.
        sizes: how much is measured.
        repeats: of both sides in turn.
    """
    default = choose_dtype(None, torch.device("cpu"))
    name = str(default).removeprefix("torch.")
    comparisons = {"training, float32": dict(_compare(Loops(data, sizes, torch.float32), repeats), target=3.6)}
    if default == torch.float32:
        note = "float32 is the default here: this processor has no fast bfloat16"
        comparisons["training, default dtype"] = dict(target=12.0, ratio=None, note=note)
    else:
        comparison = _compare(Loops(data, sizes, default), repeats)
        comparisons[f"training, default dtype ({name})"] = dict(comparison, target=12.0)
    return comparisons


def against_published(data: Path, sizes: Sizes, repeats: int) -> dict[str, Any]:
    """The comparisons with a loop in float32 with the settings of the method's published trainer, by name.

    Args:
        data: folder of the data.
        sizes: how much is measured.
        repeats: of both sides in turn.
    """
    comparisons = {}
    for dtype, target in {torch.float32: 5.0, choose_dtype(None, torch.device("cpu")): 12.0}.items():
        name = f"training, {str(dtype).removeprefix('torch.')}, against the published trainer's settings"
        comparisons[name] = dict(_compare(Loops(data, sizes, dtype, checkpointing=True), repeats), target=target)
    return comparisons


def _compare(loops: Loops, repeats: int) -> dict[str, Any]:
    rows = loops.batches[0]
    difference = loops.losses("ours", loops.train, rows) - loops.losses("plain", loops.train, rows)
    steps, batch = loops.sizes.steps, loops.sizes.batch
    for side in loops.adapters:
        loops.advance(side, steps)
    after = {side: loops.validation_loss(side) for side in loops.adapters}

    def ready(side: str) -> None:
        loops.reset()
        loops.advance(side, 1)

    comparison = compare(
        lambda: loops.advance("plain", TIMED),
        lambda: loops.advance("ours", TIMED),
        repeats,
        (lambda: ready("plain"), lambda: ready("ours")),
    )
    median = statistics.median(comparison["fast_seconds"])
    return dict(
        comparison,
        rate=TIMED * batch / median,
        share_of_peak=loops.flops() * TIMED / median / matrix_peak(loops.run.backend.dtype),
        batch=batch,
        largest_difference_of_a_loss=difference.abs().max().item(),
        validation_loss_after={str(steps): after},
    )


def growth(data: Path, sizes: Sizes) -> list[dict[str, Any]]:
    """Our pairs per second by batch, label length and number of slots; the others stay as they are in training."""
    loops = Loops(data, sizes, choose_dtype(None, torch.device("cpu")))
    targets = [loops.train.targets[i] for batch in loops.batches for i in batch]
    rows = [_growth_row(loops, loops.run, "batch", n, targets[:n]) for n in sizes.batches]
    tokens = [token for target in targets for token in target]
    for length in sizes.label_lengths:
        labels = [tokens[i * length : (i + 1) * length] for i in range(sizes.batch)]
        rows.append(_growth_row(loops, loops.run, "label tokens", length, labels))
    for slots, question in QUESTIONS.items():
        run = PromptRun(loops.model, SoftPrompt.for_chat(loops.model.tokenizer, question))
        rows.append(_growth_row(loops, run, "slots", len(run.tokens.slots), targets[: sizes.batch]))
        assert len(run.tokens.slots) == slots
    return rows


def _growth_row(loops: Loops, run: PromptRun, varied: str, value: int, targets: list[list[int]]) -> dict[str, Any]:
    vectors = loops.train.vectors(range(len(targets)), torch.device("cpu"))

    def step() -> None:
        losses(run, loops.adapters["ours"], vectors, targets).mean().backward()

    step()
    median = statistics.median(seconds(step) for _ in range(3))
    return dict(varied=varied, value=value, pairs_per_second=len(targets) / median, seconds=median)
