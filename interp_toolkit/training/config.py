"""How an adapter is trained, as one value that serves the API, the YAML file and the command's help."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from interp_toolkit.errors import InterpToolkitError

TRACKERS = ("wandb", "trackio")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults are the paper's where it names them (arXiv 2602.10352, table 5).

    Attributes:
        epochs: passes over all (vector, label) examples.
        batch_size: examples a step.
        accumulate: parts in which a step's examples are run one after the other, for less memory; the gradient is that
            of the whole batch.
        lr: AdamW's learning rate at its peak, for the bias and wherever no other is given.
        scale_lr: for log_scale; None for lr.
        matrix_lr: for U, V and W; None for lr.
        weight_decay: on the bias, and on matrices where no other is given; log_scale has none.
        matrix_weight_decay: on U, V and W; None for weight_decay.
        ridge_start: start matrices and bias in closed form, by a ridge regression from vectors to the embeddings of
            their labels' first tokens, with this penalty relative to the vectors' variance; None for the adapter's
            own start.
        frozen: names of parameters that keep their start (log_scale, bias, U, V, weight), for ablations.
        clip: largest norm of the gradient.
        label_smoothing: share of each token's log-probability that is replaced by the mean over the vocabulary, in
            training only.
        max_token_loss: largest loss that a single token may count, in nats, in training only.
        warmup_steps: of linear warm-up, before a cosine down to zero.
        max_steps: stop (and end the cosine) there; None for all epochs.
        validate_every: steps between two validations.
        val_examples: how many validation examples to use, drawn by seed; of a mixture as many of each source as its
            share of the training examples asks for.
        patience: stop after so many validations in a row without a lower loss; None to go on to the end.
        show: how many validation vectors to describe (greedily) at each validation.
        gradient_checkpointing: compute blocks anew in the backward pass: less memory, a third more time.
        tracker: wandb or trackio, to log there too; None for the run's own log alone.
        seed: of the order of examples, and of the draw of validation examples.
    """

    epochs: int = 1
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 0.01
    scale_lr: float | None = None
    matrix_lr: float | None = None
    weight_decay: float = 0.01
    matrix_weight_decay: float | None = None
    ridge_start: float | None = None
    frozen: tuple[str, ...] = ()
    clip: float = 0.5
    label_smoothing: float = 0.0
    max_token_loss: float = 100.0
    warmup_steps: int = 10
    max_steps: int | None = None
    validate_every: int = 50
    val_examples: int = 200
    patience: int | None = None
    show: int = 3
    gradient_checkpointing: bool = False
    tracker: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "validate_every", "val_examples", "max_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InterpToolkitError(f"expected {name} of at least 1, got {value}")
        for name in ("lr", "clip", "max_token_loss"):
            if not getattr(self, name) > 0:
                raise InterpToolkitError(f"expected {name} above 0, got {getattr(self, name)}")
        for name in ("scale_lr", "matrix_lr", "weight_decay", "matrix_weight_decay", "warmup_steps", "show"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InterpToolkitError(f"expected {name} of 0 or more, got {value}")
        for name in ("lr", "scale_lr", "matrix_lr", "weight_decay", "matrix_weight_decay", "ridge_start"):
            if getattr(self, name) == math.inf:
                raise InterpToolkitError(f"expected {name} to be finite, got {getattr(self, name)}")
        if self.ridge_start is not None and not self.ridge_start > 0:
            raise InterpToolkitError(f"expected ridge_start above 0, got {self.ridge_start}; try 0.03")
        if not 0 <= self.label_smoothing < 1:
            raise InterpToolkitError(f"expected label_smoothing from 0 up to 1, got {self.label_smoothing}")
        if self.tracker not in (None, *TRACKERS):
            raise InterpToolkitError(f"expected tracker {' or '.join(TRACKERS)}, got {self.tracker!r}")

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON and YAML can hold."""
        return {**asdict(self), "frozen": list(self.frozen)}

    @classmethod
    def describe(cls) -> dict[str, str]:
        """What each field means, by its name, out of the docstring above."""
        section = inspect.cleandoc(cls.__doc__ or "").split("Attributes:\n", 1)[1]
        entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, flags=re.M)
        return {name: " ".join(text.split()) for name, text in entries}
