"""Timing two sides in turn, and what the machine could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    slow: Callable[[], object],
    fast: Callable[[], object],
    repeats: int,
    ready: tuple[Callable[[], object], Callable[[], object]] | None = None,
) -> dict[str, Any]:
    """Seconds of both sides, in turn, and the ratios slow / fast.

    Args:
        slow: one side.
        fast: the other side.
        repeats: of both.
        ready: what each side does before each of its turns, untimed, such as the first step of a training whose later
            ones are timed. By default both take a turn before the first that is timed.
    """
    before_slow, before_fast = ready or (lambda: None, lambda: None)
    if ready is None:
        slow()
        fast()
    pairs = []
    for _ in range(repeats):
        before_slow()
        slow_seconds = seconds(slow)
        before_fast()
        pairs.append((slow_seconds, seconds(fast)))
    ratios = [a / b for a, b in pairs]
    return dict(
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        repeats=repeats,
        slow_seconds=[a for a, _ in pairs],
        fast_seconds=[b for _, b in pairs],
    )


@cache
def matrix_peak(dtype: torch.dtype) -> float:
    """Of matrix products, the best of several shapes and repeats, in floating-point operations per second."""
    best = 0.0
    for m, k, n in ((2048, 2048, 2048), (1024, 576, 1536), (1024, 1536, 576)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        repeats = 10 if seconds(lambda: a @ b) < 0.5 else 2  # noqa: B023 - called before the loop goes on
        best = max(best, *(2 * m * k * n / seconds(lambda: a @ b) for _ in range(repeats)))  # noqa: B023
    return best


def linear_weights(model: Any) -> tuple[int, int]:
    """Numbers in a Hugging Face model's matrices: of all blocks, and of the one to the vocabulary."""
    blocks = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    )
    return blocks, model.lm_head.weight.numel()
