"""How an adapter is trained, as one value that serves the API, the YAML file and the command's help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import docstring_parser

from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.errors import InterpToolkitError

TRACKERS = ("wandb", "trackio")


@renamed_fields(
    clip="max_grad_norm",
    accumulate="gradient_accumulation_steps",
    show="log_samples",
    validate_every="eval_every",
    ridge_start="ridge_init",
)
@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults are the paper's where it names them (arXiv 2602.10352, table 5).

    Attributes:
        epochs: passes over all (vector, label) examples.
        batch_size: examples per step.
        gradient_accumulation_steps: parts in which a step's examples are run one after the other, for less memory; the
            gradient is that of the whole batch.
        lr: AdamW's learning rate at its peak, for the bias and wherever no other is given.
        scale_lr: learning rate of log_scale; None for lr.
        matrix_lr: learning rate of U, V and W; None for lr.
        weight_decay: on the bias, and on matrices where no other is given; log_scale has none.
        matrix_weight_decay: on U, V and W; None for weight_decay.
        ridge_init: initialise matrices and bias in closed form, by a ridge regression from vectors to the embeddings of
            their labels' first tokens, with this penalty relative to the vectors' variance; None for the adapter's
            own initialisation.
        frozen: names of parameters that keep their initial values (log_scale, bias, U, V, weight), for ablations.
        max_grad_norm: the gradient is scaled down to this norm where its norm is larger.
        label_smoothing: share of each token's log-probability that is replaced by the mean over the vocabulary, in
            training only.
        max_token_loss: largest loss that a single token may count, in nats, in training only.
        warmup_steps: steps of linear warm-up, before a cosine down to zero.
        max_steps: stop (and end the cosine) there; None for all epochs.
        eval_every: steps between two validations.
        val_examples: how many validation examples to use, drawn by seed; of a mixture as many from each source as its
            share of the training examples asks for.
        patience: stop after so many validations in a row without a lower loss; None to go on to the end.
        log_samples: how many validation vectors to describe (greedily) at each validation.
        gradient_checkpointing: compute blocks anew in the backward pass: less memory, a third more time.
        tracker: wandb or trackio, to log there too; None for the run's own log alone.
        seed: of the order of examples, and of the draw of validation examples.
    """

    epochs: int = 1
    batch_size: int = 64
    gradient_accumulation_steps: int = 1
    lr: float = 0.01
    scale_lr: float | None = None
    matrix_lr: float | None = None
    weight_decay: float = 0.01
    matrix_weight_decay: float | None = None
    ridge_init: float | None = None
    frozen: tuple[str, ...] = ()
    max_grad_norm: float = 0.5
    label_smoothing: float = 0.0
    max_token_loss: float = 100.0
    warmup_steps: int = 10
    max_steps: int | None = None
    eval_every: int = 50
    val_examples: int = 200
    patience: int | None = None
    log_samples: int = 3
    gradient_checkpointing: bool = False
    tracker: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "gradient_accumulation_steps",
            "eval_every",
            "val_examples",
            "max_steps",
            "patience",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InterpToolkitError(f"expected {name} of at least 1, got {value}")
        for name in ("lr", "max_grad_norm", "max_token_loss"):
            if not getattr(self, name) > 0:
                raise InterpToolkitError(f"expected {name} above 0, got {getattr(self, name)}")
        for name in ("scale_lr", "matrix_lr", "weight_decay", "matrix_weight_decay", "warmup_steps", "log_samples"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InterpToolkitError(f"expected {name} of 0 or more, got {value}")
        for name in ("lr", "scale_lr", "matrix_lr", "weight_decay", "matrix_weight_decay", "ridge_init"):
            if getattr(self, name) == math.inf:
                raise InterpToolkitError(f"expected {name} to be finite, got {getattr(self, name)}")
        if self.ridge_init is not None and not self.ridge_init > 0:
            raise InterpToolkitError(f"expected ridge_init above 0, got {self.ridge_init}; try 0.03")
        if not 0 <= self.label_smoothing < 1:
            raise InterpToolkitError(f"expected label_smoothing from 0 up to 1, got {self.label_smoothing}")
        if self.tracker not in (None, *TRACKERS):
            raise InterpToolkitError(f"expected tracker {' or '.join(TRACKERS)}, got {self.tracker!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings in a form that JSON and YAML can hold."""
        return {**asdict(self), "frozen": list(self.frozen)}

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Return what each field means, by its name, as the docstring of the class says it."""
        fields = docstring_parser.parse(cls.__doc__ or "").params
        return {field.arg_name: " ".join((field.description or "").split()) for field in fields}
