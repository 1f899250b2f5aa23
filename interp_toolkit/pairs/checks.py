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
    """Name a row for errors, where nothing better is known."""
    return f"vector {row}"


def group_labels(labels: Sequence[str | Sequence[str]]) -> Labels:
    """Group labels by vector; a single text counts as a list of one."""
    return tuple((x,) if isinstance(x, str) else tuple(x) for x in labels)


def check_shape(vectors: Tensor, labels: Sequence[object], where: str = "") -> None:
    """Refuse what is neither a matrix nor spans of vectors, or not as long as its labels.

    Args:
        vectors: to check.
        labels: one entry per vector.
        where: which vectors they are, for the error.

    Raises:
        InterpToolkitError: the text names both shapes.
    """
    if vectors.ndim not in (2, 3) or 0 in vectors.shape[1:] or len(labels) != len(vectors):
        raise InterpToolkitError(
            f"expected a matrix, or spans (n, tokens, width), with as many vectors as lists of labels{where}, got "
            f"vectors of shape {tuple(vectors.shape)} and {len(labels)} lists of labels"
        )


def check_values(rows: StoredRows, name: Name = vector_number, start: int = 0) -> None:
    """Refuse rows of NaN or zeros, reading one block at a time.

    Args:
        rows: to check.
        name: what an error calls a row.
        start: number of the first row.

    Raises:
        InterpToolkitError: the text names the first such row.
    """
    for block in rows.blocks():
        # The largest magnitude of a vector is NaN where any of its values is, so one pass finds both.
        largest = block.abs().amax(-1).reshape(len(block), -1)
        if bad := _first(~torch.isfinite(largest).all(1)):
            raise InterpToolkitError(f"{name(start + bad[0])} holds NaN or infinity; leave it out")
        if bad := _first((largest == 0).any(1)):
            raise InterpToolkitError(f"{name(start + bad[0])} is zero and has no direction; leave it out")
        start += len(block)


def check_labels(labels: Sequence[Sequence[Any]], name: Name = vector_number, start: int = 0) -> None:
    """Refuse a vector without labels, an empty label, and the same label twice for one vector.

    Args:
        labels: lists of texts, one per vector.
        name: what an error calls a row.
        start: number of the first row.

    Raises:
        InterpToolkitError: the text names the row.
    """
    for row, texts in enumerate(labels, start):
        if not texts or not all(isinstance(x, str) and x.strip() for x in texts):
            raise InterpToolkitError(f"{name(row)} needs at least one label and no empty one, got {texts!r}")
        stripped = [x.strip() for x in texts]
        if len(set(stripped)) < len(texts):
            twice = next(x for x in stripped if stripped.count(x) > 1)
            raise InterpToolkitError(
                f"{name(row)} has the label {twice!r} twice; list it once, and give the vector a weight if it is to "
                f"count for more"
            )


def check_splits_and_weights(splits: Sequence[Any], weights: Sequence[float], name: Name = vector_number) -> None:
    """Refuse a split other than ``"train"`` and ``"val"``, and a weight that is not above 0.

    Args:
        splits: one per vector.
        weights: one per vector, or none at all.
        name: what an error calls a row.

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
    """Draw which vectors are held out.

    Args:
        count: how many vectors there are.
        val_fraction: share of them to hold out, from 0 up to 1.
        seed: of the draw; the same seed, the same sides.

    Returns:
        ``"train"`` or ``"val"`` for each vector.

    Raises:
        InterpToolkitError: a fraction out of range.
    """
    if not 0 <= val_fraction < 1:
        raise InterpToolkitError(f"expected a val_fraction from 0 up to 1, got {val_fraction}")
    chosen = np.full(count, "train", dtype=object)
    chosen[np.random.default_rng(seed).permutation(count)[: round(val_fraction * count)]] = "val"
    return tuple(chosen.tolist())


def _first(mask: Tensor) -> list[int]:
    return mask.nonzero()[:1].flatten().tolist()


def check_questions(questions: Sequence[Any], count: int) -> None:
    """Refuse questions that are not as many texts as there are vectors.

    Args:
        questions: to check.
        count: of the vectors.

    Raises:
        InterpToolkitError: the text names both counts, or the first that is no text.
    """
    if len(questions) != count:
        raise InterpToolkitError(f"expected a question for each of {count} vectors, got {len(questions)}")
    for row, question in enumerate(questions):
        if not isinstance(question, str):
            raise InterpToolkitError(f"expected a text as the question of vector {row}, got {question!r:.80}")
