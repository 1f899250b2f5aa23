"""Pairs for an adapter of a range of places: one mean for several sources, and sites of a stack on their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import SiteStack


def with_common_mean(pairs: Sequence[VectorLabelPairs]) -> list[VectorLabelPairs]:
    """Centre pairs of several sources by one mean, so that `VectorLabelPairs.concat` takes them together.

    The common mean is the mean of theirs, in which every source counts the same. What sets a source apart from the
    others stays in its vectors, and a trained bias and matrix can take it off.

    Args:
        pairs: sources with a mean each, read at the same place.

    Returns:
        The sources with their vectors in memory.

    Raises:
        InterpToolkitError: a source without a mean, or places that differ.

    Example:
        >>> VectorLabelPairs.concat(with_common_mean([topics, tokens]), ratios=[0.6, 0.4])
    """
    means = []
    for number, source in enumerate(pairs):
        if source.mean is None or source.site != pairs[0].site:
            raise InterpToolkitError(
                f"expected sources with a mean, read at one place, got source {number} "
                + ("without a mean" if source.mean is None else f"at {source.site} and source 0 at {pairs[0].site}")
            )
        means.append(source.mean)
    if not means:
        raise InterpToolkitError("expected at least one source of pairs, got none")
    common = torch.stack(means).mean(0)
    return [
        replace(source, stored=StoredRows.from_matrix(source.vectors + (mean - common)), mean=common)
        for source, mean in zip(pairs, means)
    ]


def with_sites_alone(pairs: VectorLabelPairs, share: float, seed: int = 0) -> VectorLabelPairs:
    """Leave one site of a stack in a share of the vectors, and set the others to zero.

    An adapter that is trained on them takes vectors of a single site, too (`Contract.filled`).

    Args:
        pairs: of a stack.
        share: of the vectors.
        seed: of the draw of vectors and sites.

    Returns:
        The pairs with their vectors in memory.

    Raises:
        InterpToolkitError: pairs of no stack, or a share that is none.
    """
    if not isinstance(pairs.site, SiteStack):
        raise InterpToolkitError(f"expected pairs of a stack of sites, got those of {pairs.site or 'no site'}")
    if not 0 <= share <= 1:
        raise InterpToolkitError(f"expected a share between 0 and 1, got {share}")
    sites = len(pairs.site.sites)
    generator = torch.Generator().manual_seed(seed)
    alone = torch.rand(len(pairs), generator=generator) < share
    kept_site = torch.randint(sites, (len(pairs),), generator=generator)
    left_out = alone[:, None] & (torch.arange(sites) != kept_site[:, None])
    by_site = pairs.vectors.view(len(pairs), sites, -1).masked_fill(left_out[:, :, None], 0.0)
    return replace(pairs, stored=StoredRows.from_matrix(by_site.flatten(1)))
