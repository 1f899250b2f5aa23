"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How many of each thing one comparison takes.

    Attributes:
        vectors: described in one call.
        passages: whose activations are stored.
        batch: examples per training step.
        titles: to train and validate on.
        held_out: of the titles, those to validate on.
        steps: after which both training loops are validated.
        batches: sizes of a batch by which the growth of training time is measured.
        label_lengths: in tokens, likewise.
    """

    vectors: int = 64
    passages: int = 12
    batch: int = 32
    titles: int = 512
    held_out: int = 64
    steps: int = 3
    batches: tuple[int, ...] = (8, 16, 32, 64, 128)
    label_lengths: tuple[int, ...] = (4, 8, 16, 32)

    @classmethod
    def for_limit(cls, limit: int | None) -> Sizes:
        """The sizes of a whole run, or of a trial on ``limit`` rows."""
        if limit is None:
            return cls()
        return cls(
            *(limit, limit, limit),
            titles=10 * limit,
            held_out=2 * limit,
            steps=2,
            batches=(limit,),
            label_lengths=(4,),
        )
