"""Which rows of tokens share a batch, by a budget of tokens, and how much one pass takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from interp_toolkit.models.backend import Backend


@dataclass(frozen=True)
class PassSize:
    """How much is computed at once.

    Attributes:
        rows: of soft prompts with their targets.
        tokens: that are read.
        logits: rows of logits.
    """

    rows: int
    tokens: int
    logits: int


# Enough to fill a processor, little enough for its caches and a wide model.
_ON_CPU = PassSize(rows=64, tokens=1024, logits=16)
# A GPU waits for the launch of each small product; its memory holds the logits of 2,048 tokens.
_ON_GPU = PassSize(rows=512, tokens=32_768, logits=2048)


def pass_size(device: torch.device) -> PassSize:
    """How much is computed at once on a device; results do not depend on it beyond rounding."""
    return _ON_CPU if device.type == "cpu" else _ON_GPU


def padded_batches(backend: Backend, lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield numbers of rows that share a padded pass, longest first so that memory runs out at once or never.

    Args:
        backend: of the model, which says whether rows may be padded.
        lengths: of the rows, in tokens.
        tokens: how many a batch may have, padding included; a longer row is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, lengths[order[start]]))
        yield from backend.together(order[start : start + size], lengths)
        start += size


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
