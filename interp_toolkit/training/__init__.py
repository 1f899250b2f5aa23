"""Training adapters on vector-label pairs."""

from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.interrupt import TrainingInterrupted
from interp_toolkit.training.loop import TrainResult, train_adapter

__all__ = ["TrainConfig", "TrainResult", "TrainingInterrupted", "train_adapter"]
