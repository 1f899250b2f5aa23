"""The way through a `TransformerBridge`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformers import DynamicCache

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.backend import Backend
from interp_toolkit.models.bare import BareBlocks
from interp_toolkit.models.cache_name import read_renamed_cache
from interp_toolkit.models.head import Head, base_of
from interp_toolkit.models.kv import KV, Edit
from interp_toolkit.models.products import Products
from interp_toolkit.models.shared_attention import GrowingCache, SharedAttention
from interp_toolkit.models.state import has_hooks
from interp_toolkit.sites import Site


class _FixedCache(DynamicCache):
    """Keys and values that a pass reads and does not add to, so that a block may run twice."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        layer: Any = self.layers[layer_idx]
        return torch.cat([layer.keys, key_states], -2), torch.cat([layer.values, value_states], -2)


class BridgeBackend(Backend):
    """`TransformerBridge`: Hugging Face's own modules with hook points between them."""

    def __init__(self, model: Any) -> None:
        self._products = Products()
        super().__init__(model)
        self._shared_attention = SharedAttention(model)
        self._base = base_of(model.original_model)
        self._bare = BareBlocks(model, self._base, self._products)
        self._head = Head(model.original_model, self._base, self._products)
        # What transformers calls the cache: `cache` from 5.24 on, `past_key_values` before.
        renamed = "cache" in inspect.signature(self._base.forward).parameters
        self._cache_name = "cache" if renamed else "past_key_values"
        if renamed:
            read_renamed_cache(model)

    def _look(self) -> tuple[str | None, bytes]:
        for module in (self.model, self.model.original_model):
            if has_hooks(module):
                raise InterpToolkitError(
                    f"{type(module).__name__} as a whole has a hook or a replaced forward, which passes here go past; "
                    f"take it off, or put it on a block, a module or a hook point inside"
                )
        change, version = super()._look()
        self._products.see(version, self._parameters)
        return change, version

    def _hook_point(self, name: str) -> HookPoint | None:
        # Where a norm follows the embedding, as in BLOOM, the bridge's `hook_embed` lies behind the norm.
        if name == str(Site.embedding()):
            name = "embed.hook_out"
        return self.model.get_hook_point(name)

    def _run(self, tokens: Tensor, past: KV | None, keep: bool, reserve: int) -> tuple[Tensor, KV | None]:
        start = past.total if past else 0
        batch, length = tokens.shape
        positions = torch.arange(start, start + length, device=tokens.device).expand(batch, -1)
        # The base model stops before the vocabulary; logits are taken later, where they are wanted.
        run = partial(self._base, input_ids=tokens, position_ids=positions)
        if self.change is None and self._shared_attention.usable():
            prefix, per_row = past.behind() if past else (None, None)
            cache = GrowingCache(per_row, self.n_layers, reserve) if per_row or keep else None
            with self._shared_attention.standing_in(prefix):
                out = run(**{self._cache_name: cache}, use_cache=False)
            layers: Any = tuple(cache.layers) if cache and keep else ()
            return out.last_hidden_state, KV(layers, cache.length, prefix) if cache and keep else None
        kind = DynamicCache if keep else _FixedCache
        cache = kind(past.whole(batch, 2) if past else None) if past or keep else None
        mask = tokens.new_ones(batch, start + length)
        out = run(attention_mask=mask, **{self._cache_name: cache}, use_cache=cache is not None)
        layers = tuple((keys, values) for keys, values, *_ in cache) if cache is not None and keep else ()
        return out.last_hidden_state, KV(layers, start + length) if keep else None

    @contextmanager
    def _again(self, edits: Mapping[Site, Edit], past: KV | None) -> Iterator[None]:
        with super()._again(edits, past):
            if self.change is not None or not self._shared_attention.usable():
                yield
                return
            with self._shared_attention.standing_in(past.behind()[0] if past else None):
                yield

    def _is_bare(self, edits: Mapping[Site, Edit]) -> bool:
        # Without hook points blocks are not called, and so would not be put together from their shares.
        plain = not self.sharded and self.change is None and self._change_now() is None
        return plain and self._shared_attention.fits() and self._bare.usable(edits, self._modules)

    def _run_bare(
        self, tokens: Tensor, past: KV | None, edits: Mapping[Site, Edit], keep: bool, reserve: int
    ) -> tuple[Tensor, KV | None]:
        for site in edits:
            self._point(site)
        return self._bare.run(tokens, past, edits, keep, reserve)

    def unembedded(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return self._head.unembedded(hidden)

    @cached_property
    def logit_transform(self) -> Callable[[Tensor], Tensor] | None:  # noqa: D102
        return self._head.transform()

    @property
    def embedding_weight(self) -> Tensor:  # noqa: D102
        return self.model.original_model.get_input_embeddings().weight
