"""Which mean is subtracted from raw residual-stream vectors, by where they were read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.contract import Contract
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.sites import Place, Site, SiteStack

Means = Mapping[Any, Tensor | np.ndarray]
"""What to subtract from raw vectors, by site: a `Site`, a hook name or a layer number."""

OnMismatch = Literal["error", "warn"]
"""Whether to refuse what does not agree with an adapter's contract, or to warn and go on."""


def means_by_place(
    places: Sequence[Place], contract: Contract, center: Means | None = None, on_mismatch: OnMismatch = "error"
) -> dict[Place, Tensor | None]:
    """Return what is subtracted from raw vectors at every place, None for nothing.

    A mean that is passed for a place is used there. Otherwise the adapter's mean is used at the adapter's own place,
    and anywhere if its file names no place. A place that has neither is a mismatch.

    Args:
        places: where vectors were read, or are to be read.
        contract: of the adapter.
        center: means by site.
        on_mismatch: with ``"warn"``, nothing is subtracted at a place without a mean, and a warning says so.

    Raises:
        ContractError: a place that is not the adapter's and has no mean, with ``on_mismatch="error"``.
        InterpToolkitError: a mean that is not a vector of the model's width, or of a site that is not read; or another
            value of ``on_mismatch``.
    """
    if on_mismatch not in ("error", "warn"):
        raise InterpToolkitError(f"expected on_mismatch of 'error' or 'warn', got {on_mismatch!r}")
    passed = parse_means(center, [site for place in places for site in place.sites], contract.d_model)
    means: dict[Place, Tensor | None] = {}
    mismatched: list[Place] = []
    for place in places:
        sites_with_mean = [site for site in place.sites if site in passed]
        if sites_with_mean and len(sites_with_mean) == len(place.sites):
            means[place] = torch.cat([passed[site] for site in place.sites])
        elif sites_with_mean:
            raise InterpToolkitError(
                f"expected a mean for each site of {place}, got one for {sites_with_mean[0]} alone"
            )
        elif (trained := contract.reading_place(place)) is not None:
            means[place] = None if trained.mean is None else trained.mean.float().cpu()
        else:
            if isinstance(place, SiteStack) or isinstance(contract.site, SiteStack):
                contract.check_site(place)
            mismatched.append(place)
            means[place] = None
    if mismatched:
        differ = (
            f"the adapter was trained on vectors from {contract.site}, these are from {', '.join(map(str, mismatched))}"
        )
        if on_mismatch == "error":
            raise ContractError(
                f"{differ}; read that site, use an adapter for this one, pass the mean of its vectors as "
                f"center={{site: mean}}, or pass on_mismatch='warn' (--any-layer) to try it all the same"
            )
        warnings.warn(
            f"{differ}, without a mean: nothing is subtracted there, and what all vectors of a site share outweighs "
            f"what distinguishes them",
            stacklevel=3,
        )
    return means


def parse_means(
    means: Means | None, sites: Sequence[Site], d_model: int, *, by_distance: bool = False
) -> dict[Site, Tensor]:
    """Return means by `Site`, float32 on the CPU, each for one of the sites that are read.

    Args:
        means: by site, hook name or layer number.
        sites: the sites that are read.
        d_model: width of the residual stream.
        by_distance: whether a mean may have a row per distance from the prompt's end, some of which may be missing
            (NaN).

    Raises:
        InterpToolkitError: a site twice, or one that is not read; a mean of another shape, or not finite.
    """
    parsed = {}
    for site, mean in means_by_site(means).items():
        if site not in sites:
            raise InterpToolkitError(
                f"a mean is given for {site}, which is not read; the sites are {', '.join(map(str, sites))}"
            )
        if not isinstance(mean, (Tensor, np.ndarray)):
            raise InterpToolkitError(f"expected a tensor or an array as the mean for {site}, got {_kind(mean)}")
        value = torch.as_tensor(mean).detach().float().cpu()
        if value.shape != (d_model,) and not (by_distance and value.ndim == 2 and value.shape[1] == d_model):
            rows = f" or (distances, {d_model})" if by_distance else ""
            hint = "; of a mean per distance take .mean(0)" if value.ndim == 2 and not by_distance else ""
            raise InterpToolkitError(
                f"expected a mean of shape ({d_model},){rows} for {site}, got {tuple(value.shape)}{hint}"
            )
        if not by_distance and not value.isfinite().all():
            raise InterpToolkitError(f"the mean for {site} holds NaN or infinity; take it over other prompts")
        parsed[site] = value
    return parsed


def means_by_site(means: Means | None) -> dict[Site, Any]:
    """Return the same means with `Site` values as keys.

    Raises:
        InterpToolkitError: anything but a mapping, or two means for one site.
    """
    if means is not None and not isinstance(means, Mapping):
        raise InterpToolkitError(f"expected means by site, such as {{19: mean}}, got {_kind(means)}")
    by_site: dict[Site, Any] = {}
    for key, mean in (means or {}).items():
        if (site := Site.parse(key)) in by_site:
            raise InterpToolkitError(f"two means are given for {site}; expected one")
        by_site[site] = mean
    return by_site


def mean_by_distance(place: Place, contract: Contract, means: Mapping[Site, Tensor]) -> Tensor | None:
    """Return what is subtracted at a place, a row per distance from the prompt's end; None for nothing.

    That is the mean that was passed, or else the adapter's own for the place.

    Args:
        place: where vectors are read.
        contract: of the adapter.
        means: as `parse_means` returns them.

    Raises:
        InterpToolkitError: no mean is known for the place.
    """
    missing = [site for site in place.sites if site not in means]
    if missing:
        trained = contract.reading_place(place) if contract.site is not None else None
        if trained is not None and len(missing) == len(place.sites):
            return None if trained.mean is None else trained.mean.float().cpu()[None]
        raise InterpToolkitError(
            f"no mean is known for {missing[0]}, and without one what all vectors share outweighs what distinguishes "
            f"them; pass center=site_means(model, other_prompts, sites)"
        )
    by_site = [torch.atleast_2d(means[site]) for site in place.sites]
    rows = max(map(len, by_site))
    # The last row is the mean of all tokens that are at least so far from the end.
    return torch.cat([mean[torch.arange(rows).clamp(max=len(mean) - 1)] for mean in by_site], dim=1)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"
