"""How an adapter is trained, as one value that serves the API and the YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from interp_toolkit.errors import InterpToolkitError


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the defaults are the paper's where it names them (arXiv 2602.10352, table 5).

    Attributes:
        epochs: passes over all (vector, label) examples.
        batch_size: examples a step.
        lr: AdamW's learning rate at its peak, for the bias and wherever no other is given.
        scale_lr: for log_scale; None for ``lr``.
        matrix_lr: for U, V and W; None for ``lr``.
        weight_decay: on all but log_scale.
        clip: largest norm of the gradient.
        warmup_steps: of linear warm-up, before a cosine down to zero.
        max_steps: stop (and end the cosine) there; None for all epochs.
        validate_every: steps between two validations.
        val_examples: how many validation examples to use, from the first on.
        seed: of the order of examples.
    """

    epochs: int = 1
    batch_size: int = 64
    lr: float = 0.01
    scale_lr: float | None = None
    matrix_lr: float | None = None
    weight_decay: float = 0.01
    clip: float = 0.5
    warmup_steps: int = 10
    max_steps: int | None = None
    validate_every: int = 50
    val_examples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise InterpToolkitError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise InterpToolkitError(f"expected {name} above 0, got {getattr(self, name)}")
        for name in ("scale_lr", "matrix_lr", "weight_decay", "warmup_steps", "val_examples", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < (1 if name == "max_steps" else 0):
                raise InterpToolkitError(f"expected {name} of 0 or more (max_steps: 1 or more), got {value}")

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON and YAML can hold."""
        return asdict(self)
