"""Models of transformers inside a `TransformerBridge`: which bridge, and whose attention runs."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

_KEPT = "_interp_toolkit_bridge"


class _Kept:
    """Holds a bridge on the model inside it, so that both are freed together; copies of the model have none."""

    def __init__(self, bridge: Any = None) -> None:
        self.bridge = bridge

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


def keep_bridge(hf_model: nn.Module, bridge: Any) -> None:
    """Remember which bridge a model lies in."""
    hf_model.__dict__[_KEPT] = _Kept(bridge)  # past nn.Module, which would take it for a part of the model


def kept_bridge(hf_model: nn.Module) -> Any:
    """The bridge that `keep_bridge` was told of; None for a model that has none."""
    kept = hf_model.__dict__.get(_KEPT)
    return kept.bridge if kept and kept.bridge is not None and kept.bridge.original_model is hf_model else None


def has_wrapped_modules(hf_model: nn.Module) -> bool:
    """Whether modules of a bridge lie in the model's tree."""
    return any(isinstance(module, GeneralizedComponent) for module in hf_model.modules())


def use_native_attention(bridge: Any) -> bool:
    """Put Hugging Face's attention back in its place in the model's tree; False where it was there all along.

    Its projections stay wrapped. Hook points of the attention itself do not fire any more.
    """
    places = [
        (parent, name, child)
        for parent in bridge.original_model.modules()
        for name, child in parent._modules.items()
        if isinstance(child, AttentionBridge) and child.original_component is not None
    ]
    for parent, name, child in places:
        parent._modules[name] = child.original_component
    return bool(places)
