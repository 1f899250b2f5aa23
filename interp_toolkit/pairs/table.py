"""Labels in a data frame: one row per vector, or several rows with the number of their vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError


@dataclass
class LabelTable:
    """What a data frame says of vectors, in the order in which it first names them.

    Attributes:
        index: number of each vector.
        labels: its labels.
        splits: its side, or None where the frame has no such column.
        weights: its weight, likewise.
    """

    index: list[int]
    labels: list[list[str]] = field(default_factory=list)
    splits: list[str] | None = None
    weights: list[float] | None = None


def read_frame(
    frame: pd.DataFrame, count: int, label: str, index: str | None, split: str | None, weight: str | None
) -> LabelTable:
    """Read the labels of vectors from columns of a data frame.

    Args:
        frame: the data frame.
        count: how many vectors there are.
        label: column of texts, or of lists of them.
        index: column of the numbers of vectors; None for one row per vector, in order.
        split: column of splits, or None.
        weight: column of weights, or None.

    Raises:
        InterpToolkitError: a column that is not there, a number past the end, a row without a label, rows of one vector
            that differ in split or weight; the text names the row, counted from 0.
    """
    for column in (label, index, split, weight):
        if column is not None and column not in frame.columns:
            raise InterpToolkitError(f"the data frame has no column {column!r}; it has {list(map(str, frame.columns))}")
    if index is None and len(frame) != count:
        raise InterpToolkitError(
            f"expected one row of the data frame per vector, got {len(frame)} rows and {count} vectors; name the "
            f"column with the vectors' numbers (index_column) if a vector has several rows or none"
        )
    numbers = range(count) if index is None else _numbers(frame[index].tolist(), index, count)
    at = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
    labels: list[list[str]] = [[] for _ in at]
    for row, (number, cell) in enumerate(zip(numbers, frame[label])):
        labels[at[number]] += _texts(cell, row, label)
    return LabelTable(
        index=list(at),
        labels=labels,
        splits=None if split is None else _one_each(frame[split].tolist(), numbers, split),
        weights=None if weight is None else [float(x) for x in _one_each(frame[weight].tolist(), numbers, weight)],
    )


def _numbers(column: list[Any], name: str, count: int) -> list[int]:
    for row, x in enumerate(column):
        if not isinstance(x, Integral) or isinstance(x, bool):
            raise InterpToolkitError(f"row {row} of the data frame: expected a whole number in {name!r}, got {x!r}")
        if not 0 <= int(x) < count:
            raise InterpToolkitError(
                f"row {row} of the data frame: {name} {x} is past the end of the {count} vectors, numbered 0 to "
                f"{count - 1}"
            )
    return [int(x) for x in column]


def _texts(cell: Any, row: int, name: str) -> list[str]:
    if isinstance(cell, str):
        return [cell]
    if not isinstance(cell, Iterable):  # None, NaN and NA are what a frame has for nothing
        raise InterpToolkitError(f"row {row} of the data frame has no label in {name!r}, but {cell}; leave it out")
    return list(cell)


def _one_each(column: list[Any], numbers: Sequence[int], name: str) -> list[Any]:
    """One value per vector, in the order in which the vectors are first named."""
    values: dict[int, Any] = {}
    for row, (number, value) in enumerate(zip(numbers, column)):
        if values.setdefault(number, value) != value:
            raise InterpToolkitError(
                f"row {row} of the data frame: vector {number} has {name} {value!r}, and {values[number]!r} in a row "
                f"before; a vector has one"
            )
    return list(values.values())
