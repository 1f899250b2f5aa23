"""The family of adapters, simplest first (arXiv 2602.10352, section 3).

Throughout, x^ = x / (|x| + 1e-8) where the config normalises and x otherwise; s = exp(log_scale); d = d_model;
r = rank. For m sites x^ is their normalised vectors side by side, and for k soft tokens f(x) is these one after the
other: U has m d rows, V k d, W is [k d, m d], and b has k d entries; the counts of parameters are for one of each.
The kinds that add the vector itself to the soft token take one site and one soft token only.
"""

# What the methods do is said once, in `Adapter`.
# ruff: noqa: D102
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from interp_toolkit.adapters.adapter import Adapter
from interp_toolkit.adapters.config import AdapterConfig


class Identity(Adapter):
    """f(x) = x, never normalised; 0 parameters. The untrained baseline of SelfIE (arXiv 2403.10949)."""

    kind = "identity"

    def make_parameters(self) -> None:
        pass

    def directions(self, vectors: Tensor) -> Tensor:
        """The vectors themselves in float32, after the checks of `Adapter.directions`."""
        super().directions(vectors)  # its checks; the normalised result is not wanted
        return vectors.float()

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return x * scale


class Scale(Adapter):
    """f(x) = s x^; 1 parameter; log_scale starts at ln(init_scale)."""

    kind = "scale"

    def make_parameters(self) -> None:
        self.log_scale = _log_scale(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.log_scale.exp() * (x * scale)


class BiasOnly(Adapter):
    """f(x) = b, whatever the vector; d parameters; b starts at 0. A control: its text is about nothing."""

    kind = "bias_only"
    takes_several = True

    def make_parameters(self) -> None:
        self.bias = _zero_bias(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.bias.expand(*x.shape[:-1], -1)


class ScalarAffine(Adapter):
    """f(x) = s x^ + b; d + 1 parameters; b starts at 0, log_scale at ln(init_scale)."""

    kind = "scalar_affine"

    def make_parameters(self) -> None:
        self.log_scale = _log_scale(self.config)
        self.bias = _zero_bias(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.log_scale.exp() * (x * scale) + self.bias


class LowRank(Adapter):
    """f(x) = (x^ U) V' + b; 2 d r + d parameters.

    U and V start at N(0, (init_scale * low_rank_factor / sqrt(r))^2), b at 0.
    """

    kind = "low_rank"
    takes_rank = True
    takes_several = True

    def make_parameters(self) -> None:
        self.U, self.V = _low_rank(self.config)
        self.bias = _zero_bias(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return (x * scale) @ self.U @ self.V.T + self.bias


class ScalarAffineLowRank(Adapter):
    """f(x) = s x^ + (x^ U) V' + b; 2 d r + d + 1 parameters; starts as `ScalarAffine` and `LowRank` do."""

    kind = "scalar_affine_low_rank"
    takes_rank = True

    def make_parameters(self) -> None:
        self.log_scale = _log_scale(self.config)
        self.U, self.V = _low_rank(self.config)
        self.bias = _zero_bias(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        x = x * scale
        return self.log_scale.exp() * x + x @ self.U @ self.V.T + self.bias


class FullRank(Adapter):
    """f(x) = W x^ + b; d^2 + d parameters.

    W starts at N(0, init_scale^2 / d), or at init_scale * I with ``identity_start``; b at 0.
    """

    kind = "full_rank"
    takes_several = True

    def make_parameters(self) -> None:
        rows, columns = self.config.d_model * self.config.tokens, self.config.width
        start = torch.eye(rows) if self.config.identity_start else torch.randn(rows, columns) / columns**0.5
        self.weight = nn.Parameter(start * self.config.init_scale)
        self.bias = _zero_bias(self.config)

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return (x * scale) @ self.weight.T + self.bias


def _log_scale(config: AdapterConfig) -> nn.Parameter:
    return nn.Parameter(torch.tensor([math.log(config.init_scale)]))


def _zero_bias(config: AdapterConfig) -> nn.Parameter:
    return nn.Parameter(torch.zeros(config.d_model * config.tokens))


def _low_rank(config: AdapterConfig) -> tuple[nn.Parameter, nn.Parameter]:
    """U and V at their random start."""
    assert config.rank is not None
    std = config.init_scale * config.low_rank_factor / math.sqrt(config.rank)
    return (
        nn.Parameter(torch.randn(config.width, config.rank) * std),
        nn.Parameter(torch.randn(config.d_model * config.tokens, config.rank) * std),
    )
