"""Rows of matrices that may be larger than memory, read when they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Values of one block: 64 MB in float32, whatever the width.
_BLOCK = 2**24


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A choice of rows from matrices that stay where they are, in memory or in a mapped file.

    Attributes:
        matrices: [rows, width] of one width, or [rows, span, width] of one span, of any floating type.
        index: which rows, counted through all matrices.
    """

    matrices: tuple[Tensor, ...]
    index: Int64[Tensor, " n"]

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> StoredRows:
        """Take all rows of one matrix, which is not copied."""
        return cls((matrix,), torch.arange(len(matrix)))

    @classmethod
    def concat(cls, choices: Sequence[StoredRows]) -> StoredRows:
        """Take the rows of several choices, one after another."""
        indices, start = [], 0
        for rows in choices:
            indices.append(rows.index + start)
            start += sum(map(len, rows.matrices))
        return cls(tuple(matrix for rows in choices for matrix in rows.matrices), torch.cat(indices))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row: (width,), or (span, width)."""
        return tuple(self.matrices[0].shape[1:])

    @property
    def width(self) -> int:
        """Width of the vectors."""
        return self.shape[-1]

    @property
    def span(self) -> int:
        """How many vectors are one row: those of several tokens of one text, in order."""
        return self.shape[0] if len(self.shape) > 1 else 1

    def take(self, rows: Sequence[int] | Tensor) -> StoredRows:
        """Choose from this choice; no value is read."""
        return StoredRows(self.matrices, self.index[torch.as_tensor(rows, dtype=torch.long)])

    def gather(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "rows *vectors"]:
        """Read the values of some rows, float32."""
        index = self.index[torch.as_tensor(rows, dtype=torch.long)]
        if len(self.matrices) == 1:
            return self.matrices[0].index_select(0, index).float()
        values, start = torch.empty(len(index), *self.shape), 0
        for matrix in self.matrices:
            inside = (index >= start) & (index < start + len(matrix))
            values[inside] = matrix.index_select(0, index[inside] - start).float()
            start += len(matrix)
        return values

    def blocks(self) -> Iterator[Tensor]:
        """Yield the values of all rows, float32, a block of them at a time."""
        step = max(1, _BLOCK // math.prod(self.shape))
        for start in range(0, len(self), step):
            yield self.gather(range(start, min(start + step, len(self))))
