"""Training adapters on vector-label pairs."""

from typing import TYPE_CHECKING

from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.training.config import TrainConfig
    from interp_toolkit.training.interrupt import TrainingInterrupted
    from interp_toolkit.training.objective import Objective, mean_cross_entropy
    from interp_toolkit.training.result import TrainResult
    from interp_toolkit.training.train import train_adapter

__all__ = ["Objective", "TrainConfig", "TrainResult", "TrainingInterrupted", "mean_cross_entropy", "train_adapter"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TrainConfig": "config",
        "TrainingInterrupted": "interrupt",
        "Objective": "objective",
        "mean_cross_entropy": "objective",
        "TrainResult": "result",
        "train_adapter": "train",
    },
)
