"""Places that an adapter's vectors are from, each with the mean that centres them and the threshold of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.sites import Place, parse_place
from interp_toolkit.tables import brief_repr
from interp_toolkit.tensor_type import Tensor


@dataclass(frozen=True)
class EvidenceThreshold:
    """The evidence from which on a description is taken to be of its vector.

    It is calibrated on greedy descriptions of at most `MAX_NEW_TOKENS` tokens, see `calibrate_threshold`, and says
    nothing of others: see `applies`.

    Attributes:
        value: in nats per token.
        false_positive_rate: share of controls without meaning that it lets through, as chosen.
        n: how many vectors it was calibrated on.
        seed: of the controls.
    """

    value: float
    false_positive_rate: float
    n: int
    seed: int

    MAX_NEW_TOKENS: ClassVar[int] = 24

    def __post_init__(self) -> None:
        numbers = (self.value, self.false_positive_rate)
        if not all(isinstance(x, Real) and x == x for x in numbers) or not isinstance(self.n, Integral):
            raise InterpToolkitError(f"expected numbers in a threshold of evidence, got {self!r:.200}")

    @classmethod
    def applies(cls, *, scale: float, temperature: float, max_new_tokens: int, other_soft_prompt: bool) -> bool:
        """Whether a threshold says anything of a description: only where it was written as those in the calibration.

        That is: at scale 1, greedily, in the adapter's own soft prompt, and of the same greatest length. Samples are
        less probable than greedy texts, and a shorter or longer text has another mean per token. The vector must be
        from the threshold's place and centred by its mean, and the token that it is read at is not regarded.

        Args:
            scale: factor on the vector.
            temperature: of the sampling.
            max_new_tokens: greatest length, in tokens.
            other_soft_prompt: whether another soft prompt than the adapter's is used.
        """
        usual = temperature == 0 and max_new_tokens == cls.MAX_NEW_TOKENS and not other_soft_prompt
        return scale == 1 and usual


@dataclass(frozen=True, eq=False)
class ReadingPlace:
    """A place where an adapter's vectors are read, with what belongs to vectors from there.

    Attributes:
        site: one site, or a stack of them.
        mean: what is subtracted from raw vectors, [d_model for each site], or None for nothing.
        threshold: the evidence from which on a description is taken to be of its vector; None before calibration.
    """

    site: Place
    mean: Tensor | None = None
    threshold: EvidenceThreshold | None = None

    __repr__ = brief_repr

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold; the mean is a tensor and is stored apart."""
        return dict(
            site=str(self.site),
            centring="none" if self.mean is None else "mean",
            threshold=asdict(self.threshold) if self.threshold else None,
        )


def parse_reading_place(data: Mapping[str, Any], mean: Tensor | None, d_model: int) -> ReadingPlace:
    """The inverse of `ReadingPlace.to_dict`.

    Args:
        data: as it gives it.
        mean: the tensor, or None.
        d_model: width of the residual stream.

    Raises:
        FileFormatError: a mean that does not fit what is said of it.
    """
    site = parse_place(data["site"])
    if (data["centring"] == "mean") != (mean is not None) or (
        mean is not None and mean.shape != (d_model * len(site.sites),)
    ):
        raise FileFormatError(
            f"the contract says centring {data['centring']!r} at {site}, and the mean there "
            f"{'is missing' if mean is None else f'has shape {tuple(mean.shape)}'}; the file is damaged, save the "
            f"adapter again"
        )
    threshold = EvidenceThreshold(**data["threshold"]) if data["threshold"] else None
    return ReadingPlace(site, mean, threshold)
