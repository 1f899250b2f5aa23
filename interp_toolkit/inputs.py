"""The vectors that `self_explain` describes: read from prompts, or passed as activations or as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.activations import Activations, Positions, read_activations, stack_sites
from interp_toolkit.centering import Means, OnMismatch, means_by_place, means_by_site
from interp_toolkit.chat import Prompt, list_prompts, prompt_ids
from interp_toolkit.confidence import TokenKind
from interp_toolkit.contract import Contract, EvidenceThreshold, ReadingPlace
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import backend_of
from interp_toolkit.sites import Place, PlaceLike, SiteStack, parse_place
from interp_toolkit.spans import contents

# Raw residual streams at the last token have a cosine of 0.8 and more to the mean of the adapters that ship, centered
# ones of at most 0.3.
_HOLDS_MEAN = 0.5


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors as an adapter takes them, with their origins; every list has an item per vector.

    Attributes:
        values: [n, width], float32 on the CPU; of spans (`as_spans`) [n, span, width].
        numbers: of the prompt that the vector was read from, or of the vector itself, among those that were passed.
        sources: the prompt that the vector was read from, or ``vector 3``.
        sites: name of the site; empty for vectors that were passed as arrays.
        positions: from the prompt's first token; -1 for vectors that were passed as arrays.
        tokens: texts of the tokens there; empty likewise.
        thresholds: of the place that the vector is from; None where there is none, or where it is not from a place of
            the adapter's or not centered by its mean, as those in training were. For arrays this is assumed, unless the
            mean is plainly still in them.
        kinds: which token of a text each is of, for its confidence; a direction where vectors were passed as such; None
            for raw vectors that were passed, for one of the chat template's tokens but the last, and for one that is
            not centered by the adapter's mean.
        row_ids: what decides the draws of a vector's samples, together with the seed.
    """

    values: Tensor
    numbers: list[int]
    sources: list[str]
    sites: list[str]
    positions: list[int]
    tokens: list[str]
    thresholds: list[EvidenceThreshold | None]
    kinds: list[TokenKind | None]
    row_ids: list[str]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int]) -> Vectors:
        """Some of the vectors, in the order of their numbers.

        Args:
            rows: their numbers.
        """
        names = [field.name for field in fields(Vectors)][1:]
        lists: Any = {name: [getattr(self, name)[row] for row in rows] for name in names}
        return Vectors(self.values[torch.tensor(list(rows), dtype=torch.long)], **lists)

    @staticmethod
    def concatenated(several: Sequence[Vectors]) -> Vectors:
        """Vectors of one width, one after the other.

        Args:
            several: at least one.
        """
        values = torch.cat([vectors.values for vectors in several])
        names = [field.name for field in fields(Vectors)][1:]
        lists: Any = {name: [x for vectors in several for x in getattr(vectors, name)] for name in names}
        return Vectors(values, **lists)


def split_inputs(inputs: Any) -> tuple[Any, Tensor | None]:
    """Return the inputs, a generator as a list, and the vectors among them; None where they are prompts.

    Raises:
        InterpToolkitError: arrays that are neither vectors nor token ids, or vectors of different shapes.
    """
    if isinstance(inputs, Activations):
        return inputs, inputs.vectors
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


def from_vectors(
    vectors: Tensor, contract: Contract, width: int, centered: bool, sites: PlaceLike | None = None
) -> Vectors:
    """Take vectors that were passed as they are, less the adapter's mean where they are not centered.

    Args:
        vectors: [n, width] or [width].
        contract: of the adapter.
        width: of the adapter's vectors.
        centered: whether they are directions or centered already; otherwise the adapter's mean is subtracted.
        sites: which of the adapter's places they are from; by default the one that fits their width, the deepest where
            several do.

    Raises:
        ContractError: a site that is not the adapter's.
        InterpToolkitError: several sites, another shape, a vector that is zero or not finite, or no mean to subtract.
    """
    values = vectors.detach().float().cpu()
    values = values[None] if values.ndim == 1 else values
    place = _place_of_vectors(values, contract, sites)
    expected = width if place is None else contract.d_model * len(place.site.sites)
    if values.ndim != 2 or values.shape[1] != expected:
        of_places = {contract.d_model * len(x.site.sites) for x in contract.reading_places} if sites is None else ()
        shapes = " or ".join(f"(n, {x}) or ({x},)" for x in sorted({expected, *of_places}))
        raise InterpToolkitError(
            f"expected vectors of shape {shapes}, got {tuple(vectors.shape)}; "
            f"the adapter is for {contract.model_id} at {contract.site or 'any site'}"
        )
    mean = contract.mean if place is None else place.mean
    if not centered and mean is None:
        raise InterpToolkitError(
            "centered=False asks for the adapter's mean to be subtracted, and this adapter has none"
        )
    mean = None if mean is None else mean.float().cpu()[None]
    values = values if centered or mean is None else values - mean
    _require_directions(values)
    n = len(values)
    as_trained = torch.ones(n, dtype=torch.bool)
    if mean is not None and centered:
        as_trained = torch.nn.functional.cosine_similarity(values, mean) < _HOLDS_MEAN
    threshold = contract.threshold if place is None else place.threshold
    thresholds = [threshold if trained else None for trained in as_trained.tolist()]
    names = [f"vector {i}" for i in range(n)]
    # Of an adapter for a range of places the table says which was taken.
    site = "" if place is None or (sites is None and not contract.more) else str(place.site)
    kinds: list[TokenKind | None] = [
        "direction" if centered and site and trained else None for trained in as_trained.tolist()
    ]
    row_ids = _hashes(values)
    values = values if place is None else contract.filled(values, place.site)
    return Vectors(values, list(range(n)), names, [site] * n, [-1] * n, [""] * n, thresholds, kinds, row_ids)


def _place_of_vectors(values: Tensor, contract: Contract, sites: PlaceLike | None) -> ReadingPlace | None:
    """Where vectors that were passed are from: the place that is named, or the deepest of those of their width."""
    if sites is not None:
        places = contract.places(sites)
        if len(places) > 1:
            raise InterpToolkitError(
                f"expected one site of all vectors, got {len(places)}; describe those of each site on their own, or "
                f"pass Activations, which say where each was read"
            )
        contract.check_site(places[0])
        return contract.reading_place(places[0])
    of_width = [
        place
        for place in contract.reading_places
        if values.ndim == 2 and values.shape[1] == contract.d_model * len(place.site.sites)
    ]
    return max(of_width, key=lambda place: place.site.sites[-1]) if of_width else None


def from_activations(
    activations: Activations,
    contract: Contract,
    width: int,
    *,
    center: Means | None = None,
    on_mismatch: OnMismatch = "error",
) -> Vectors:
    """Center activations, which are raw, as `means_by_place` says.

    Args:
        activations: read at the adapter's places, or at others that have a mean. Their table may have a column
            ``source`` with a text per row.
        contract: of the adapter.
        width: of the adapter's vectors.
        center: means by site.
        on_mismatch: whether to refuse sites that are not the adapter's and have no mean, or to warn.

    Raises:
        ContractError: a site that is not the adapter's and has no mean.
        InterpToolkitError: another width, a table that does not fit the vectors, means that do not fit the sites, or a
            vector that is zero or not finite.
    """
    table = activations.table
    if missing := [name for name in ("prompt", "site", "position") if name not in table]:
        raise InterpToolkitError(
            f"expected activations whose table has columns prompt, site and position, without {missing[0]!r}; "
            f"see read_activations"
        )
    if len(activations.vectors) != len(table):
        raise InterpToolkitError(
            f"expected a row of the table for each vector, got {len(activations.vectors)} vectors and {len(table)} "
            f"rows; choose the same rows of both"
        )
    places = [parse_place(name) for name in dict.fromkeys(table["site"])]
    means = means_by_place(places, contract, center, on_mismatch)
    sources = table["source"] if "source" in table else [f"prompt {i}" for i in table["prompt"]]
    return _centered(activations, list(sources), contract, width, means, center)


def from_prompts(
    model: Any,
    prompts: Prompt | Iterable[Prompt],
    contract: Contract,
    width: int,
    *,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    chat: bool = True,
    center: Means | None = None,
    on_mismatch: OnMismatch = "error",
    progress: bool = False,
) -> Vectors:
    """Read the residual streams of prompts, and center them as `means_by_place` says.

    Args:
        model: the hooked model.
        prompts: one or several.
        contract: of the adapter.
        width: of the adapter's vectors.
        sites: where to read; by default where the adapter was trained.
        positions: which tokens, see `read_activations`.
        chat: whether texts are user turns in the chat template.
        center: means by site.
        on_mismatch: whether to refuse sites that are not the adapter's and have no mean, or to warn.
        progress: whether to show a bar.

    Raises:
        ContractError: a site that is not the adapter's and has no mean.
        InterpToolkitError: a prompt, site or position that does not exist, or a vector that is zero or not finite.
    """
    prompts, places = list_prompts(prompts), contract.places(sites)
    every_site = [site for place in places for site in place.sites]
    for site in every_site:
        backend_of(model).require(site)  # before anything is said of where the adapter was trained
    means = means_by_place(places, contract, center, on_mismatch)  # before any work
    read = read_activations(model, prompts, every_site, positions, chat=chat, progress=progress)
    if isinstance(places[0], SiteStack):
        read = stack_sites(read, places[0])
    sources = [prompt_title(prompts[i]) for i in read.table["prompt"]]
    vectors = _centered(read, sources, contract, width, means, center)
    # Where a vector was read, not its rounding, decides its draws.
    origins = zip(read.table["prompt"], read.table["site"], read.table["position"])
    row_ids = [repr((prompts[i], site, position)) for i, site, position in origins]
    kinds: list[TokenKind | None] = [None] * len(row_ids)
    if contract.confidence and center is None:  # the prompts are tokenised once more for it
        kinds = _kinds(model, prompts, chat, read)
    return replace(vectors, row_ids=row_ids, kinds=kinds)


def _kinds(model: Any, prompts: Sequence[Prompt], chat: bool, read: Activations) -> list[TokenKind | None]:
    """Which token of its text each vector is of."""
    numbers = [i for i, prompt in enumerate(prompts) if isinstance(prompt, str)]
    ids = prompt_ids(model.tokenizer, [prompts[i] for i in numbers], chat)
    spans = dict(zip(numbers, zip(contents(model.tokenizer, ids, chat), map(len, ids))))

    def kind(prompt: int, position: int) -> TokenKind | None:
        if prompt not in spans:
            return None
        (start, end), length = spans[prompt]
        return "text" if start <= position < end else "last" if position == length - 1 else None

    return [kind(i, position) for i, position in zip(read.table["prompt"], read.table["position"])]


def _centered(
    activations: Activations,
    sources: list[str],
    contract: Contract,
    width: int,
    means: Mapping[Place, Tensor | None],
    center: Means | None,
) -> Vectors:
    """Activations less the means by place, as `Vectors`."""
    table = activations.table
    names = table["site"].tolist()
    vectors = activations.vectors.detach().float().cpu()
    values = torch.empty(len(vectors), width)
    for place, mean in means.items():
        here = torch.tensor([name == str(place) for name in names], dtype=torch.bool)
        expected = contract.d_model * len(place.sites) if contract.reading_place(place) else width
        if vectors.shape[1] != expected:
            raise InterpToolkitError(
                f"expected activations of shape (n, {expected}), got {tuple(vectors.shape)}; the adapter is for "
                f"{contract.model_id} at {contract.site or 'any site'}"
            )
        values[here] = contract.filled(vectors[here] if mean is None else vectors[here] - mean, place)
    _require_directions(values)
    with_mean = set(means_by_site(center))
    by_place = {str(place.site): place.threshold for place in contract.reading_places}
    thresholds = {str(x): by_place.get(str(x)) if with_mean.isdisjoint(x.sites) else None for x in means}
    tokens = table["token"].tolist() if "token" in table else [""] * len(values)
    by_row = [thresholds[name] for name in names]
    numbers, positions = table["prompt"].tolist(), table["position"].tolist()
    no_kinds: list[TokenKind | None] = [None] * len(values)
    return Vectors(values, numbers, sources, names, positions, tokens, by_row, no_kinds, _hashes(values))


def prompt_title(prompt: Prompt) -> str:
    """Return a prompt as the source of its vectors: the text, the last message, or the ids."""
    if isinstance(prompt, str):
        return prompt
    last: Any = prompt[-1]
    return str(last.get("content", "")) if isinstance(last, Mapping) else " ".join(str(int(x)) for x in prompt)  # type: ignore[arg-type]


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


def _hashes(values: Tensor) -> list[str]:
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in values.numpy()]


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _require_directions(values: Tensor) -> None:
    if len(bad := (~torch.isfinite(values).all(1)).nonzero().flatten()):
        raise InterpToolkitError(f"vector {bad[0].item()} holds NaN or infinity; leave it out")
    if len(bad := (values.abs().amax(1) == 0).nonzero().flatten() if len(values) else values):
        raise InterpToolkitError(
            f"vector {bad[0].item()} is zero and has no direction; to see what the adapter says about nothing, pass "
            f"include_null=True"
        )
