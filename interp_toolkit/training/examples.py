"""The examples of a run: label tokens made once, vectors fetched batch by batch, in an order that the seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """

    pairs: VectorLabelPairs
    rows: tuple[int, ...]
    targets: tuple[list[int], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, pairs: VectorLabelPairs, run: PromptRun, first: int | None = None) -> Examples:
        """The examples of ``pairs``, or the ``first`` of them with the vectors that they are of.

        Raises:
            InterpToolkitError: there are none, or one does not fit the model's context.
        """
        rows, labels = zip(*pairs.examples[:first]) if len(pairs) else ((), ())
        if not rows:
            raise InterpToolkitError("expected training and validation rows in the pairs, and one side has none")
        pairs = pairs.take(range(rows[-1] + 1))
        targets = run.soft_prompt.targets(run.model.tokenizer, labels)
        longest = max(range(len(targets)), key=lambda i: len(targets[i]))
        run.require_room(len(targets[longest]) - 1, f"the label {labels[longest]!r:.80}")
        weights = [float(pairs.weights[row]) for row in rows]
        return cls(pairs, rows, tuple(targets), tuple(weights))

    def __len__(self) -> int:
        return len(self.rows)

    def vectors(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """The vectors of these examples, [numbers, d_model]."""
        return self.pairs.gather([self.rows[i] for i in numbers]).to(device)


def batches(examples: Examples, config: TrainConfig, total: int, done: int) -> Iterator[list[int]]:
    """Numbers of examples, batch by batch, over all epochs from step ``done`` on.

    The order depends on the seed alone, so that a run can go on anywhere.
    """
    step = epoch = 0
    lengths = [len(target) for target in examples.targets]
    while step < total:
        for batch in epoch_batches(lengths, config.batch_size, config.seed, epoch):
            if done <= step < total:
                yield batch
            step += 1
        epoch += 1


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Numbers of examples, batch by batch, in the order that seed and epoch fix.

    Examples are shuffled, sorted by length within a window of batches so that little is padded, and the batches of a
    window are shuffled again.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), batch_size * _WINDOW):
        window = sorted(order[start : start + batch_size * _WINDOW].tolist(), key=lambda i: lengths[i])
        parts = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        for i in rng.permutation(len(parts)):
            yield parts[i]
