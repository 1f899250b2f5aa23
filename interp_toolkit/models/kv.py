"""Keys and values of tokens already run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class KV:
    """Keys and values of tokens already run: a part of one row that all rows share, and a part of each row's own.

    Attributes:
        layers: (keys, values) of each layer with the batch in front, in the order of axes of the class that made them;
            room for further tokens may stand behind those that count.
        length: number of tokens that count.
        prefix: the shared part before them, a single row; None where there is none.
    """

    layers: Layers
    length: int
    prefix: KV | None = None

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.layers[0][0].shape[0]

    @property
    def total(self) -> int:
        """Number of tokens, the shared ones included."""
        return self.length + (self.prefix.length if self.prefix else 0)

    def take(self, rows: Tensor) -> KV:
        """The given rows, in that order; the shared part stays shared."""
        layers = tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.layers)
        return KV(layers, self.length, self.prefix)

    def behind(self) -> tuple[KV | None, KV | None]:
        """(prefix, own) as a pass that goes on from here sees them: a single row is shared by all rows of the pass."""
        if self.prefix is None and self.batch == 1:
            return self, None
        return self.prefix, KV(self.layers, self.length)

    def whole(self, batch: int, axis: int) -> Layers:
        """Keys and values of all tokens for each of ``batch`` rows, copied together along the axis of positions."""
        prefix, own = self.behind()
        parts = []
        if prefix:
            parts.append([tuple(x.expand(batch, -1, -1, -1) for x in pair) for pair in prefix.layers])
        if own:
            parts.append([tuple(x.narrow(axis, 0, own.length) for x in pair) for pair in own.layers])
        if len(parts) == 1:
            return tuple((k, v) for k, v in parts[0])
        return tuple((torch.cat([k1, k2], axis), torch.cat([v1, v2], axis)) for (k1, v1), (k2, v2) in zip(*parts))
