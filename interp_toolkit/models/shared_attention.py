"""Attention of many rows behind one shared prefix, which is neither copied nor expanded.

The bridge's own attention fires a hook at every step of the computation, and pays for it: keys and values are repeated
for every query head and joined anew with each token. Where nobody listens to those hooks, Hugging Face's attention runs
in its place with the function below; the residual stream's hook points, and those of the projections, fire as before.
The numbers are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformers import AttentionInterface

from interp_toolkit.models.attention import attend_at_once
from interp_toolkit.models.kv import KV
from interp_toolkit.models.state import has_hooks, replaced_forwards

_NAME = "interp_toolkit_shared_prefix"
# Attention that is projections, rotary positions, cache, attention function, projection, and nothing else.
_KNOWN = ("LlamaAttention", "Qwen2Attention", "Gemma2Attention")
# What transformers itself brings; any other is a function of the user's.
_STANDARD = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
# Tokens up to which a copy of the shared prefix for each row costs less than attention to both, apart.
MOST_COPIED = 4096
_prefix: ContextVar[KV | None] = ContextVar("prefix", default=None)


class GrowingCache:
    """What Hugging Face's attention takes for a cache: the keys and values, with room to grow in place."""

    def __init__(self, past: KV | None, layers: int, reserve: int) -> None:
        self._past = past
        self._reserve = reserve
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self.length = 0

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values of a layer.

        Args:
            keys: new ones, [batch, heads, new positions, d_head].
            values: likewise.
            layer_idx: number of the layer, as transformers names it.

        Returns:
            all keys and values of the layer so far, [batch, heads, positions, d_head].
        """
        old = self._past.layers[layer_idx] if self._past else (None, None)
        start = self._past.length if self._past else 0
        self.length = start + keys.shape[2]
        grown = tuple(self._append(buffer, start, new) for buffer, new in zip(old, (keys, values)))
        self.layers[layer_idx] = (grown[0], grown[1])
        return grown[0][:, :, : self.length], grown[1][:, :, : self.length]

    def _append(self, buffer: Tensor | None, start: int, new: Tensor) -> Tensor:
        end = start + new.shape[2]
        if buffer is not None and buffer.shape[2] >= end and not torch.is_grad_enabled():
            buffer[:, :, start:end] = new
            return buffer
        pieces = [new] if buffer is None else [buffer[:, :, :start], new]
        if self._reserve:
            pieces.append(new.new_empty(*new.shape[:2], self._reserve, new.shape[3]))
        return torch.cat(pieces, 2) if len(pieces) > 1 else new


class SharedAttention:
    """Puts the attention below into a bridge for the length of a pass, where it can stand in.

    Args:
        model: a `TransformerBridge`.
    """

    def __init__(self, model: Any) -> None:
        self._config = model.original_model.config
        self._layers = [block.attn for block in model.blocks if hasattr(block, "attn")]
        self._known = len(self._layers) == len(model.blocks) and all(
            type(attention.original_component).__name__ in _KNOWN for attention in self._layers
        )
        self._modules = [module for attention in self._layers for module in attention.modules()]
        # Hook points within the projections fire either way.
        self._passed = {
            module
            for attention in self._layers
            for name, module in attention.named_modules()
            if isinstance(module, HookPoint) and "." in name
        }

    def fits(self) -> bool:
        """Whether it computes what the model's attention does, where nobody listens to that."""
        return self._known and self._config._attn_implementation in _STANDARD

    def usable(self) -> bool:
        """Whether it gives all that anybody asks for: it fits, and nobody changed the attention."""
        return self.fits() and not any(has_hooks(module) for module in self._modules if module not in self._passed)

    @contextmanager
    def standing_in(self, prefix: KV | None) -> Iterator[None]:
        """For the length of the block, every attention layer reads ``prefix`` before its row's own tokens."""
        implementation = self._config._attn_implementation
        try:
            self._config._attn_implementation = _NAME
            forwards = [(attention, attention.original_component.forward) for attention in self._layers]
            with replaced_forwards(forwards), reading(prefix):
                yield
        finally:
            self._config._attn_implementation = implementation


@contextmanager
def reading(prefix: KV | None) -> Iterator[None]:
    """For the length of the block, `attend` reads ``prefix`` before its row's own tokens."""
    token = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention over the shared prefix and the tokens of each row, one softmax over both.

    Args:
        module: Hugging Face's attention; its ``layer_idx`` selects the layer of the prefix.
        query: [batch, heads, new, d_head].
        key: [batch, key heads, keys, d_head], the new tokens last.
        value: likewise.
        attention_mask: not used: rows are padded on the right alone.
        scaling: factor on the scores.
        softcap: c of c tanh(score / c), after the factor.
        sliding_window: how far back a token sees; None for all the way.

    Returns:
        [batch, new, heads, d_head], and None for the weights.
    """
    batch, heads, new, d_head = query.shape
    groups, n_keys = key.shape[1:3]
    shared = _prefix.get()
    past = shared.length if shared else 0
    hidden = _hidden(new, n_keys, past, sliding_window, query.device)
    if softcap is None and batch * past <= MOST_COPIED:
        before = shared.layers[module.layer_idx] if shared else None  # type: ignore[index]
        return attend_at_once(query, key, value, before, hidden, scaling).transpose(1, 2), None
    # Query heads that share a key head stand side by side, so they are further rows of the same product.
    rows = query.reshape(batch, groups, -1, d_head)
    scores = rows @ key.transpose(-1, -2)
    if shared:
        shared_key, shared_value = (x[0] for x in shared.layers[module.layer_idx])  # type: ignore[index]
        together = rows.transpose(0, 1).reshape(groups, -1, d_head)
        before = together @ shared_key.transpose(-1, -2)
        before = before.view(groups, batch, -1, past).transpose(0, 1)
        scores = torch.cat([before, scores], -1)
    scores = scores * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if hidden is not None:
        split = scores.view(batch, groups, heads // groups, new, past + n_keys)
        scores = split.masked_fill(hidden, -torch.inf).view(batch, groups, -1, past + n_keys)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    out = weights[..., past:] @ value
    if shared:
        together = weights[..., :past].transpose(0, 1).reshape(groups, -1, past)
        out = out + (together @ shared_value).view(groups, batch, -1, d_head).transpose(0, 1)
    return out.reshape(batch, heads, new, d_head).transpose(1, 2), None


def _hidden(new: int, n_keys: int, past: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys a new token must not see, [new, keys]; None where it sees all."""
    if new == 1 and (window is None or past + n_keys <= window):
        return None
    at = torch.arange(past + n_keys - new, past + n_keys, device=device)[:, None]
    keys = torch.arange(past + n_keys, device=device)
    return (keys > at) if window is None else (keys > at) | (keys <= at - window)


AttentionInterface.register(_NAME, attend)
