"""Which rows of tokens share a batch, by a budget of tokens, and how much one pass takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interp_toolkit.models.backend import Backend


@dataclass(frozen=True)
class PassSize:
    """How much is computed at once.

    Attributes:
        rows: of soft prompts with their targets.
        tokens: that are read.
        logits: rows of logits.
        cost: of a pass, however few tokens it has, in tokens that take as long in a large one.
    """

    rows: int
    tokens: int
    logits: int
    cost: int


# Enough to fill a processor, little enough for its caches and a wide model. A pass of one token of the embedded model
# takes 50 ms, and each further one 2 ms in float32, 1 in bfloat16.
_ON_CPU = PassSize(rows=64, tokens=1024, logits=16, cost=32)
# A GPU waits for the launch of each small product; its memory holds the logits of 2,048 tokens.
_ON_GPU = PassSize(rows=512, tokens=32_768, logits=2048, cost=1024)


def pass_size(device: torch.device) -> PassSize:
    """How much is computed at once on a device; results do not depend on it beyond rounding."""
    return _ON_CPU if device.type == "cpu" else _ON_GPU


def padded_batches(
    backend: Backend, lengths: Sequence[int], *, tokens: int | None = None, rows: int | None = None
) -> Iterator[list[int]]:
    """Yield numbers of rows that share a padded pass, longest first so that memory runs out at once or never.

    Rows are put together so that all passes take the least time: few passes, and little padding in each.

    Args:
        backend: of the model, which says whether rows may be padded.
        lengths: of the rows, in tokens.
        tokens: how many a batch may have, padding included; a longer row is a batch of its own. By default any number.
        rows: how many a batch may have; by default any number.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    widths = np.array([max(1, lengths[i]) for i in order])
    cost = pass_size(backend.device).cost
    # Of the shortest rows up to each: the least time that they take, and where their last batch begins.
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        width = widths[end - 1]
        bounds = [end, *([rows] if rows else []), *([max(1, tokens // width)] if tokens else [])]
        starts = np.arange(end - min(bounds), end)
        times = least[starts] + width * (end - starts) + cost
        best = int(times.argmin())
        least[end], begins[end] = times[best], starts[best]
    end = len(order)
    while end:
        start = begins[end]
        yield from backend.together(order[start:end], lengths)
        end = start


def consecutive_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield numbers of rows in their order, as many at a time as have up to so many tokens; none is empty.

    Args:
        lengths: of the rows, in tokens.
        tokens: how many a batch may have; a longer row is a batch of its own.
    """
    batch: list[int] = []
    count = 0
    for row, length in enumerate(lengths):
        if batch and count + length > tokens:
            yield batch
            batch, count = [], 0
        batch.append(row)
        count += length
    if batch:
        yield batch
