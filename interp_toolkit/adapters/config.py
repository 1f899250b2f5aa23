"""What an adapter is made of, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.settings import settings_from

KINDS = ("identity", "scale", "bias_only", "scalar_affine", "low_rank", "scalar_affine_low_rank", "full_rank")
LOW_RANK_KINDS = ("low_rank", "scalar_affine_low_rank")


@dataclass(frozen=True)
class AdapterConfig:
    """The shape and the start of an adapter.

    Attributes:
        kind: one of `KINDS`.
        d_model: width of the vectors and of the soft tokens.
        rank: r of the low-rank kinds; None for the others.
        normalize: whether vectors are scaled to length one first: x^ = x / (|x| + 1e-8).
        init_scale: the scale s at the start; 5 in the paper's runs.
        low_rank_factor: how much smaller than init_scale the low-rank term starts.
        identity_start: whether the full-rank matrix starts as init_scale * I rather than at random.
    """

    kind: str
    d_model: int
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
        if self.rank is not None and not 1 <= self.rank <= self.d_model:
            raise InterpToolkitError(f"expected a rank between 1 and d_model = {self.d_model}, got {self.rank}")
        if not self.init_scale > 0:
            raise InterpToolkitError(f"expected an init_scale above 0, got {self.init_scale}")

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
