"""Tokens already run: their keys and values, or what it takes to run them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.sites import Site

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

        def taken(x: Tensor) -> Tensor:
            return x.index_select(0, rows.to(x.device))  # layers may lie on several devices

        return KV(tuple((taken(k), taken(v)) for k, v in self.layers), self.length, self.prefix)

    def behind(self) -> tuple[KV | None, KV | None]:
        """Return the shared prefix and the keys and values per row, as a pass that continues from here sees them.

        A single row is a prefix that all rows of the pass share.
        """
        if self.prefix is None and self.batch == 1:
            return self, None
        return self.prefix, KV(self.layers, self.length)

    def whole(self, batch: int, axis: int) -> Layers:
        """Keys and values of all tokens for each of ``batch`` rows, copied together along the axis of positions."""
        prefix, per_row = self.behind()
        pieces = []
        if prefix:
            pieces.append([tuple(x.expand(batch, -1, -1, -1) for x in pair) for pair in prefix.layers])
        if per_row:
            pieces.append([tuple(x.narrow(axis, 0, per_row.length) for x in pair) for pair in per_row.layers])
        if len(pieces) == 1:
            return tuple((k, v) for k, v in pieces[0])
        return tuple((torch.cat([k1, k2], axis), torch.cat([v1, v2], axis)) for (k1, v1), (k2, v2) in zip(*pieces))


Edit = Callable[[Tensor], Tensor | None]
"""What a hook does to the stream at its site: a tensor [batch, position, d_model] in, its replacement (or None) out."""


@dataclass(frozen=True, kw_only=True)
class WholePast(KV):
    """Tokens already run, kept as tokens: whatever follows is run together with them in one pass.

    This stands in for keys and values where a user's hooks are on the model, which must see a sequence whole.

    Attributes:
        tokens: ids [rows, positions]; one row that all share, or one each.
        edits: what is done to the stream: first position, number of positions, site, and an edit. Edits of what more
            than one pass follows can ``take`` rows, as `SoftTokenEdit` can.
    """

    tokens: Tensor
    edits: tuple[tuple[int, int, Site, Any], ...] = ()

    @classmethod
    def from_tokens(cls, tokens: Tensor) -> WholePast:
        """Of tokens [rows, positions] to which nothing is done."""
        return cls((), tokens.shape[1], tokens=tokens)

    @property
    def batch(self) -> int:  # noqa: D102
        return len(self.tokens)

    def take(self, rows: Tensor) -> WholePast:  # noqa: D102
        edits = tuple((start, length, site, edit.take(rows)) for start, length, site, edit in self.edits)
        tokens = self.tokens.index_select(0, rows.to(self.tokens.device))
        return WholePast((), self.length, tokens=tokens, edits=edits)

    def followed_by(self, tokens: Tensor, edits: dict[Site, Edit]) -> WholePast:
        """This and ``tokens`` [batch, positions] behind it, with what is done to them."""
        before = self.tokens.expand(len(tokens), -1) if self.batch == 1 else self.tokens
        new = tuple((self.length, tokens.shape[1], site, edit) for site, edit in edits.items())
        together = torch.cat([before, tokens], 1)
        return WholePast((), together.shape[1], tokens=together, edits=(*self.edits, *new))

    def all_edits(self) -> dict[Site, Edit]:
        """What to do to the stream of the whole sequence, by site."""
        by_site: dict[Site, list[tuple[int, int, Edit]]] = {}
        for start, length, site, edit in self.edits:
            by_site.setdefault(site, []).append((start, length, edit))
        return {site: _in_ranges(ranges) for site, ranges in by_site.items()}


def _in_ranges(ranges: list[tuple[int, int, Edit]]) -> Edit:
    def edit_ranges(stream: Tensor) -> Tensor:
        for start, length, edit in ranges:
            end = start + length
            new = edit(stream[:, start:end])
            if new is not None:
                stream = torch.cat([stream[:, :start], new, stream[:, end:]], 1)
        return stream

    return edit_ranges
