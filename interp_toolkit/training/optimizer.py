"""AdamW with a learning rate and a weight decay for each parameter, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.training.config import TrainConfig


def make_optimizer(adapter: Adapter, config: TrainConfig) -> torch.optim.Optimizer:
    """Make AdamW over the adapter's parameters; those that ``config.frozen`` names get no gradient.

    Raises:
        InterpToolkitError: a frozen parameter that the adapter does not have, or none left to train.
    """
    parameters = dict(adapter.named_parameters())
    if not parameters:
        raise InterpToolkitError(f"a {adapter.config.kind!r} adapter has nothing to train; choose another kind")
    if unknown := sorted(set(config.frozen) - set(parameters)):
        raise InterpToolkitError(
            f"cannot freeze {', '.join(unknown)}: a {adapter.config.kind!r} adapter has {', '.join(parameters)}"
        )
    groups = []
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in config.frozen)
        if name in config.frozen:
            continue
        lr: float | None
        decay: float | None
        if name == "log_scale":
            lr, decay = config.scale_lr, 0.0
        elif parameter.ndim > 1:
            lr, decay = config.matrix_lr, config.matrix_weight_decay
        else:  # biases, and vectors of parameters in kinds of a user's own
            lr, decay = None, None
        groups.append(
            dict(
                name=name,
                params=[parameter],
                lr=config.lr if lr is None else lr,
                weight_decay=config.weight_decay if decay is None else decay,
            )
        )
    if not groups:
        raise InterpToolkitError(f"every parameter is frozen ({', '.join(parameters)}); leave one to train")
    return torch.optim.AdamW(groups)


def make_schedule(total: int, warmup: int) -> Callable[[int], float]:
    """Return the factor on the learning rate by step: linear warm-up over ``warmup`` steps, then a cosine to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return factor
