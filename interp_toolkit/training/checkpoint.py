"""The state of a training run: the best weights, the history, and a file from which it can go on at any step."""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.adapters import Adapter
from interp_toolkit.deprecation import old_field_names
from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.files import whole_file
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.run_record import RunRecord, difference

# What reading a damaged archive, pickle or state may raise.
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error),
)
_PROGRESS = ("step", "seen", "best_step", "best_val_loss", "recent", "history")


class Checkpoint:
    """Where a run stands; with a path, also on disk.

    Args:
        path: the file; None for none.
        record: what the run's numbers depend on; the file of a run with another record is refused.
        adapter: with the weights that the run begins with.
        optimizer: of its parameters.
        schedule: of the optimiser's learning rates.

    Attributes:
        step: steps done.
        seen: examples trained on.
        best_step: the step of the lowest validation loss.
        best_val_loss: that loss.
        recent: training losses since the last validation.
        history: one row per validation.
    """

    def __init__(
        self,
        path: Path | None,
        record: RunRecord,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self._path = path
        self._record = record
        self._adapter, self._optimizer, self._schedule = adapter, optimizer, schedule
        self.step = self.seen = self.best_step = 0
        self.best_val_loss = math.inf
        self.recent: list[float] = []
        self.history: list[dict[str, Any]] = []
        self._best = self._weights()

    def record(self, val_loss: float, shuffled_loss: float) -> dict[str, Any]:
        """Record a validation, and the weights where they are the best so far; return the history's new row."""
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
            InterpToolkitError: it belongs to another run, or to version 0.1, which did not say to which.
        """
        if self._path is None or not self._path.exists():
            return
        with self._reading():
            # Torch reads a file with flipped bits without a word; the archive has sums of all its parts.
            with zipfile.ZipFile(self._path) as archive:
                if part := archive.testzip():
                    raise zipfile.BadZipFile(f"{part} is not as it was written")
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            stored = state["run"]
            renamed = old_field_names(TrainConfig)
            stored["settings"] = {renamed.get(key, key): value for key, value in stored.get("settings", {}).items()}
            if "pairs" not in stored and "config" in stored:
                raise InterpToolkitError(
                    f"the checkpoint {self._path} was written by version 0.1, which did not record its pairs, prompt "
                    f"and model, so that nothing shows whether this run is the same; the adapters beside it still "
                    f"load; name another folder, or delete it to start anew"
                )
            if self._begins_with(state["weights"]) or self._begins_with(state["best"]):
                # The adapter itself comes back as the run left it, as when a notebook's cell is run twice.
                start = "adapter's starting weights"
                self._record["adapter"][start] = stored["adapter"][start]
            if differences := difference(stored, self._record):
                raise InterpToolkitError(
                    f"the checkpoint {self._path} belongs to another run ({'; '.join(differences)}); take what it was "
                    f"trained with, name another folder, or delete it to start anew"
                )
            self._adapter.load_state_dict(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            # Tried before it is needed, at the end of the run.
            self._adapter.load_state_dict(state["best"])
            self._adapter.load_state_dict(state["weights"])
            self._best = state["best"]
            for name in _PROGRESS:
                setattr(self, name, state["progress"][name])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except InterpToolkitError:
            raise
        except _DAMAGE as error:
            raise FileFormatError(
                f"the checkpoint {self._path} is damaged: {first_line(error)}; delete it to start anew"
            ) from error

    def _begins_with(self, weights: dict[str, torch.Tensor]) -> bool:
        current = self._weights()
        return current.keys() == weights.keys() and all(
            torch.equal(value.cpu(), weights[name]) for name, value in current.items()
        )

    def keep_best(self) -> None:
        """Put the best weights back into the adapter."""
        self._adapter.load_state_dict(self._best)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._adapter.state_dict().items()}

    def _state(self) -> dict[str, Any]:
        return dict(
            run=self._record,
            weights=self._weights(),
            optimizer=self._optimizer.state_dict(),
            schedule=self._schedule.state_dict(),
            best=self._best,
            progress={name: getattr(self, name) for name in _PROGRESS},
        )
