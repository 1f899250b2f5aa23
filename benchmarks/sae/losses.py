"""What labels cost given their own vectors, and how long a direction is to be for the model to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp_toolkit import Adapter, SoftPrompt
from interp_toolkit.adapters import untrained_adapter
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import best_scale
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.evaluation.control_kinds import matched_control, null_control, shifted_control
from interp_toolkit.models import model_facts
from interp_toolkit.statistics import Interval, mean_interval, paired_difference

LOSS, NULL, OTHER = "loss", "more with the null vector", "more with another's vector"


def untrained(model: Any, soft_prompt: SoftPrompt, length: float) -> Adapter:
    """The direction itself, of this length."""
    return untrained_adapter(Contract.from_facts(model_facts(model), None, soft_prompt, None, True), length)


def best_length(model: Any, soft_prompt: SoftPrompt, vectors: Tensor, labels: Sequence[str]) -> float:
    """The length of the untrained direction at which these labels cost least."""
    return best_scale(model, untrained(model, soft_prompt, 1.0), vectors, labels)


def label_losses(model: Any, adapter: Adapter, vectors: Tensor, labels: Sequence[str]) -> dict[str, Interval]:
    """What labels cost given their own vectors, and how much more without them; in nats per token.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: [n, width].
        labels: one per vector.
    """
    matched = matched_control(adapter, vectors, labels)
    conditions = (matched, null_control(adapter, len(labels)), shifted_control(matched))
    loss, null, other = (np.asarray(x.losses(model, labels)) for x in conditions)
    return {
        LOSS: mean_interval(loss, seed=SEED),
        NULL: paired_difference(null, loss, seed=SEED),
        OTHER: paired_difference(other, loss, seed=SEED),
    }
