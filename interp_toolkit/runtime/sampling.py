"""How descriptions are sampled, as one value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_toolkit.contract import EvidenceThreshold
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.settings import whole_number

# The paper's temperature where several samples are drawn (arXiv 2602.10352, section 4).
_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Sampling:
    """How many descriptions are written per vector, and how.

    Attributes:
        n: descriptions per vector and scale, at least 1.
        temperature: 0 for the most probable token at every step. None means 0 for one description and 0.7 for several.
        top_p: sample among the most probable tokens that together have this probability, above 0 and at most 1.
        max_new_tokens: greatest length of a description, in tokens, at least 1.
        seed: of the sampling, at least 0.
        scales: factors on the vector in the adapter. Every vector is described at each of them.

    Raises:
        InterpToolkitError: a value outside its range, several descriptions at temperature 0 (they would be the same),
            or ``top_p`` below 1 at temperature 0 (it would have no effect).

    Example:
        >>> self_explain("Tell me about baseball.", sampling=Sampling(n=6, temperature=0.7, seed=0))
    """

    n: int | np.integer = 1
    temperature: float | None = None
    top_p: float = 1.0
    max_new_tokens: int | np.integer = EvidenceThreshold.MAX_NEW_TOKENS
    seed: int | np.integer = 0
    scales: float | Sequence[float] | np.ndarray = (1.0,)

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_new_tokens", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least=least))
        scales = self.scale_factors
        if not scales or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in scales):
            raise InterpToolkitError(
                f"expected at least one scale, each a finite number, got {list(scales) if scales else 'none'}"
            )
        object.__setattr__(self, "scales", scales)
        temperature, top_p = self.temperature, self.top_p
        if temperature is not None and not (_is_number(temperature) and 0 <= temperature < math.inf):
            raise InterpToolkitError(f"expected a temperature of at least 0, got {temperature!r}")
        if not (_is_number(top_p) and 0 < top_p <= 1):
            raise InterpToolkitError(f"expected 0 < top_p <= 1, got {top_p!r}")
        if temperature == 0 and self.n > 1:
            raise InterpToolkitError(
                f"at temperature 0 all {self.n} descriptions would be the same text; set temperature above 0, such as "
                f"{_TEMPERATURE}"
            )
        if self.effective_temperature == 0 and top_p != 1:
            raise InterpToolkitError(
                "top_p would have no effect: at temperature 0 the most probable token is taken; leave it out"
            )

    @property
    def scale_factors(self) -> tuple[float, ...]:
        """The scales, also where a single one or an array was passed."""
        return tuple(np.atleast_1d(self.scales).tolist())

    @property
    def effective_temperature(self) -> float:
        """The temperature that is used: where none is set, 0 for one description and 0.7 for several."""
        if self.temperature is not None:
            return float(self.temperature)
        return 0.0 if self.n == 1 else _TEMPERATURE


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
