"""Processes that train one adapter together: each takes a share of every batch, and all hold the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from interp_toolkit.errors import InterpToolkitError, first_line


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Gradients of a frozen model's adapter come last on the way back, so there is nothing to overlap their sum with:
    plain sums of `torch.distributed` do what its wrapper for modules would.

    Attributes:
        number: of this process, from 0.
        count: of all.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Ranks:
        """The processes that torchrun started (``WORLD_SIZE``), once they have met; else this one alone."""
        if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and logs."""
        return self.number == 0

    def share(self, batch: Sequence[int]) -> Sequence[int]:
        """The examples of a batch that this process takes; none where there are fewer than processes.

        Args:
            batch: numbers of examples, the same in each process.
        """
        return batch[self.number :: self.count]

    def padding(self, batch: Sequence[int]) -> int:
        """How many examples the share of this process lacks to be as long as the longest share.

        Args:
            batch: numbers of examples, the same in each process.
        """
        return -(-len(batch) // self.count) - len(self.share(batch))

    def same_weights(self, module: nn.Module) -> None:
        """Give every process the first one's weights.

        Args:
            module: of which all processes have one.
        """
        if self.count > 1:
            with self._others():
                for value in module.state_dict().values():
                    dist.broadcast(value, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, in every one; one without examples adds zeros.

        Args:
            parameters: of the module that is trained.
        """
        if self.count == 1:
            return
        with self._others():
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums of numbers over all processes, in every one.

        Args:
            values: of this process.
        """
        if self.count == 1:
            return values
        with self._others():
            sums = torch.tensor(values, dtype=torch.float64)
            dist.all_reduce(sums)
        return tuple(sums.tolist())

    @contextmanager
    def one_after_the_first(self) -> Iterator[None]:
        """A block that the first process does before all others, which then find what it stored."""
        if self.count > 1 and not self.first:
            with self._others():
                dist.barrier()
        yield
        if self.count > 1 and self.first:
            with self._others():
                dist.barrier()

    @contextmanager
    def _others(self) -> Iterator[None]:
        """What other processes do; an error where one has ended."""
        try:
            yield
        except RuntimeError as error:
            raise InterpToolkitError(
                f"another of the {self.count} processes that train together has ended ({first_line(error)}); see what "
                f"it printed; the same command goes on from the last checkpoint"
            ) from error
