"""What vectors, labels, splits and weights must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs.rows import StoredRows

Labels = tuple[tuple[str, ...], ...]
Name = Callable[[int], str]


def vector_number(row: int) -> str:
    """What an error calls a row, where nothing better is known."""
    return f"vector {row}"


def group_labels(labels: Sequence[str | Sequence[str]]) -> Labels:
    """A list of labels a vector; a single text counts as a list of one."""
    return tuple((x,) if isinstance(x, str) else tuple(x) for x in labels)


def check_shape(vectors: Tensor, labels: Sequence[object], where: str = "") -> None:
    """Refuse what is not a matrix, or not as long as its labels."""
    if vectors.ndim != 2 or not vectors.shape[1] or len(labels) != len(vectors):
        raise InterpToolkitError(
            f"expected a matrix with as many vectors as lists of labels{where}, got vectors of shape "
            f"{tuple(vectors.shape)} and {len(labels)} lists of labels"
        )


def check_values(rows: StoredRows, name: Name = vector_number, start: int = 0) -> None:
    """Refuse rows of NaN or zeros, reading one block at a time.

    Raises:
        InterpToolkitError: the text names the first such row.
    """
    for block in rows.blocks():
        # The largest magnitude of a row is NaN where any of it is, so one pass tells both.
        largest = block.abs().amax(1)
        if bad := _first(~torch.isfinite(largest)):
            raise InterpToolkitError(f"{name(start + bad[0])} holds NaN or infinity; leave it out")
        if bad := _first(largest == 0):
            raise InterpToolkitError(f"{name(start + bad[0])} is zero and has no direction; leave it out")
        start += len(block)


def check_labels(labels: Sequence[Sequence[Any]], name: Name = vector_number, start: int = 0) -> None:
    """Refuse a vector without labels, an empty label, and the same label twice for one vector.

    Raises:
        InterpToolkitError: the text names the row.
    """
    for row, own in enumerate(labels, start):
        if not own or not all(isinstance(x, str) and x.strip() for x in own):
            raise InterpToolkitError(f"{name(row)} needs at least one label and no empty one, got {own!r}")
        stripped = [x.strip() for x in own]
        if len(set(stripped)) < len(own):
            twice = next(x for x in stripped if stripped.count(x) > 1)
            raise InterpToolkitError(
                f"{name(row)} has the label {twice!r} twice; list it once, and give the vector a weight if it is to "
                f"count for more"
            )


def check_splits_and_weights(splits: Sequence[Any], weights: Sequence[float], name: Name = vector_number) -> None:
    """Refuse a split other than ``"train"`` and ``"val"``, and a weight that is not above 0.

    Raises:
        InterpToolkitError: the text names the row.
    """
    for row, split in enumerate(splits):
        if split not in ("train", "val"):
            raise InterpToolkitError(f"{name(row)} has split {split!r}; expected 'train' or 'val'")
    for row, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight > 0):
            raise InterpToolkitError(f"{name(row)} has weight {weight}; expected one above 0; leave it out instead")


def check_mean(mean: Tensor | None, width: int) -> None:
    """Refuse a mean of another width, or one that is not finite."""
    if mean is not None and (mean.shape != (width,) or not torch.isfinite(mean).all()):
        raise InterpToolkitError(
            f"expected a mean of shape ({width},) without NaN, as wide as the vectors, got shape {tuple(mean.shape)}"
        )


def draw_splits(count: int, val_fraction: float, seed: int) -> tuple[str, ...]:
    """A side for each of ``count`` vectors; the same seed, the same sides."""
    if not 0 <= val_fraction < 1:
        raise InterpToolkitError(f"expected a val_fraction from 0 up to 1, got {val_fraction}")
    chosen = np.full(count, "train", dtype=object)
    chosen[np.random.default_rng(seed).permutation(count)[: round(val_fraction * count)]] = "val"
    return tuple(chosen.tolist())


def _first(mask: Tensor) -> list[int]:
    return mask.nonzero()[:1].flatten().tolist()
