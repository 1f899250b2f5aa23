"""What an adapter is made of, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.settings import settings_from

KINDS = ("identity", "scale", "bias_only", "scalar_affine", "low_rank", "scalar_affine_low_rank", "full_rank")
LOW_RANK_KINDS = ("low_rank", "scalar_affine_low_rank")
# The others add the vector itself to the soft token, which several of either have no place for.
MANY_KINDS = ("bias_only", "low_rank", "full_rank")
# Far beyond any model; what a damaged file says beyond it would overflow, or take memory that is not there.
_WIDEST = 2**30


@dataclass(frozen=True)
class AdapterConfig:
    """The shape and the start of an adapter.

    Attributes:
        kind: one of `KINDS`.
        d_model: width of the residual stream, and so of each site's vector and of each soft token.
        sites: how many sites a vector is read at; their vectors stand side by side, and each is normalised alone.
        tokens: how many soft tokens it becomes; the slots of the prompt take them in turn.
        rank: r of the low-rank kinds; None for the others.
        normalize: whether vectors are scaled to length one first: x^ = x / (|x| + 1e-8).
        init_scale: the scale s at the start; 5 in the paper's runs.
        low_rank_factor: how much smaller than init_scale the low-rank term starts.
        identity_start: whether the full-rank matrix starts as init_scale * I rather than at random.
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InterpToolkitError(f"expected an adapter kind of {', '.join(KINDS)}, got {self.kind!r}")
        if self.d_model < 1:
            raise InterpToolkitError(f"expected d_model of at least 1, got {self.d_model}")
        if (self.kind in LOW_RANK_KINDS) != (self.rank is not None):
            raise InterpToolkitError(
                f"a rank belongs to the kinds {' and '.join(LOW_RANK_KINDS)} and to no other; "
                f"got kind {self.kind!r} with rank {self.rank}"
            )
        if self.sites < 1 or self.tokens < 1:
            raise InterpToolkitError(f"expected sites and tokens of at least 1, got {self.sites} and {self.tokens}")
        if self.d_model * max(self.sites, self.tokens) > _WIDEST:
            raise InterpToolkitError(
                f"expected d_model times sites or tokens of at most {_WIDEST}, got d_model={self.d_model}, "
                f"sites={self.sites}, tokens={self.tokens}"
            )
        if self.sites + self.tokens > 2 and (self.kind not in MANY_KINDS or self.identity_start):
            raise InterpToolkitError(
                f"several sites or soft tokens belong to the kinds {', '.join(MANY_KINDS)} without identity_start; got "
                f"kind {self.kind!r} with sites={self.sites}, tokens={self.tokens}"
            )
        most = self.d_model * min(self.sites, self.tokens)
        if self.rank is not None and not 1 <= self.rank <= most:
            raise InterpToolkitError(f"expected a rank between 1 and {most}, the smaller width, got {self.rank}")
        if not 0 < self.init_scale < math.inf:
            raise InterpToolkitError(f"expected an init_scale above 0, got {self.init_scale}")
        if not math.isfinite(self.low_rank_factor):
            raise InterpToolkitError(f"expected a low_rank_factor that is a number, got {self.low_rank_factor}")

    @property
    def width(self) -> int:
        """Width of the vectors: d_model for each site."""
        return self.d_model * self.sites

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdapterConfig:
        """The inverse of `to_dict`; settings left out take their defaults.

        Raises:
            InterpToolkitError: an unknown key, a missing one, or a value that makes no adapter.
        """
        return settings_from(cls, data, "the adapter settings")
