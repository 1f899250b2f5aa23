"""Ridge regression in closed form, of full or low rank, from moments that are summed a block of rows at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Means and covariances of inputs and outputs, summed in float64 on the CPU.

    Args:
        inputs: width of the inputs.
        outputs: width of the outputs.

    Attributes:
        count: number of rows that were added.

    Example:
        >>> moments = Moments(2304, 576)
        >>> for x, y in blocks:
        ...     moments.add(x, y)
        >>> fit = ridge_fit(moments, penalty=0.1)
        >>> bias = moments.output_mean - moments.input_mean @ fit
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.count = 0
        self._x, self._y = torch.zeros(inputs, dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)
        self._xx = torch.zeros(inputs, inputs, dtype=torch.float64)
        self._xy = torch.zeros(inputs, outputs, dtype=torch.float64)

    def add(self, inputs: Float[Tensor, "rows inputs"], outputs: Float[Tensor, "rows outputs"]) -> None:
        """Add a block of rows."""
        x, y = inputs.cpu().double(), outputs.cpu().double()
        self._xx, self._xy = self._xx.addmm_(x.T, x), self._xy.addmm_(x.T, y)
        self._x, self._y = self._x + x.sum(0), self._y + y.sum(0)
        self.count += len(x)

    @property
    def input_mean(self) -> Tensor:
        """[inputs]."""
        return self._x / self.count

    @property
    def output_mean(self) -> Tensor:
        """[outputs]."""
        return self._y / self.count

    @property
    def input_covariance(self) -> Tensor:
        """[inputs, inputs]."""
        return self._xx / self.count - self.input_mean.outer(self.input_mean)

    @property
    def cross_covariance(self) -> Tensor:
        """[inputs, outputs]."""
        return self._xy / self.count - self.input_mean.outer(self.output_mean)


def penalized_covariance(moments: Moments, penalty: float) -> Tensor:
    """The covariance of the inputs with the penalty on its diagonal, float64 [inputs, inputs].

    Args:
        moments: of the rows to fit to.
        penalty: relative to the mean variance of the inputs' entries.
    """
    spread = moments.input_covariance
    return spread + penalty * spread.diag().mean() * torch.eye(len(spread), dtype=torch.float64)


def ridge_fit(moments: Moments, penalty: float) -> Tensor:
    """The matrix of the ridge regression of outputs on inputs, both less their means, float64 [inputs, outputs].

    Args:
        moments: of the rows to fit to.
        penalty: relative to the mean variance of the inputs' entries.
    """
    return torch.linalg.solve(penalized_covariance(moments, penalty), moments.cross_covariance)


def low_rank_factors(
    fit: Float[Tensor, "inputs outputs"], spread: Float[Tensor, "inputs inputs"], rank: int
) -> tuple[Float[Tensor, "inputs rank"], Float[Tensor, "outputs rank"]]:
    """Factor the matrix of a rank that is nearest to ``fit`` over inputs of this covariance.

    With P the first principal directions of the fitted outputs, it is (fit P) P' (reduced-rank regression, Izenman
    1975). Where ``spread`` holds the penalty, it is the ridge regression of that rank (Mukherjee and Zhu 2011).

    Args:
        fit: the matrix, float64.
        spread: covariance of the inputs, float64, on the same device.
        rank: of the product; at most the number of outputs.

    Returns:
        the left factor, and the right one with orthonormal columns, whose transpose it is multiplied by.
    """
    directions = torch.linalg.eigh(fit.T @ spread @ fit).eigenvectors[:, -rank:]
    return fit @ directions, directions
