"""Held-out titles with their vectors, and those that have none worth describing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import Bench
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.tables import brief_repr


@dataclass(frozen=True)
class Held:
    """Held-out titles with their vectors.

    Attributes:
        titles: those whose vector can be described.
        vectors: one a title, centred.
        failed: the others, each a ``title`` with a ``reason``.
    """

    titles: list[str]
    vectors: Tensor
    failed: list[dict[str, str]]

    __repr__ = brief_repr

    @classmethod
    def read(cls, bench: Bench, adapter: Adapter, most: int | None = None, titles: Sequence[str] | None = None) -> Held:
        """The first ``most`` held-out titles, or of other ``titles``, where the adapter's vectors are read.

        Raises:
            InterpToolkitError: the adapter's contract names no site.
        """
        contract = adapter.contract
        if contract is None or contract.site is None:
            raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
        titles = list(bench.titles.held if titles is None else titles)[:most]
        raw = topic_vectors(bench.model, titles, contract.site, chat=contract.chat, progress=bench.progress)
        vectors = contract.centre(raw)
        good = vectors.isfinite().all(1) & vectors.any(1)
        failed = [
            dict(title=title, reason="its vector is zero or not finite")
            for title, whole in zip(titles, good.tolist())
            if not whole
        ]
        return cls([title for title, whole in zip(titles, good.tolist()) if whole], vectors[good], failed)
