"""Torch's tensor as a type, for modules that are to be imported without torch, which takes more than a second."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any

__all__ = ["Tensor", "is_tensor"]


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor; nothing is while torch is not imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
