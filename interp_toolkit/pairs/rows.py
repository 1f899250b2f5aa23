"""Rows of matrices that may be larger than memory, fetched when they are asked for."""

from __future__ import annotations

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
        parts: matrices of one width, of any floating type.
        index: which rows, counted through all the parts.
    """

    parts: tuple[Tensor, ...]
    index: Int64[Tensor, " n"]

    @classmethod
    def of(cls, matrix: Tensor) -> StoredRows:
        """All rows of one matrix, which is not copied."""
        return cls((matrix,), torch.arange(len(matrix)))

    @classmethod
    def join(cls, chosen: Sequence[StoredRows]) -> StoredRows:
        """The rows of each, one after another."""
        indices, start = [], 0
        for rows in chosen:
            indices.append(rows.index + start)
            start += sum(map(len, rows.parts))
        return cls(tuple(part for rows in chosen for part in rows.parts), torch.cat(indices))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """Width of the rows."""
        return self.parts[0].shape[1]

    def take(self, rows: Sequence[int] | Tensor) -> StoredRows:
        """A choice from this choice; no value is read."""
        return StoredRows(self.parts, self.index[torch.as_tensor(rows, dtype=torch.long)])

    def gather(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "rows width"]:
        """The values of some rows, float32."""
        at = self.index[torch.as_tensor(rows, dtype=torch.long)]
        if len(self.parts) == 1:
            return self.parts[0].index_select(0, at).float()
        out, start = torch.empty(len(at), self.width), 0
        for part in self.parts:
            here = (at >= start) & (at < start + len(part))
            out[here] = part.index_select(0, at[here] - start).float()
            start += len(part)
        return out

    def blocks(self) -> Iterator[Tensor]:
        """The values of all rows, float32, a block of them at a time."""
        step = max(1, _BLOCK // self.width)
        for start in range(0, len(self), step):
            yield self.gather(range(start, min(start + step, len(self))))
