"""The way through a `HookedTransformer`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformer_lens import TransformerLensKeyValueCache
from transformer_lens.hook_points import HookPoint

from interp_toolkit.models.backend import Backend
from interp_toolkit.models.kv import KV


class HookedTransformerBackend(Backend):
    """`HookedTransformer`: TransformerLens 3's own implementation of the model."""

    def _hook_point(self, name: str) -> HookPoint | None:
        return self.model.hook_dict.get(name)

    def _run(self, tokens: Tensor, past: KV | None, keep: bool, reserve: int) -> tuple[Tensor, KV | None]:
        start = past.total if past else 0
        batch, length = tokens.shape
        ones = tokens.new_ones(batch, length)
        cache = None
        if past or keep:
            cache = TransformerLensKeyValueCache.init_cache(self.model.cfg, self.model.cfg.device, batch)
            cache.previous_attention_mask = tokens.new_ones(batch, start)
            for entry, (keys, values) in zip(cache.entries, past.whole(batch, 1) if past else ()):
                entry.past_keys, entry.past_values = keys, values
            if not keep:
                cache.freeze()  # what nobody asks for is not stored, and a block may run twice
        # The mask is of the new tokens only, and always given: without one it is guessed from the padding token,
        # which may well be a real one.
        hidden = self.model(tokens, past_kv_cache=cache, attention_mask=ones, stop_at_layer=self.n_layers)
        layers = tuple((entry.past_keys, entry.past_values) for entry in cache.entries) if cache and keep else ()
        return self.model.ln_final(hidden), KV(layers, start + length) if keep else None

    def unembedded(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return self.model.unembed(hidden[None]).squeeze(0)

    @property
    def logit_transform(self) -> Callable[[Tensor], Tensor] | None:  # noqa: D102
        cap = self.model.cfg.output_logits_soft_cap
        return (lambda rows: cap * torch.tanh(rows / cap)) if cap > 0 else None

    @property
    def embedding_weight(self) -> Tensor:  # noqa: D102
        return self.model.W_E
