"""What a training run leaves."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from interp_toolkit.adapters import Adapter


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training run leaves.

    Attributes:
        adapter: the trained adapter, with the weights of the best validation and its contract.
        best_step: the step of these weights.
        best_val_loss: their validation loss, in nats per token.
        last: an adapter with the weights of the last step.
        last_val_loss: their validation loss.
        history: one row per validation: ``step``, ``train_loss`` (mean since the one before), ``val_loss``,
            ``shuffled_loss`` (each label given another example's vector), ``scale``; losses in nats per token.
    """

    adapter: Adapter
    best_step: int
    best_val_loss: float
    last: Adapter
    last_val_loss: float
    history: pd.DataFrame
