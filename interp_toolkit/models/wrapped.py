"""Models of transformers inside a `TransformerBridge`: which bridge, and whose attention runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from interp_toolkit.models.attached import Attached

_ATTRIBUTE = "_interp_toolkit_bridge"


def attach_bridge(hf_model: nn.Module, bridge: Any) -> None:
    """Store on a model of transformers the bridge that it lies in."""
    hf_model.__dict__[_ATTRIBUTE] = Attached(bridge)


def attached_bridge(hf_model: nn.Module) -> Any:
    """Return the bridge that `attach_bridge` stored; None for a model that lies in none."""
    attached = hf_model.__dict__.get(_ATTRIBUTE)
    bridge = attached.value if attached else None
    return bridge if bridge is not None and bridge.original_model is hf_model else None


def inner_module(module: Any) -> Any:
    """Return what a bridge's module wraps, and any other module as it is."""
    while (inner := getattr(module, "original_component", None)) is not None:
        module = inner
    return module


def has_wrapped_modules(hf_model: nn.Module) -> bool:
    """Whether modules of a bridge lie in the model's tree."""
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    return any(isinstance(module, GeneralizedComponent) for module in hf_model.modules())


def use_native_modules(bridge: Any, all_inside: bool = False) -> list[str]:
    """Put Hugging Face's modules back in their places in the model's tree, instead of TransformerLens's around them.

    Hook points of the modules around them do not fire any more; those of blocks and norms do.

    Args:
        bridge: the bridge.
        all_inside: all that lies in blocks but norms, not attention alone.

    Returns:
        the class names of what was put back.
    """
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
    from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

    names: set[str] = set()
    for block in bridge.blocks:
        for parent in list(block.original_component.modules()):
            for name, child in parent._modules.items():
                replaceable = isinstance(child, GeneralizedComponent) and not isinstance(child, NormalizationBridge)
                if replaceable and (all_inside or isinstance(child, AttentionBridge)):
                    parent._modules[name] = child.original_component
                    names.add(type(child.original_component).__name__)
    return sorted(names)


@contextmanager
def unwrapped(module: nn.Module, for_good: bool = False) -> Iterator[None]:
    """For the length of the block, Hugging Face's modules in place of TransformerLens's around them.

    Args:
        module: the model of transformers that lies in a bridge.
        for_good: leave it so.
    """
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def unwrap(parent: nn.Module) -> None:
        for name, child in list(parent._modules.items()):
            if isinstance(child, GeneralizedComponent):
                replaced.append((parent, name, child))
                while isinstance(child, GeneralizedComponent):
                    child = child.original_component
                parent._modules[name] = child
            if child is not None:
                unwrap(child)

    try:
        unwrap(module)
        yield
    finally:
        for parent, name, child in () if for_good else reversed(replaced):
            parent._modules[name] = child
