"""Vectors whose descriptions can be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.tokens.reading import TextToken, names
from interp_toolkit.confidence import TokenKind
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.reading_place import ReadingPlace
from interp_toolkit.sites import Place, SiteStack


@dataclass(frozen=True, eq=False)
class Questions:
    """Vectors whose descriptions can be right or wrong.

    Attributes:
        token: which tokens they are of.
        raw: raw vectors of the adapter's stack, [n, width]; of directions what they are at their site.
        titles: the right title of each, at the last token of a turn.
        words: of any other vector the words of which a right description names one.
        site: where directions are from; None for vectors that may be read at any place.
    """

    token: TokenKind
    raw: Tensor
    titles: Sequence[str] = ()
    words: Sequence[tuple[str, ...]] = ()
    site: Place | None = None

    def first(self, count: int) -> Questions:
        """The first so many."""
        return replace(self, raw=self.raw[:count], titles=self.titles[:count], words=self.words[:count])

    def shuffled(self, seed: int) -> Questions:
        """The questions in an order drawn by a seed."""
        order = torch.randperm(len(self.raw), generator=torch.Generator().manual_seed(seed)).tolist()
        titles, words = ([rows[i] for i in order] if rows else rows for rows in (self.titles, self.words))
        return replace(self, raw=self.raw[order], titles=titles, words=words)

    def values(self, contract: Contract, place: ReadingPlace) -> Tensor:
        """The vectors as the adapter takes them from one of its places."""
        return at_place(contract, self.raw, place) if self.site is None else contract.filled(self.raw, self.site)

    def right(self, context: EvalContext, samples: Sequence[Sequence[str]]) -> np.ndarray:
        """Whether each of the samples of each vector names the title, first among all, or one of the words."""
        if self.words:
            return np.array(
                [
                    any(names(text, word) for word in words)
                    for texts, words in zip(samples, self.words)
                    for text in texts
                ]
            )
        answers = context.answers([title for title, texts in zip(self.titles, samples) for _ in texts])
        return (context.ranks([[text] for texts in samples for text in texts], answers)[:, 0] <= 1).numpy()


def of_tokens(tokens: Sequence[TextToken], raw: Tensor) -> Questions:
    """Tokens of texts, whose right descriptions name their words."""
    return Questions("text", raw, words=[(token.word,) for token in tokens])


def at_place(contract: Contract, raw: Tensor, place: ReadingPlace) -> Tensor:
    """Raw vectors of the stack as the adapter takes them from one of its places."""
    if isinstance(place.site, SiteStack):
        return contract.centre(raw)
    number = contract.require_site().sites.index(place.site)
    part = raw[:, number * contract.d_model : (number + 1) * contract.d_model]
    return contract.filled(part if place.mean is None else part - place.mean, place.site)
