"""The trained way back: a low-rank linear map from how a model reads a description to the vector that it describes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp_toolkit.errors import FileFormatError
from interp_toolkit.sites import Place, parse_place
from interp_toolkit.tables import brief_repr
from interp_toolkit.tensor_type import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

TEXT = "{text}"
"""What stands for the description in a wording."""
VIEWS = 2
"""States that are read of a text at each site: its last token's, and the mean over its tokens."""
_TENSORS = ("U", "V", "feature_mean", "vector_mean")


@dataclass(frozen=True, eq=False)
class WayBack:
    """A map from the states of the frozen model over a text, which it reads without any vector, to a vector.

    A ridge regression of low rank, y = (x - feature_mean) U V' + vector_mean, see `fit_way_back`. Its outputs stand for
    vectors that are centred as the adapter's contract says, each site's part of length one; they are shorter where the
    text says less.

    Attributes:
        site: where the text is read, which need not be where the vectors are from.
        wording: what the model reads, as plain text, with ``{text}`` in place of the text.
        U: [features, rank]; the features of a text are, for each site, those of `VIEWS`.
        V: [width, rank], the width that of the vectors.
        feature_mean: mean features of the texts that it was fitted to, [features].
        vector_mean: mean direction of their vectors, [width].
        penalty: of the regression, relative to the features' mean variance.
        n: number of pairs that it was fitted to.
    """

    site: Place
    wording: str
    U: Float[Tensor, "features rank"]
    V: Float[Tensor, "width rank"]
    feature_mean: Float[Tensor, " features"]
    vector_mean: Float[Tensor, " width"]
    penalty: float
    n: int

    __repr__ = brief_repr

    @property
    def rank(self) -> int:
        """Number of directions that the map passes through."""
        return self.U.shape[1]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name this way back, for results files."""
        hasher = hashlib.sha256(json.dumps([str(self.site), self.wording]).encode())
        for name, value in self.tensors().items():
            hasher.update(name.encode() + value.numpy().tobytes())
        return hasher.hexdigest()[:16]

    def map_features(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n width"]:
        """Vectors of features, float32, as the regression gives them."""
        return (features.float() - self.feature_mean) @ self.U @ self.V.T + self.vector_mean

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, float32 on the CPU, for a file."""
        # Copies, since a file takes no shared memory.
        return {name: getattr(self, name).detach().float().cpu().contiguous().clone() for name in _TENSORS}

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold; the tensors are stored apart."""
        return dict(site=str(self.site), wording=self.wording, rank=self.rank, penalty=self.penalty, n=self.n)


def parse_way_back(data: Any, tensors: Mapping[str, Tensor], d_model: int, width: int) -> WayBack:
    """The inverse of `WayBack.to_dict` and `WayBack.tensors`.

    Args:
        data: as `WayBack.to_dict` gives it.
        tensors: as `WayBack.tensors` gives them, or arrays of numpy in their place.
        d_model: width of the residual stream.
        width: that of the adapter's vectors.

    Raises:
        FileFormatError: a part is missing, unknown or of another kind, a tensor has another shape or holds NaN.
    """
    again = "the file is damaged, save the adapter again"
    expected_keys = {"site", "wording", "rank", "penalty", "n"}
    if not isinstance(data, Mapping) or set(data) != expected_keys:
        came = sorted(map(str, data)) if isinstance(data, Mapping) else f"{data!r:.60}"
        raise FileFormatError(f"expected {sorted(expected_keys)} in the contract's way back, got {came}; {again}")
    rank, n, penalty, wording = (data[name] for name in ("rank", "n", "penalty", "wording"))
    numbers = all(isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in (rank, n))
    if not numbers or not isinstance(penalty, (int, float)) or isinstance(penalty, bool):
        raise FileFormatError(
            f"expected numbers for rank, n and penalty in the contract's way back, got {rank!r:.20}, {n!r:.20} and "
            f"{penalty!r:.20}; {again}"
        )
    if not isinstance(wording, str) or wording.count(TEXT) != 1:
        raise FileFormatError(
            f"expected a wording with {TEXT} once in the contract's way back, got {wording!r:.60}; {again}"
        )
    site = parse_place(data["site"])
    if missing := [name for name in _TENSORS if name not in tensors]:
        raise FileFormatError(f"the contract's way back lacks {', '.join(missing)}; {again}")
    if unknown := sorted(set(tensors) - set(_TENSORS)):
        raise FileFormatError(f"the contract's way back has no tensor {', '.join(unknown)}; {again}")
    features = VIEWS * d_model * len(site.sites)
    shapes = dict(U=(features, rank), V=(width, rank), feature_mean=(features,), vector_mean=(width,))
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise FileFormatError(
                f"expected {name} of shape {shape} in the contract's way back, got {tuple(tensors[name].shape)}; "
                f"{again}"
            )
        if not (abs(tensors[name]) < math.inf).all():  # also where it is NaN; for tensors and numpy's arrays
            raise FileFormatError(f"{name} of the contract's way back holds NaN or infinity; {again}")
    return WayBack(site, wording, **{name: tensors[name] for name in _TENSORS}, penalty=float(penalty), n=n)
