"""Means: what residual streams hold whatever a prompt is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.chat import list_prompts, prompt_ids
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.spans import contents
from interp_toolkit.sites import Place, Site, SiteLike, parse_sites
from interp_toolkit.torch_defaults import plain_defaults

Means = Mapping[Any, Tensor | np.ndarray]
"""What to take off at each site (or layer): [distances, d_model] by distance from a prompt's end, or [d_model]."""

# A mean over fewer prompts than this would hold too much of each.
_FEWEST = 8


@plain_defaults()
def site_means(
    model: Any, prompts: Iterable[str], sites: SiteLike | Sequence[SiteLike] | np.ndarray, *, chat: bool = False
) -> dict[Site, Float[Tensor, "distances d_model"]]:
    """What residual streams hold whatever a prompt is about: their means over neutral or other prompts.

    Each token's mean is over tokens as far from their prompt's end, since the last token of a question differs from
    the first whatever the question. The more alike the prompts are in form (the same question about other things), the
    more is left of what one of them is about when its mean is taken off; none should be among those read afterwards.

    Args:
        model: the hooked model.
        prompts: at least two texts.
        sites: where to read.
        chat: whether texts go through the chat template.

    Returns:
        for each site a row a distance from the prompt's end, in tokens; the last row is the mean of all tokens that
        are at least so far, of which there are too few at each distance. The template's tokens before the text are
        left out. For `self_explain`, which takes a mean a site, use ``means[site].mean(0)``.

    Raises:
        InterpToolkitError: fewer than two prompts, an empty one, or a site that the model does not have.

    Example:
        >>> means = site_means(model, other_prompts, [19, 23, 27])
        >>> find_bridge_entities(model, prompts, bridges, adapter, sites=[19, 23, 27], means=means)
    """
    prompts = list_prompts(prompts)
    if len(prompts) < 2:
        raise InterpToolkitError(f"expected at least two prompts to take a mean over, got {len(prompts)}")
    ids = prompt_ids(model.tokenizer, prompts, chat)
    starts = [start for start, _ in contents(model.tokenizer, ids, chat)]
    lengths = sorted((len(row) - start for row, start in zip(ids, starts)), reverse=True)
    rows = max(1, lengths[min(_FEWEST, len(lengths)) - 1])
    chosen = parse_sites(sites)
    read = read_activations(model, ids, chosen, "all")
    prompt, position = (read.table[name].to_numpy() for name in ("prompt", "position"))
    distance = np.array([len(row) for row in ids])[prompt] - 1 - position
    own = position >= np.array(starts)[prompt]
    means = {}
    for site in dict.fromkeys(chosen):
        here = torch.from_numpy(own & (read.table["site"] == str(site)).to_numpy())
        index = torch.from_numpy(distance.clip(max=rows - 1))[here]
        sums = torch.zeros(rows, read.vectors.shape[1]).index_add(0, index, read.vectors[here])
        means[site] = sums / index.bincount(minlength=rows)[:, None]
    return means


def mean_at(place: Place, contract: Contract, means: Mapping[Site, Tensor]) -> Tensor | None:
    """What is taken off at a place, a row per distance; None for the adapter's own mean.

    Args:
        place: that is read.
        contract: of the adapter.
        means: as `parse_means` gives them.

    Raises:
        InterpToolkitError: none is known.
    """
    if missing := [site for site in place.sites if site not in means]:
        if place == contract.site and len(missing) == len(place.sites):
            return None
        raise InterpToolkitError(
            f"no mean is known for {missing[0]}, and without one what all vectors share speaks loudest; pass "
            f"means=site_means(model, other_prompts, sites)"
        )
    parts = [torch.atleast_2d(means[site]) for site in place.sites]
    rows = max(map(len, parts))
    # The last row is of all tokens that are at least so far.
    return torch.cat([part[torch.arange(rows).clamp(max=len(part) - 1)] for part in parts], dim=1)
