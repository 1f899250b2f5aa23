"""The kinds of adapters: their classes, and what is known of our own kinds without torch, which their classes need."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp_toolkit.errors import InterpToolkitError

if TYPE_CHECKING:
    from interp_toolkit.adapters.adapter import Adapter
    from interp_toolkit.adapters.config import AdapterConfig


@dataclass(frozen=True)
class KindFacts:
    """What a config and a file of weights must agree with, the same as the class of the kind has it.

    Attributes:
        parameters: names of the parameters, in the order of the class.
        takes_rank: as in `Adapter`.
        takes_several: as in `Adapter`.
        settings: as in `Adapter`.
    """

    parameters: tuple[str, ...]
    takes_rank: bool = False
    takes_several: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def parameter_shapes(self, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
        """The shapes of an adapter's parameters, see `interp_toolkit.adapters.family`."""
        rows, rank = config.d_model * config.tokens, config.rank or 0
        shapes = dict(log_scale=(1,), bias=(rows,), U=(config.width, rank), V=(rows, rank), weight=(rows, config.width))
        return {name: shapes[name] for name in self.parameters}


# The kinds whose classes stand in `interp_toolkit.adapters.family`.
FAMILY: Mapping[str, KindFacts] = {
    "identity": KindFacts(()),
    "scale": KindFacts(("log_scale",)),
    "bias_only": KindFacts(("bias",), takes_several=True),
    "scalar_affine": KindFacts(("log_scale", "bias")),
    "low_rank": KindFacts(("U", "V", "bias"), takes_rank=True, takes_several=True),
    "scalar_affine_low_rank": KindFacts(("log_scale", "U", "V", "bias"), takes_rank=True),
    "full_rank": KindFacts(("weight", "bias"), takes_several=True),
}
# The classes of adapters by their kinds; each enters itself when it is defined, a user's as ours.
KINDS: dict[str, type[Adapter]] = {}


def known_kinds() -> Mapping[str, KindFacts | type[Adapter]]:
    """What is known of every kind, our own first; of a user's the class itself says it."""
    return {**FAMILY, **{kind: KINDS[kind] for kind in KINDS if kind not in FAMILY}}


def facts_of_kind(kind: str) -> KindFacts | type[Adapter]:
    """What a kind takes and declares.

    Raises:
        InterpToolkitError: no class of this kind has been defined.
    """
    known = known_kinds()
    if kind not in known:
        raise InterpToolkitError(
            f"expected an adapter kind of {', '.join(known)}, got {kind!r:.80}; "
            f"a kind of your own is known once the module with its class has been imported"
        )
    return known[kind]


def class_of_kind(kind: str) -> type[Adapter]:
    """The class of adapters of a kind.

    Raises:
        InterpToolkitError: no class of this kind has been defined.
    """
    facts_of_kind(kind)
    if kind not in KINDS:
        importlib.import_module("interp_toolkit.adapters.family")
    return KINDS[kind]
