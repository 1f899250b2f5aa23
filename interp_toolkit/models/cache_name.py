"""The cache by the name that TransformerLens knows.

From version 5.24 on transformers hands attention its cache as ``cache``. The bridge's attention, in TransformerLens 3.9
and 4.3, asks for ``past_key_values`` and passes over the new name: nothing is put into the cache, and nothing is read
from it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge


def read_renamed_cache(model: Any) -> None:
    """Have every attention of a `TransformerBridge` read a cache that comes by its newer name.

    It stays on the model: its own `generate` needs it as much as this library does.
    """
    for block in model.blocks:
        for module in block.modules():
            if isinstance(module, AttentionBridge):
                module.register_forward_pre_hook(_by_old_name, with_kwargs=True)


def _by_old_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    forward: Any = module.forward
    # Where Hugging Face's own attention does the work, it knows its own words and warns at the older ones. A user's
    # function in place of `forward` most likely hands on to the bridge's.
    delegates = getattr(forward, "__self__", module) is not module
    delegates = delegates or getattr(forward, "__func__", None) is AttentionBridge.forward
    if "cache" not in kwargs or delegates:
        return None
    return args, {("past_key_values" if name == "cache" else name): value for name, value in kwargs.items()}
