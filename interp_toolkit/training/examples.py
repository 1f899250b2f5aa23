"""The examples of a run: label tokens made once, vectors fetched batch by batch, in an order that the seed fixes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training.config import TrainConfig

# Batches whose examples are sorted by length together: enough to pad little, few enough to stay shuffled.
_WINDOW = 16


@dataclass(frozen=True)
class Examples:
    """The (vector, label) examples of one side of the pairs.

    Attributes:
        pairs: that side; its vectors are fetched when they are needed, since they may be larger than memory.
        rows: the row of each example's vector.
        targets: the tokens of its label.
        weights: how much it counts.
        questions: what it answers; empty where the label describes the vector.
    """

    pairs: VectorLabelPairs
    rows: tuple[int, ...]
    targets: tuple[list[int], ...]
    weights: tuple[float, ...]
    questions: tuple[str, ...]

    @classmethod
    def from_pairs(cls, pairs: VectorLabelPairs, run: PromptRun, numbers: Sequence[int] | None = None) -> Examples:
        """Make the examples of one side of the pairs, with the vectors that they are of.

        Args:
            pairs: that side.
            run: the soft prompt on its model, whose tokens the targets are.
            numbers: which examples, in the order of ``pairs.examples``; by default all.

        Raises:
            InterpToolkitError: there are none, or one does not fit the model's context.
        """
        examples = pairs.examples
        if not examples:
            raise InterpToolkitError("expected training and validation rows in the pairs, and one side has none")
        if numbers is not None:
            examples = [examples[number] for number in numbers]
            new_rows = {row: i for i, row in enumerate(dict.fromkeys(row for row, _ in examples))}
            pairs = pairs.take(list(new_rows))
            examples = [(new_rows[row], label) for row, label in examples]
        rows, labels = zip(*examples)
        targets = run.soft_prompt.targets(run.model.tokenizer, labels)
        questions = tuple(pairs.questions[row] for row in rows)
        for question, group in by_question(questions).items():
            longest = max(group, key=lambda i: len(targets[i]))
            run.about(question).require_room(len(targets[longest]) - 1, f"the label {labels[longest]!r:.80}")
        weights = [float(pairs.weights[row]) for row in rows]
        return cls(pairs, rows, tuple(targets), tuple(weights), questions)

    def __len__(self) -> int:
        return len(self.rows)

    def vectors(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """Read the vectors of these examples, [numbers, width]."""
        return self.pairs.gather([self.rows[i] for i in numbers]).to(device)


def draw_validation(held: VectorLabelPairs, train: VectorLabelPairs, count: int, seed: int) -> list[int]:
    """Draw the validation examples to use by ``seed``; all are used where there are no more than ``count``.

    Each source has the share of them that it has of the training examples, at least one and at most what it has. The
    sources take turns, so that the first few examples are of all of them.

    Args:
        held: the validation rows.
        train: the training rows.
        count: how many examples.
        seed: of the draw.

    Returns:
        Numbers of examples, in the order of ``held.examples``.
    """
    by_source: dict[int, list[int]] = {}
    for number, (row, _) in enumerate(held.examples):
        by_source.setdefault(held.source_of[row], []).append(number)
    shares = Counter(train.source_of[row] for row, _ in train.examples)
    counts = _counts_by_share({source: len(numbers) for source, numbers in by_source.items()}, shares, count)
    drawn = [
        sorted(np.random.default_rng((seed, source)).permutation(numbers)[: counts[source]].tolist())
        for source, numbers in by_source.items()
    ]
    return [number for turn in zip_longest(*drawn) for number in turn if number is not None]


def _counts_by_share(available: Mapping[int, int], shares: Mapping[int, int], count: int) -> dict[int, int]:
    """How many of ``count`` each source gets: by its share as near as whole numbers allow (Webster's method)."""
    if count >= sum(available.values()):
        return dict(available)
    counts = dict.fromkeys(available, 0)
    for _ in range(count):
        left = [source for source in available if counts[source] < available[source]]
        # A source without training examples comes after all others.
        behind = {source: (counts[source] + 0.5) / (shares.get(source) or 1e-9) for source in left}
        counts[min(left, key=lambda source: (counts[source] > 0, behind[source]))] += 1
    return counts


def batches(examples: Examples, config: TrainConfig, total: int, done: int) -> Iterator[list[int]]:
    """Yield numbers of examples, batch by batch, over all epochs.

    The order depends on the seed alone, so that a run can go on anywhere.

    Args:
        examples: to train on.
        config: settings.
        total: number of steps of the whole run.
        done: steps to leave out at its beginning.
    """
    step = epoch = 0
    lengths = [len(target) for target in examples.targets]
    while step < total:
        for batch in epoch_batches(lengths, config.batch_size, config.seed, epoch, examples.questions):
            if done <= step < total:
                yield batch
            step += 1
        epoch += 1


def steps_of_epoch(examples: Examples, batch_size: int) -> int:
    """How many batches an epoch has.

    Args:
        examples: to train on.
        batch_size: examples per batch, all of one question.
    """
    return sum(math.ceil(len(group) / batch_size) for group in by_question(examples.questions).values())


def by_question(questions: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of examples by their question, in the order in which questions first come.

    Args:
        questions: of the examples.
    """
    groups: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        groups.setdefault(question, []).append(number)
    return groups


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, questions: Sequence[str] | None = None
) -> Iterator[list[int]]:
    """Yield numbers of examples, batch by batch, in the order that seed and epoch fix.

    Examples are shuffled, sorted by length within a window of batches so that little is padded, and the batches of a
    window are shuffled again. All examples of a batch answer one question; with several, all batches are shuffled.

    Args:
        lengths: of the examples' targets, in tokens.
        batch_size: examples per batch.
        seed: of the run.
        epoch: number of the epoch, from 0.
        questions: of the examples; by default all have one.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    of_example = list(questions) if questions is not None else [""] * len(lengths)
    groups = by_question([of_example[i] for i in order.tolist()])
    if len(groups) == 1:
        yield from _windows(order, lengths, batch_size, rng)
        return
    batches = [batch for group in groups.values() for batch in _windows(order[group], lengths, batch_size, rng)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _windows(
    order: np.ndarray, lengths: Sequence[int], batch_size: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    for start in range(0, len(order), batch_size * _WINDOW):
        window = sorted(order[start : start + batch_size * _WINDOW].tolist(), key=lambda i: lengths[i])
        batches_of_window = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        for i in rng.permutation(len(batches_of_window)):
            yield batches_of_window[i]
