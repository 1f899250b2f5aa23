"""Mixtures: which of several concepts in one vector is named, and from which share on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import SEED, TEMPERATURE, EvalContext
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import description_ranks
from interp_toolkit.statistics import proportion_interval
from interp_toolkit.torch_defaults import plain_defaults

SHARES = (0.1, 0.25, 0.5)
SAMPLES = (1, 6)
MIXTURE, PROJECTED = "mixture", "first taken out"
# Pairs: five vectors each are described, by one greedy text and by six samples. Whole shards of vectors.
_MEASURED = 512
# A title is named if a description finds it among so many.
_WITHIN = (1, 10)
_EXAMPLES = 12

Describe = Callable[[Tensor, int], Sequence[Sequence[str]]]
"""Vectors [n, width] and how many samples (1: greedy) to the descriptions of each."""
Named = Callable[[Sequence[Sequence[str]], Sequence[str]], Sequence[bool]]
"""The descriptions of each vector and a label for each, to whether any of a vector's descriptions names its label."""


@plain_defaults()
def mix(
    first: Float[Tensor, "n width"], second: Float[Tensor, "n width"], share: float, sites: int = 1
) -> Float[Tensor, "n width"]:
    """Mix two directions: (1 - a) x1^ + a x2^, with a the share of the second; each site of a stack by itself.

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
def project_out(
    vectors: Float[Tensor, "n width"], first: Float[Tensor, "n width"], sites: int = 1
) -> Float[Tensor, "n width"]:
    """Remove from each vector its component along x1^, x - (x . x1^) x1^; each site of a stack by itself.

    Args:
        vectors: [n, width].
        first: the directions x1 to remove, of any length.
        sites: how many sites a vector was read at.
    """
    by_site, direction = (x.unflatten(-1, (sites, -1)) for x in (vectors, _directions(first, sites)))
    return (by_site - (by_site * direction).sum(-1, keepdim=True) * direction).flatten(-2)


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
    """Tabulate how often each of two concepts in one vector is named, and a third that is not in it.

    Each vector is the first of one pair; its second is the next in the list, and the one after that the control, so
    give them in random order. Each is the first, the second and the control once. The first is also projected out of
    the mixture, and the rest is described.

    Args:
        adapter: for how many sites, and that it normalises.
        vectors: centred, of at least three concepts.
        labels: one per vector, none twice.
        describe: see `Describe`.
        named: see `Named`, for example `named_within`.
        shares: of the second in the mixture. The first alone, share 0, is always measured too.
        samples: descriptions per vector: 1 greedy one, or so many samples of which any may name the label.

    Returns:
        one row per share, what and samples: columns ``vector`` (``mixture``, or ``first taken out``, where ``share`` is
        1, since what is left has the same direction whatever the share was), ``share`` (of the second), ``what``
        (``first``, ``second``, ``control``), ``samples``, ``value`` (the share of vectors that name it), ``low``,
        ``high`` (95% Wilson interval), ``n``.

    Raises:
        InterpToolkitError: an adapter that does not normalise, fewer than three vectors, or labels that do not fit.

    Example:
        >>> describe = lambda vectors, samples: context.describe(adapter, vectors, samples).texts
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
    mixtures = {(MIXTURE, share): mix(vectors, second, share, sites) for share in dict.fromkeys([0.0, *shares])}
    mixtures[PROJECTED, 1.0] = project_out(_directions(second, sites), vectors, sites)
    targets = {what: [*labels[i:], *labels[:i]] for i, what in enumerate(("first", "second", "control"))}
    rows = []
    for (kind, share), mixed in mixtures.items():
        for count in samples:
            texts = describe(mixed, count)
            for what, target in targets.items():
                row = dict(vector=kind, share=share, what=what, samples=count)
                rows.append(row | proportion_interval(named(texts, target)).to_dict())
    return pd.DataFrame(rows).drop(columns=["clusters", "seed"])


def named_within(
    k: int, embed: Callable[[list[str]], Tensor], index: Float[Tensor, "entries width"], entries: Sequence[str]
) -> Named:
    """Make a `Named` by which a label is named where a description finds it among the first k entries of an index.

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
    """x^, each site by itself."""
    return torch.nn.functional.normalize(vectors.float().unflatten(-1, (sites, -1)), dim=-1).flatten(-2)


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    return context.facts | dict(
        task="mixtures",
        adapter=adapter.digest,
        n=len(context.titles.held_out[:_MEASURED]),
        shares=list(SHARES),
        samples=list(SAMPLES),
        temperature=TEMPERATURE,
        within=list(_WITHIN),
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Describe mixtures of held-out titles' vectors, and look for both titles and for a third.

    Returns:
        ``tables``: ``mixtures`` (see `mixture_table`, with a column ``named`` for what counts as naming); ``failed``
        rows; and ``examples`` of halves.
    """
    held_out = HeldOut.read(context, adapter, _MEASURED)
    tables = [
        mixture_table(
            adapter,
            held_out.vectors,
            held_out.titles,
            lambda vectors, samples: context.describe(adapter, vectors, samples).texts,
            named_within(k, context.embed, context.index, context.titles.index),
        ).assign(named=f"within {k}", seed=SEED)
        for k in _WITHIN
    ]
    halves = mix(held_out.vectors, held_out.vectors.roll(-1, 0), 0.5, adapter.config.sites)
    texts = context.describe_greedily(adapter, halves)[:_EXAMPLES]
    return dict(
        tables=dict(mixtures=pd.concat(tables)),
        failed=held_out.failed,
        examples=[
            dict(first=first, second=second, half_and_half=text)
            for first, second, text in zip(held_out.titles, held_out.titles[1:], texts)
        ],
    )


EVALUATION = Evaluation(_settings, _measure)
