"""Products with frozen matrices, in the order in which the processor reads them.

oneDNN multiplies in blocks. A plain matrix is put into blocks anew for every product (in float32 by the library that
torch uses in its place), which for a few rows takes longer than the product itself. So a model that is used again and
again has its matrices in blocks beside the plain ones, for as long as these stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from interp_toolkit.models.weights import edits

# Bytes of all matrices of a model, from which products and not their calls take the time, and up to which matrices are
# stored twice.
_SMALLEST, _LARGEST = 2**26, 2**30
# Passes after which that pays: putting all in blocks takes as long as some fifteen passes of a few rows gain by it.
_PASSES = 16

Matrices = tuple[nn.Linear, ...]
"""Matrices that take the same rows."""


@dataclass(frozen=True, eq=False)
class _InBlocks:
    """Matrices that take the same rows, one beneath the other, in blocks."""

    weights: tuple[Tensor | None, ...]
    edits: tuple[int, ...]
    blocks: Tensor
    bias: Tensor | None
    sizes: tuple[int, ...]

    def is_of(self, matrices: Matrices) -> bool:
        """Whether the matrices are still what they were."""
        weights = _weights(matrices)
        return all(a is b for a, b in zip(self.weights, weights)) and self.edits == _edits(weights)


class Products:
    """The products of one model with its matrices."""

    def __init__(self) -> None:
        self._version = b""
        self._fits = self._in_blocks = False
        self._passes = 0
        self._blocks: dict[Matrices, _InBlocks] = {}

    def see(self, version: bytes, weights: Sequence[Tensor]) -> None:
        """Forget what is of other weights.

        Args:
            version: of the weights as they are now, see `weights_version`.
            weights: all of the model.
        """
        if version == self._version:
            return
        self._version, self._passes, self._in_blocks = version, 0, False
        self._blocks.clear()
        dtypes = {weight.dtype for weight in weights}
        self._fits = (
            len(dtypes) == 1
            and all(weight.device.type == "cpu" for weight in weights)
            and _SMALLEST <= sum(weight.numel() * weight.element_size() for weight in weights) <= _LARGEST
            and blocks_are_read(*dtypes)
        )

    def begin_pass(self) -> None:
        """Count a pass through the model, and forget matrices that were edited since the last."""
        self._passes += 1
        self._in_blocks = self._fits and self._passes > _PASSES
        for matrices in [matrices for matrices, blocks in self._blocks.items() if not blocks.is_of(matrices)]:
            del self._blocks[matrices]

    def __call__(self, x: Tensor, matrices: Matrices) -> Sequence[Tensor]:
        """Multiply ``x`` [..., in] with matrices that take the same rows: for each [..., out], its bias added.

        The numbers are those of `torch.nn.functional.linear`, but for the rounding of the last bit.
        """
        if not self._in_blocks or (x.requires_grad and torch.is_grad_enabled()):
            return [linear(x, matrix.weight, _bias(matrix)) for matrix in matrices]
        stored = self._blocks.get(matrices)
        if stored is None:
            stored = self._blocks[matrices] = _put_in_blocks(matrices)
        together = torch.ops.mkldnn._linear_pointwise.default(x, stored.blocks, stored.bias, "none", [], "")
        return together.split_with_sizes(stored.sizes, -1) if len(matrices) > 1 else (together,)


@torch.no_grad()
def _put_in_blocks(matrices: Matrices) -> _InBlocks:
    weights = _weights(matrices)
    first, *others = (matrix.weight for matrix in matrices)
    whole = torch.cat([first, *others]) if others else first.detach()
    biases = [
        matrix.weight.new_zeros(matrix.out_features) if matrix.bias is None else matrix.bias for matrix in matrices
    ]
    bias = torch.cat(biases)
    blocks = torch.ops.mkldnn._reorder_linear_weight.default(whole.contiguous())
    sizes = tuple(matrix.out_features for matrix in matrices)
    return _InBlocks(weights, _edits(weights), blocks, bias if bias.any() else None, sizes)


def _weights(matrices: Matrices) -> tuple[Tensor | None, ...]:
    return tuple(tensor for matrix in matrices for tensor in (matrix.weight, matrix.bias))


def _edits(weights: Sequence[Tensor | None]) -> tuple[int, ...]:
    return tuple(edits(weight) for weight in weights if weight is not None)


def _bias(matrix: nn.Linear) -> Tensor | None:
    """The bias, unless it is none: the bridge gives the unembedding one of zeros, whose sum takes as long again."""
    bias: Any = matrix.bias
    return bias if bias is None or bias.device.type != "cpu" or bias.any() else None


def blocks_are_read(dtype: torch.dtype) -> bool:
    """Whether this build of torch multiplies by matrices in blocks, on a processor that does so fast."""
    mkldnn: Any = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(mkldnn, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(mkldnn._is_mkldnn_bf16_supported()))
