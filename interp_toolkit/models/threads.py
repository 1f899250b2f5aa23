"""Rows of one pass shared out among threads, each of which takes its own through all blocks.

The threads of torch meet at the end of every operation, and a row's numbers wander from the memory of one processor to
that of another. Here each thread keeps its rows, and all meet once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

T = TypeVar("T")

# Tokens of a thread below which products are too small to make up for it.
_FEWEST_TOKENS = 128


def rows_in_threads(function: Callable[[Tensor], Tensor], rows: Tensor, tokens_of_row: int) -> Tensor:
    """Apply a function of independent rows, differentiable in these, in as many threads as torch uses.

    Args:
        function: of some of the rows [n, ...], giving [n, ...].
        rows: of the whole pass.
        tokens_of_row: how much one row is.
    """
    threads = threads_for(rows.device, len(rows) * tokens_of_row, _FEWEST_TOKENS)
    if threads == 1 or len(rows) < threads:
        return function(rows)
    result: Tensor = _RowsInThreads.apply(rows, function, threads)
    return result


def threads_for(device: torch.device, tokens: int, fewest: int) -> int:
    """As many threads as torch uses, or one where a thread would have too little to do.

    Args:
        device: of the tokens.
        tokens: of the whole pass.
        fewest: tokens of a thread.
    """
    threads = torch.get_num_threads()
    return threads if device.type == "cpu" and tokens >= threads * fewest else 1


class _RowsInThreads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, function: Callable[[Tensor], Tensor], threads: int) -> Tensor:
        takes_gradient = ctx.needs_input_grad[0]

        def of_share(share: Tensor) -> Tensor:
            with torch.set_grad_enabled(takes_gradient):
                return function(share)

        shares = [share.requires_grad_(takes_gradient) for share in rows.detach().tensor_split(threads)]
        results = run_in_threads([partial(of_share, share) for share in shares])
        if takes_gradient:
            ctx.shares = shares, results
        return torch.cat([result.detach() for result in results])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shares, results = ctx.shares
        grads = grad.split([len(share) for share in shares])
        tasks = [partial(torch.autograd.grad, *of_share) for of_share in zip(results, shares, grads)]
        return torch.cat([of_share for (of_share,) in run_in_threads(tasks)]), None, None


def run_in_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run tasks side by side, in a thread each, whose operations use that thread alone; one task is run as it is.

    The threads are new each time: those of a pool would be missing in a process that was forked.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    results: list[T | BaseException] = [InterruptedError("the thread did not end")] * len(tasks)
    ready = threading.Barrier(len(tasks) + 1)

    def run(number: int, task: Callable[[], T]) -> None:
        torch.get_num_threads()  # a thread's first look sets its number, and would undo what is set before
        torch.set_num_threads(1)
        ready.wait()
        try:
            results[number] = task()
        except BaseException as error:
            results[number] = error

    threads = torch.get_num_threads()
    workers = [threading.Thread(target=run, args=item) for item in enumerate(tasks)]
    for worker in workers:
        worker.start()
    ready.wait()
    # Torch takes the last number that any thread set for the one that new threads begin with.
    torch.set_num_threads(threads)
    for worker in workers:
        worker.join()
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
