"""Held-out titles with their vectors, and those whose vector cannot be described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.tables import brief_repr


@dataclass(frozen=True)
class HeldOut:
    """Held-out titles with their vectors.

    Attributes:
        titles: those whose vector can be described.
        vectors: one per title, centred.
        failed: the others, each a ``title`` with a ``reason``.
    """

    titles: list[str]
    vectors: Tensor
    failed: list[dict[str, str]]

    __repr__ = brief_repr

    @classmethod
    def read(
        cls, context: EvalContext, adapter: Adapter, limit: int | None = None, titles: Sequence[str] | None = None
    ) -> HeldOut:
        """Read the vectors of titles where the adapter's vectors are read.

        Args:
            context: with the model and the titles.
            adapter: whose contract names the site.
            limit: how many of the first titles to read; by default all.
            titles: other titles than the held-out ones.

        Raises:
            InterpToolkitError: the adapter's contract names no site.
        """
        titles = list(context.titles.held_out if titles is None else titles)[:limit]
        vectors = centred_vectors(context, adapter, titles)
        usable = vectors.isfinite().all(1) & vectors.any(1)
        failed = [
            dict(title=title, reason="its vector is zero or not finite")
            for title, is_usable in zip(titles, usable.tolist())
            if not is_usable
        ]
        return cls([title for title, is_usable in zip(titles, usable.tolist()) if is_usable], vectors[usable], failed)


def centred_vectors(context: EvalContext, adapter: Adapter, titles: Sequence[str]) -> Tensor:
    """Topic vectors of titles at the adapter's site, centred by its mean, [titles, width].

    Args:
        context: with the model that reads the titles.
        adapter: with its contract.
        titles: topics.

    Raises:
        InterpToolkitError: the adapter's contract names no site.
    """
    contract = adapter.require_contract()
    site = contract.require_site()
    raw = topic_vectors(context.model, list(titles), site, chat=contract.chat, progress=context.progress)
    return contract.centre(raw)
