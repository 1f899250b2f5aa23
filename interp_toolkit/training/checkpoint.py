"""The state of a training run: the best weights, the history, and a file from which it can go on at any step."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.files import whole_file
from interp_toolkit.training.config import TrainConfig

# What a run shows and where it logs changes no number, and may differ when it goes on.
_OUTWARD = ("show", "tracker")


class Checkpoint:
    """Where a run stands; with a path, also on disk.

    Attributes:
        step: steps done.
        seen: examples trained on.
        best_step: the step of the lowest validation loss.
        best_val_loss: that loss.
        recent: training losses since the last validation.
        history: one row a validation.
    """

    def __init__(
        self,
        path: Path | None,
        config: TrainConfig,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self._path = path
        settings = {key: value for key, value in config.to_dict().items() if key not in _OUTWARD}
        self._run = dict(config=settings, adapter=adapter.config.to_dict())
        self._adapter, self._optimizer, self._schedule = adapter, optimizer, schedule
        self.step = self.seen = self.best_step = 0
        self.best_val_loss = math.inf
        self.recent: list[float] = []
        self.history: list[dict[str, Any]] = []
        self._best = self._weights()

    def record(self, val_loss: float, shuffled_loss: float) -> dict[str, Any]:
        """Take down a validation and keep the weights where they are the best so far; gives the history's new row."""
        weights = self._adapter.state_dict()
        row: dict[str, Any] = dict(
            step=self.step,
            train_loss=sum(self.recent) / len(self.recent),
            val_loss=val_loss,
            shuffled_loss=shuffled_loss,
            scale=weights["log_scale"].exp().item() if "log_scale" in weights else math.nan,
        )
        self.recent.clear()
        self.history.append(row)
        if val_loss < self.best_val_loss:
            self.best_step, self.best_val_loss, self._best = self.step, val_loss, self._weights()
        return row

    @property
    def since_best(self) -> int:
        """Validations since the one with the lowest loss."""
        return sum(row["step"] > self.best_step for row in self.history)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        if self._path:
            with whole_file(self._path) as draft:
                torch.save(self._state(), draft)

    def resume(self) -> None:
        """Go on from the file, where there is one.

        Raises:
            FileFormatError: it is damaged.
            InterpToolkitError: it belongs to a run with other settings.
        """
        if self._path is None or not self._path.exists():
            return
        try:
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            run = state["run"]
        except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"the checkpoint {self._path} is damaged: {first_line(error)}; delete it to start anew"
            ) from error
        if run != self._run:
            raise InterpToolkitError(
                f"the checkpoint {self._path} belongs to a run with other settings ({_difference(run, self._run)}); "
                f"use those, or delete it to start anew"
            )
        self._adapter.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._best = state["best"]
        for name, value in state["progress"].items():
            setattr(self, name, value)

    def keep_best(self) -> None:
        """Put the best weights back into the adapter."""
        self._adapter.load_state_dict(self._best)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._adapter.state_dict().items()}

    def _state(self) -> dict[str, Any]:
        names = ("step", "seen", "best_step", "best_val_loss", "recent", "history")
        return dict(
            run=self._run,
            weights=self._weights(),
            optimizer=self._optimizer.state_dict(),
            schedule=self._schedule.state_dict(),
            best=self._best,
            progress={name: getattr(self, name) for name in names},
        )


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    told = [
        f"{key}: {theirs[part].get(key)} there, {value} here"
        for part in ours
        for key, value in ours[part].items()
        if theirs[part].get(key) != value
    ]
    return "; ".join(told) or "of another version"
