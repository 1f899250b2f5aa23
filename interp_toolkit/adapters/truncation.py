"""A trained matrix at a lower rank: the smaller adapter that says most nearly the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters.adapter import Adapter
from interp_toolkit.adapters.uncalibrated import uncalibrated
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.regression import low_rank_factors


@torch.no_grad()
def truncated(adapter: Adapter, rank: int, blocks: Iterable[Float[Tensor, "_ width"]]) -> Adapter:
    """The low-rank adapter whose soft tokens lie nearest to a full-rank one's.

    Nearest in squared distance over the vectors given, which is another thing than the largest singular values of the
    matrix: what no vector varies in costs nothing. With W the matrix and P the first principal directions of W x^, the
    new matrix is P P' W, and the bias takes over what the mean vector loses (reduced-rank regression, Izenman 1975).

    Args:
        adapter: of kind ``full_rank``.
        rank: of the new one.
        blocks: centred vectors to be near on, a block at a time.

    Raises:
        InterpToolkitError: another kind, or no vectors.

    Example:
        >>> small = truncated(large, 200, [pairs.split("train").vectors])
        >>> small.parameter_count / large.parameter_count
        0.17...
    """
    if adapter.config.kind != "full_rank":
        raise InterpToolkitError(f"expected a full_rank adapter to truncate, got {adapter.config.kind!r}")
    contract = None if adapter.contract is None else uncalibrated(adapter.contract)
    low = Adapter.from_config(replace(adapter.config, kind="low_rank", rank=rank), contract)
    weight, bias = adapter.weight.cpu().double(), adapter.bias.cpu().double()
    width = adapter.config.width
    count, total, products = 0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for block in blocks:
        x = adapter.directions(block).cpu().double()
        count, total, products = count + len(x), total + x.sum(0), products.addmm_(x.T, x)
    if not count:
        raise InterpToolkitError("expected vectors to be near on, got none")
    mean = total / count
    spread = products / count - mean.outer(mean)
    set_low_rank(low, weight.T, spread)
    low.bias.copy_(bias + (weight - (low.V @ low.U.T).double()) @ mean)
    return low.requires_grad_(False).eval()


def set_low_rank(
    adapter: Adapter, fit: Float[Tensor, "width wide"], spread: Float[Tensor, "width width"]
) -> Float[Tensor, "width wide"]:
    """Set U and V to the product of their rank nearest to a matrix, over vectors of this covariance.

    Args:
        adapter: of kind ``low_rank``, on any device; changed in place.
        fit: the matrix, from vectors to soft tokens, float64.
        spread: covariance of the (normalised) vectors, float64, on the same device.

    Returns:
        the product, float64, where ``fit`` is.
    """
    assert adapter.config.rank is not None
    left, directions = low_rank_factors(fit, spread, adapter.config.rank)
    # Both factors alike in norm, so that one learning rate suits them.
    even = left.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    adapter.U.copy_(left / even)
    adapter.V.copy_(directions * even)
    return left @ directions.T
