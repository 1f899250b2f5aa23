"""Adapters that come with the package, for the embedded model."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from interp_toolkit.adapters.kinds import FAMILY
from interp_toolkit.adapters.reading import read_adapter
from interp_toolkit.adapters.stored import StoredAdapter
from interp_toolkit.contract import ModelFacts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sites import PlaceLike, SiteStack, parse_place, parse_sites

if TYPE_CHECKING:
    from interp_toolkit.adapters import Adapter

_FOLDER = Path(__file__).parent
# The first that fits a model, and what it is asked for, is the default.
NAMES = ("smollm2_any_token", "smollm2_rank64", "smollm2_four_layers", "smollm2_scalar_affine")


def find_adapter(name: str) -> Adapter:
    """A shipped adapter by its name, else what `Adapter.from_pretrained` finds under it.

    Raises:
        FileFormatError: nothing loadable has that name.
    """
    from interp_toolkit.adapters import Adapter  # only here: it needs torch

    return Adapter.from_pretrained(_location(name))


def find_stored(name: str) -> StoredAdapter | Adapter:
    """What `find_adapter` finds, as its files hold it: its config, contract and numbers, without torch.

    Of a kind whose class a user wrote it is the adapter itself, since the class says which numbers are trained.

    Raises:
        FileFormatError: nothing loadable has that name.
    """
    stored = read_adapter(_location(name))
    return stored if stored.config.kind in FAMILY else find_adapter(name)


def default_adapter(facts: ModelFacts, sites: int | None = None, *, places: PlaceLike | None = None) -> Adapter:
    """The adapter that is used for a model when none is named.

    Args:
        facts: of the model.
        sites: at how many sites its vectors are read together; None for any, and so for the best.
        places: where prompts are to be read; of several adapters one that was trained on these, else one of as many
            sites, which takes others where their mean is given.

    Raises:
        InterpToolkitError: none is shipped for this model, or none that reads so many sites.
    """
    fits, known = None, False
    for adapter in _of_model(facts):
        known = True
        if _takes(adapter, sites) if places is None else _reads(adapter, places):
            return copy.deepcopy(adapter)  # the caller may change it
        if fits is None and adapter.config.sites == sites:
            fits = adapter
    if fits is not None:
        return copy.deepcopy(fits)
    what = f"{facts.model_id}" + (f" with vectors of {sites} sites" if known else "")
    raise InterpToolkitError(
        f"no adapter is shipped for {what}; pass adapter=... (a path, a hub id or an Adapter), or train one with "
        f"interp_toolkit.train_adapter"
    )


def _location(name: str) -> Path | str:
    return _FOLDER / name if name in NAMES else name


def _of_model(facts: ModelFacts) -> Iterator[Adapter]:
    """The shipped adapters of a model, in order; each is loaded when it is come to, since most need the first alone."""
    for name in NAMES:
        adapter = _loaded(name)
        if adapter.contract and adapter.contract.is_of(facts):
            yield adapter


@functools.cache
def _loaded(name: str) -> Adapter:
    return find_adapter(name)


def _takes(adapter: Adapter, sites: int | None) -> bool:
    """Whether an adapter takes vectors that are read at so many sites together."""
    return sites is None or any(len(x.site.sites) == sites for x in adapter.require_contract().reading_places)


def _reads(adapter: Adapter, places: PlaceLike) -> bool:
    """Whether an adapter was trained on all of these places."""
    contract = adapter.require_contract()
    is_stack = isinstance(places, SiteStack) or (isinstance(places, str) and "+" in places)
    named = [parse_place(places)] if is_stack else parse_sites(places)
    return all(contract.reading_place(place) is not None for place in named)
