"""What an adapter is made of, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from interp_toolkit.adapters.kinds import facts_of_kind, known_kinds
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.settings import settings_from

# Far beyond any model; what a damaged file says beyond it would overflow, or take memory that is not there.
_WIDEST = 2**30


@dataclass(frozen=True)
class AdapterConfig:
    """The shape and the start of an adapter.

    Attributes:
        kind: the `Adapter.kind` of a class.
        d_model: width of the residual stream, and so of each site's vector and of each soft token.
        sites: how many sites a vector is read at; their vectors stand side by side, and each is normalised alone.
        tokens: how many soft tokens it becomes; the slots of the prompt take them in turn.
        rank: r of the low-rank kinds; None for the others.
        normalize: whether vectors are scaled to length one first: x^ = x / (|x| + 1e-8).
        init_scale: the scale s at the start; 5 in the paper's runs.
        low_rank_factor: how much smaller than init_scale the low-rank term starts.
        identity_start: whether the full-rank matrix starts as init_scale * I rather than at random.
        settings: values of the further settings that the class of this kind declares, see `Adapter.settings`.
    """

    kind: str
    d_model: int
    sites: int = 1
    tokens: int = 1
    rank: int | None = None
    normalize: bool = True
    init_scale: float = 5.0
    low_rank_factor: float = 0.01
    identity_start: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        facts = facts_of_kind(self.kind)
        if self.d_model < 1:
            raise InterpToolkitError(f"expected d_model of at least 1, got {self.d_model}")
        if facts.takes_rank != (self.rank is not None):
            raise InterpToolkitError(
                f"a rank belongs to the kinds {' and '.join(_kinds_that('takes_rank'))} and to no other; got kind "
                f"{self.kind!r} with rank {self.rank}"
            )
        if self.sites < 1 or self.tokens < 1:
            raise InterpToolkitError(f"expected sites and tokens of at least 1, got {self.sites} and {self.tokens}")
        if self.d_model * max(self.sites, self.tokens) > _WIDEST:
            raise InterpToolkitError(
                f"expected d_model times sites or tokens of at most {_WIDEST}, got d_model={self.d_model}, "
                f"sites={self.sites}, tokens={self.tokens}"
            )
        if self.sites + self.tokens > 2 and (not facts.takes_several or self.identity_start):
            raise InterpToolkitError(
                f"several sites or soft tokens belong to the kinds {', '.join(_kinds_that('takes_several'))} without "
                f"identity_start; got kind {self.kind!r} with sites={self.sites}, tokens={self.tokens}"
            )
        max_rank = self.d_model * min(self.sites, self.tokens)
        if self.rank is not None and not 1 <= self.rank <= max_rank:
            raise InterpToolkitError(f"expected a rank between 1 and {max_rank}, the smaller width, got {self.rank}")
        if not 0 < self.init_scale < math.inf:
            raise InterpToolkitError(f"expected an init_scale above 0, got {self.init_scale}")
        if not math.isfinite(self.low_rank_factor):
            raise InterpToolkitError(f"expected a low_rank_factor that is a number, got {self.low_rank_factor}")
        object.__setattr__(self, "settings", _with_defaults(self.settings, facts.settings, self.kind))

    @property
    def width(self) -> int:
        """Width of the vectors: d_model for each site."""
        return self.d_model * self.sites

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {**{name: value for name, value in asdict(self).items() if name != "settings"}, **self.settings}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdapterConfig:
        """The inverse of `to_dict`; settings left out take their defaults.

        Raises:
            InterpToolkitError: an unknown key, a missing one, or a value that makes no adapter.
        """
        if isinstance(data, Mapping) and isinstance(kind := data.get("kind"), str):
            declared = {name: data[name] for name in facts_of_kind(kind).settings if name in data}
            data = {name: value for name, value in data.items() if name not in declared}
            data |= {"settings": declared} if declared else {}
        return settings_from(cls, data, "the adapter settings")


def _kinds_that(flag: str) -> list[str]:
    return [kind for kind, facts in known_kinds().items() if getattr(facts, flag)]


def _with_defaults(settings: Mapping[str, Any], defaults: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """All settings that a kind declares, after a check of the values that were passed."""
    if unknown := sorted(set(settings) - set(defaults)):
        raise InterpToolkitError(
            f"unknown setting {', '.join(map(repr, unknown))} of the adapter kind {kind!r}, which declares "
            f"{', '.join(defaults) or 'none'}"
        )
    complete = {**defaults, **settings}
    for name, value in settings.items():
        if isinstance(defaults[name], float) and type(value) is int:
            complete[name] = float(value)
        elif type(value) is not type(defaults[name]):
            raise InterpToolkitError(
                f"expected {type(defaults[name]).__name__} for {name} of the adapter kind {kind!r}, got {value!r:.80}"
            )
    return complete
