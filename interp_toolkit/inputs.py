"""What `self_explain` is asked about: prompts, vectors or activations, as centred vectors with where each is from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.activations import Activations
from interp_toolkit.chat import Prompt
from interp_toolkit.contract import Contract
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.sites import Place, Site, SiteStack, parse_place

Means = Mapping[Any, Tensor | np.ndarray]
"""What to take off raw vectors, by site: a `Site`, a hook name or a layer number."""

# Raw residual streams at the last token have a cosine of 0.8 and more to the mean of the adapters that ship, centred
# ones of at most 0.3.
_HOLDS_MEAN = 0.5


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors as an adapter takes them, with where each is from.

    Attributes:
        values: [n, width], float32 on the CPU.
        sources: what each was read from, or ``vector 3``.
        sites: names; empty for vectors that were given.
        positions: from the prompt's first token; -1 for vectors that were given.
        as_trained: whether each is from the adapter's site and centred by its mean, as those in training were. Of
            vectors that were given this is taken on trust, unless the mean is plainly still in them.
    """

    values: Tensor
    sources: list[str]
    sites: list[str]
    positions: list[int]
    as_trained: list[bool]


def vectors_among(inputs: Any) -> tuple[Any, Tensor | None]:
    """The inputs, a generator as a list, and the vectors that they are; None where they are prompts.

    Raises:
        InterpToolkitError: arrays that are neither vectors nor token ids, or vectors of different shapes.
    """
    if isinstance(inputs, (Tensor, np.ndarray)):
        return inputs, _tensor(inputs, "the array")
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
        return inputs, None
    # A data frame is refused as prompts; a column stays one, since of its rows each is a prompt.
    rows = inputs if hasattr(inputs, "iloc") else list(inputs)
    first = next(iter(rows), None)
    if not isinstance(first, (Tensor, np.ndarray)) or _tensor(first, "vector 0") is None:
        return rows, None
    blocks = []
    for i, row in enumerate(rows):
        block = _tensor(row, f"vector {i}") if isinstance(row, (Tensor, np.ndarray)) else None
        if block is None or block.ndim not in (1, 2) or block.shape[-1] != first.shape[-1]:
            raise InterpToolkitError(
                f"expected vectors of one width, got {_kind(first)} first and {_kind(row)} for vector {i}"
            )
        blocks.append(block.detach().float().cpu().reshape(-1, block.shape[-1]))
    return rows, torch.cat(blocks)


def given_vectors(vectors: Tensor, contract: Contract, width: int, raw: bool) -> Vectors:
    """Vectors that were given, centred where they are raw.

    Raises:
        InterpToolkitError: another shape, a vector that is zero or not finite, or no mean to take off.
    """
    values = vectors.detach().float().cpu()
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != width:
        raise InterpToolkitError(
            f"expected vectors of shape (n, {width}) or ({width},), got {tuple(vectors.shape)}; "
            f"the adapter is for {contract.model_id} at {contract.site or 'any site'}"
        )
    if raw and contract.mean is None:
        raise InterpToolkitError("raw=True asks for the adapter's mean to be taken off, and this adapter has none")
    values = contract.centre(values) if raw else values
    _require_directions(values)
    centred = torch.ones(len(values), dtype=torch.bool)
    if contract.mean is not None and not raw:
        mean = contract.mean.float().cpu()[None]
        centred = torch.nn.functional.cosine_similarity(values, mean) < _HOLDS_MEAN
    n = len(values)
    return Vectors(values, [f"vector {i}" for i in range(n)], [""] * n, [-1] * n, centred.tolist())


def read_vectors(
    read: Activations,
    contract: Contract,
    width: int,
    *,
    means: Means | None = None,
    any_site: bool = False,
    source: Callable[[int], str] = "prompt {}".format,
) -> Vectors:
    """Activations, which are raw, centred by one rule: see `centring`.

    Args:
        read: at the adapter's places, or at others that have a mean.
        contract: of the adapter.
        width: of its vectors.
        means: by site.
        any_site: whether other sites may be read without a mean.
        source: the text of a prompt by its number.

    Raises:
        ContractError: a site that is not the adapter's and has no mean.
        InterpToolkitError: another width, a table that does not fit the vectors, means that do not fit the sites, or a
            vector that is not finite.
    """
    table = read.table
    if lacking := [name for name in ("prompt", "site", "position") if name not in table]:
        raise InterpToolkitError(f"expected activations whose table has columns prompt, site and position, without "
                                 f"{lacking[0]!r}; see read_activations")  # fmt: skip
    if len(read.vectors) != len(table):
        raise InterpToolkitError(
            f"expected a row of the table for each vector, got {len(read.vectors)} vectors and {len(table)} rows; "
            f"choose the same rows of both"
        )
    names = table["site"].tolist()
    places = {name: parse_place(name) for name in dict.fromkeys(names)}
    take_off = centring(list(places.values()), contract, means, any_site)
    if len(read.vectors) and read.vectors.shape[1:] != (width,):
        raise InterpToolkitError(
            f"expected activations of shape (n, {width}), got {tuple(read.vectors.shape)}; the adapter is for "
            f"{contract.model_id} at {contract.site or 'any site'}"
        )
    values = read.vectors.detach().float().cpu().clone()
    for name, place in places.items():
        if (mean := take_off[place]) is not None:
            values[torch.tensor([other == name for other in names])] -= mean
    _require_directions(values)
    given = _by_site(means)
    usual = {name: place == contract.site and not set(place.sites) & set(given) for name, place in places.items()}
    sources = table["source"].tolist() if "source" in table else [source(i) for i in table["prompt"].tolist()]
    return Vectors(values, sources, names, table["position"].tolist(), [usual[name] for name in names])


def centring(
    places: Sequence[Place], contract: Contract, means: Means | None = None, any_site: bool = False
) -> dict[Place, Tensor | None]:
    """What is taken off raw vectors at each place, None for nothing.

    A mean that is given for a place is taken off; at the adapter's own place (or anywhere, if its file names none) else
    the adapter's. A place that has neither is refused unless ``any_site``, and then nothing is taken off: the direction
    that all its vectors share would outweigh what tells them apart.

    Raises:
        ContractError: a place that is not the adapter's and has no mean.
        InterpToolkitError: a mean that is not a vector of the model's width, or of a site that is not read.
    """
    given = parse_means(means, [site for place in places for site in place.sites], contract.d_model)
    out: dict[Place, Tensor | None] = {}
    others = []
    for place in places:
        named = [site for site in place.sites if site in given]
        if named and len(named) == len(place.sites):
            out[place] = torch.cat([given[site] for site in place.sites])
        elif named:
            raise InterpToolkitError(f"expected a mean for each site of {place}, got one for {named[0]} alone")
        elif contract.site in (place, None):
            out[place] = None if contract.mean is None else contract.mean.float().cpu()
        else:
            if isinstance(place, SiteStack) or isinstance(contract.site, SiteStack):
                contract.check_site(place)
            others.append(place)
            out[place] = None
    if others and not any_site:
        raise ContractError(
            f"the adapter was trained on vectors from {contract.site}, these are from {', '.join(map(str, others))}; "
            f"read that site, use an adapter for this one, pass the mean of its vectors as means={{site: mean}}, or "
            f"pass any_site=True (--any-layer) to try it all the same"
        )
    return out


def parse_means(
    means: Means | None, sites: Sequence[Site], d_model: int, *, by_distance: bool = False
) -> dict[Site, Tensor]:
    """Means by `Site`, float32 on the CPU, each for one of the sites that are read.

    Args:
        means: by site, hook name or layer number.
        sites: that are read.
        d_model: width of the residual stream.
        by_distance: whether a mean may have a row per distance from the prompt's end, some of which may be missing
            (NaN).

    Raises:
        InterpToolkitError: a site twice, or one that is not read; a mean of another shape, or not finite.
    """
    out = {}
    for site, mean in _by_site(means).items():
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
        out[site] = value
    return out


def prompt_title(prompt: Prompt) -> str:
    """A prompt as the source of its vectors: the text, the last message, or the ids."""
    if isinstance(prompt, str):
        return prompt
    last: Any = prompt[-1]
    return str(last.get("content", "")) if isinstance(last, Mapping) else " ".join(str(int(x)) for x in prompt)  # type: ignore[arg-type]


def _by_site(means: Means | None) -> dict[Site, Any]:
    if means is not None and not isinstance(means, Mapping):
        raise InterpToolkitError(f"expected means by site, such as {{19: mean}}, got {_kind(means)}")
    out: dict[Site, Any] = {}
    for key, mean in (means or {}).items():
        if (site := Site.parse(key)) in out:
            raise InterpToolkitError(f"two means are given for {site}; expected one")
        out[site] = mean
    return out


def _tensor(array: Tensor | np.ndarray, name: str) -> Tensor | None:
    """An array of real numbers as a tensor; None for whole numbers, which are token ids, and for texts."""
    if isinstance(array, np.ndarray):
        if array.dtype == object and array.ndim == 2 and array.size and isinstance(array.flat[0], float):
            array = array.astype(float)  # a column of vectors, as pandas gives it
        if array.dtype.kind in "iuOUT":
            return None
        if array.dtype.kind != "f":
            raise InterpToolkitError(f"expected real numbers in {name}, got {array.dtype}")
        return torch.from_numpy(array.astype(np.float64)).float()  # a copy, since the array may be read-only
    if array.is_floating_point():
        return array
    if array.is_complex() or array.dtype == torch.bool:
        raise InterpToolkitError(f"expected real numbers in {name}, got {str(array.dtype).removeprefix('torch.')}")
    return None


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _require_directions(values: Tensor) -> None:
    if len(bad := (~torch.isfinite(values).all(1)).nonzero().flatten()):
        raise InterpToolkitError(f"vector {bad[0].item()} holds NaN or infinity; leave it out")
    if len(bad := (values.abs().amax(1) == 0).nonzero().flatten() if len(values) else values):
        raise InterpToolkitError(
            f"vector {bad[0].item()} is zero and has no direction; to see what the adapter says about nothing, pass "
            f"null=True"
        )
