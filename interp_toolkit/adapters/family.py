"""The family of adapters, simplest first (arXiv 2602.10352, section 3).

Throughout, x^ = x / (|x| + 1e-8) where the config normalises and x otherwise; s = exp(log_scale); d = d_model;
r = rank. For m sites x^ is their normalised vectors side by side, and for k soft tokens f(x) is these one after the
other: U has m d rows, V k d, W is [k d, m d], and b has k d entries; the counts of parameters are for one of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from interp_toolkit.adapters.adapter import Adapter


class Identity(Adapter):
    """f(x) = x, never normalised; 0 parameters. The untrained baseline of SelfIE (arXiv 2403.10949)."""

    kind = "identity"

    def _declare(self) -> None:
        pass

    def forward(self, vectors: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """The vectors themselves, in float32, times ``scale``."""
        self.directions(vectors)  # its checks; the normalised result is not wanted
        return vectors.float() * scale

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return x * scale


class Scale(Adapter):
    """f(x) = s x^; 1 parameter; log_scale starts at ln(init_scale)."""

    kind = "scale"

    def _declare(self) -> None:
        self._make_scale()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.log_scale.exp() * (x * scale)


class BiasOnly(Adapter):
    """f(x) = b, whatever the vector; d parameters; b starts at 0. A control: its text is about nothing."""

    kind = "bias_only"

    def _declare(self) -> None:
        self._make_bias()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.bias.expand(*x.shape[:-1], -1)


class ScalarAffine(Adapter):
    """f(x) = s x^ + b; d + 1 parameters; b starts at 0, log_scale at ln(init_scale)."""

    kind = "scalar_affine"

    def _declare(self) -> None:
        self._make_scale()
        self._make_bias()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return self.log_scale.exp() * (x * scale) + self.bias


class LowRank(Adapter):
    """f(x) = (x^ U) V' + b; 2 d r + d parameters.

    U and V start at N(0, (init_scale * low_rank_factor / sqrt(r))^2), b at 0.
    """

    kind = "low_rank"

    def _declare(self) -> None:
        self._make_low_rank()
        self._make_bias()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return (x * scale) @ self.U @ self.V.T + self.bias


class ScalarAffineLowRank(Adapter):
    """f(x) = s x^ + (x^ U) V' + b; 2 d r + d + 1 parameters; starts as `ScalarAffine` and `LowRank` do."""

    kind = "scalar_affine_low_rank"

    def _declare(self) -> None:
        self._make_scale()
        self._make_low_rank()
        self._make_bias()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        x = x * scale
        return self.log_scale.exp() * x + x @ self.U @ self.V.T + self.bias


class FullRank(Adapter):
    """f(x) = W x^ + b; d^2 + d parameters.

    W starts at N(0, init_scale^2 / d), or at init_scale * I with ``identity_start``; b at 0.
    """

    kind = "full_rank"

    def _declare(self) -> None:
        rows, columns = self.config.d_model * self.config.tokens, self.config.width
        start = torch.eye(rows) if self.config.identity_start else torch.randn(rows, columns) / columns**0.5
        self.weight = nn.Parameter(start * self.config.init_scale)
        self._make_bias()

    def _map(self, x: Tensor, scale: Tensor | float) -> Tensor:
        return (x * scale) @ self.weight.T + self.bias
