"""Vectors of several tokens of one text, put together as one input."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.inputs import Vectors

LONGEST = 16


def as_spans(vectors: Vectors, length: int | None = None) -> list[Vectors]:
    """Put the vectors of each prompt, or so many neighbours, together as one input.

    Position and token of a span are those of its last vector. It has no threshold and no confidence: neither was
    calibrated for spans.

    Args:
        vectors: [n, width], those of a prompt one after the other.
        length: of every span; by default all vectors of a prompt at a site are one.

    Returns:
        the spans of each length, [n, span, width]; their ``numbers`` count the spans of all lengths.

    Raises:
        InterpToolkitError: more than 16 vectors in one.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, origin in enumerate(zip(vectors.numbers, vectors.sites)):
        groups.setdefault(origin if length is None else row // length, []).append(row)
    spans = list(groups.values())
    by_length: dict[int, list[int]] = {}
    for number, rows in enumerate(spans):
        if len(rows) > LONGEST:
            raise InterpToolkitError(
                f"expected at most {LONGEST} tokens of a text together, got {len(rows)} of "
                f"{vectors.sources[rows[0]]!r:.60}; choose some by positions"
            )
        by_length.setdefault(len(rows), []).append(number)
    return [
        replace(
            vectors.take([spans[number][-1] for number in numbers]),
            values=vectors.values[torch.tensor([spans[number] for number in numbers])],
            numbers=numbers,
            sources=[vectors.sources[spans[number][-1]] if length is None else f"span {number}" for number in numbers],
            thresholds=[None] * len(numbers),
            kinds=[None] * len(numbers),
            row_ids=["|".join(vectors.row_ids[row] for row in spans[number]) for number in numbers],
        )
        for _, numbers in sorted(by_length.items())
    ]
