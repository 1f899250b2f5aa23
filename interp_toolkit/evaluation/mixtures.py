"""Several concepts in one vector: which of them is named, and from what share on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.protocols import description_ranks
from interp_toolkit.statistics import proportion_interval
from interp_toolkit.torch_defaults import plain_defaults

SHARES = (0.1, 0.25, 0.5)
SAMPLES = (1, 6)
MIXTURE, TAKEN_OUT = "mixture", "first taken out"

Describe = Callable[[Tensor, int], Sequence[Sequence[str]]]
"""Vectors [n, width] and how many samples (1: greedy) to the descriptions of each."""
Named = Callable[[Sequence[Sequence[str]], Sequence[str]], Sequence[bool]]
"""The descriptions of each vector and a label for each, to whether any of a vector's descriptions names its label."""


@plain_defaults()
def mix(
    first: Float[Tensor, "n width"], second: Float[Tensor, "n width"], share: float, sites: int = 1
) -> Float[Tensor, "n width"]:
    """(1 - a) x1^ + a x2^, with a the share of the second; at each site of a stack alone.

    Args:
        first: centred vectors, the parts of a stack's sites side by side.
        second: likewise.
        share: from 0 to 1.
        sites: how many sites a vector was read at.

    Raises:
        InterpToolkitError: another share.
    """
    if not 0 <= share <= 1:
        raise InterpToolkitError(f"expected a share of the second vector from 0 to 1, got {share}")
    return (1 - share) * _directions(first, sites) + share * _directions(second, sites)


@plain_defaults()
def take_out(
    vectors: Float[Tensor, "n width"], first: Float[Tensor, "n width"], sites: int = 1
) -> Float[Tensor, "n width"]:
    """What is left of each vector when its part along x1^ is taken out; at each site of a stack alone."""
    parts, along = (x.unflatten(-1, (sites, -1)) for x in (vectors, _directions(first, sites)))
    return (parts - (parts * along).sum(-1, keepdim=True) * along).flatten(-2)


@plain_defaults()
def mixture_table(
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    describe: Describe,
    named: Named,
    shares: Sequence[float] = SHARES,
    samples: Sequence[int] = SAMPLES,
) -> pd.DataFrame:
    """How often each of two concepts in one vector is named, and a third that is not in it.

    Each vector is the first of one pair; its second is the next in the list, and the one after that the control, so
    give them in random order. Each is the first, the second and the control once. The first is also taken out of the
    mixture, and the rest described.

    Args:
        adapter: for how many sites, and that it normalises.
        vectors: centred, of at least three concepts.
        labels: one a vector, none twice.
        describe: see `Describe`.
        named: see `Named`, for example `named_within`.
        shares: of the second in the mixture. The first alone, share 0, is always told too.
        samples: descriptions a vector: 1 greedy one, or so many samples of which any may name the label.

    Returns:
        one row a share, what and samples: columns ``vector`` (``mixture``, or ``first taken out``, where ``share`` is
        1, since what is left has the same direction whatever the share was), ``share`` (of the second), ``what``
        (``first``, ``second``, ``control``), ``samples``, ``value`` (the share of vectors that name it), ``low``,
        ``high`` (95% Wilson interval), ``n``.

    Raises:
        InterpToolkitError: an adapter that does not normalise, fewer than three vectors, or labels that do not fit.

    Example:
        >>> describe = lambda vectors, samples: bench.describe(adapter, vectors, samples).texts
        >>> mixture_table(adapter, vectors, titles, describe, named_within(1, embed, index, entries))
    """
    if not adapter.config.normalize:
        raise InterpToolkitError(
            "expected an adapter that normalises: mixtures are of directions, and this one takes lengths as they are"
        )
    if len(vectors) < 3 or len(set(labels)) != len(vectors) or len(labels) != len(vectors):
        raise InterpToolkitError(
            f"expected at least three vectors with a label each, none twice, got {len(vectors)} vectors and "
            f"{len(labels)} labels, {len(set(labels))} of them different"
        )
    sites = adapter.config.sites
    second = vectors.roll(-1, 0)
    told = {(MIXTURE, share): mix(vectors, second, share, sites) for share in dict.fromkeys([0.0, *shares])}
    told[TAKEN_OUT, 1.0] = take_out(_directions(second, sites), vectors, sites)
    asked = {what: [*labels[i:], *labels[:i]] for i, what in enumerate(("first", "second", "control"))}
    rows = []
    for (kind, share), given in told.items():
        for count in samples:
            texts = describe(given, count)
            for what, wanted in asked.items():
                of = dict(vector=kind, share=share, what=what, samples=count)
                rows.append(of | proportion_interval(named(texts, wanted)).to_dict())
    return pd.DataFrame(rows).drop(columns=["clusters", "seed"])


def named_within(
    k: int, embed: Callable[[list[str]], Tensor], index: Float[Tensor, "entries width"], entries: Sequence[str]
) -> Named:
    """A `Named` for which a label is named where a description finds it among the first k entries of an index.

    Args:
        k: 1 for the first alone.
        embed: from texts to their embeddings, [texts, width].
        index: embeddings of the entries, from the same embedder.
        entries: texts of the index, each label among them.
    """
    number = {entry: i for i, entry in enumerate(entries)}

    def named(descriptions: Sequence[Sequence[str]], labels: Sequence[str]) -> list[bool]:
        if missing := [label for label in labels if label not in number]:
            raise InterpToolkitError(f"the label {missing[0]!r} is no entry of the index, so it cannot be found there")
        answers = torch.tensor([number[label] for label in labels])
        return (description_ranks(descriptions, embed, index, answers) <= k).any(1).tolist()

    return named


def _directions(vectors: Tensor, sites: int) -> Tensor:
    """x^, each site's part alone."""
    return torch.nn.functional.normalize(vectors.float().unflatten(-1, (sites, -1)), dim=-1).flatten(-2)
