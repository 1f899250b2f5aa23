"""Which rows of tokens share a batch, by a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from interp_toolkit.models.backend import Backend


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
