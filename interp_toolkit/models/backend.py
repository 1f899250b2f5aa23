"""The two TransformerLens classes behind one face; nothing above this module asks which of them it has."""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens import TransformerLensKeyValueCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.cache_name import read_renamed_cache
from interp_toolkit.models.kv import KV
from interp_toolkit.models.recompute import recomputing
from interp_toolkit.models.shared_attention import GrowingCache, SharedAttention
from interp_toolkit.sites import Site

try:  # TransformerLens 4 has the bridge only.
    from transformer_lens import HookedTransformer
except ImportError:
    HookedTransformer = None

Edit = Callable[[Tensor], Tensor | None]
"""What a hook does to the stream at its site: a tensor [batch, position, d_model] in, its replacement (or None) out."""

# A context level of our own, so that taking our hooks off leaves those of the caller where they are.
_HOOK_LEVEL = 1_000_003


class StopForward(Exception):
    """Raised by an edit to end a forward pass early, once all that was asked for has been seen."""


class Backend(ABC):
    """One way through a hooked model: token ids in, final hidden states out, with hooks and a shared past.

    Every row of a batch is read from its first token on; shorter rows are padded on the right, where no real token
    looks, so no mask is ever needed.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        cfg = model.cfg
        self.d_model: int = cfg.d_model
        self.n_layers: int = cfg.n_layers
        # c of c tanh(logit / c), as Gemma 2 has it; 0 for none.
        self.soft_cap: float = float(getattr(cfg, "output_logits_soft_cap", 0) or 0)

    @abstractmethod
    def _hook_point(self, name: str) -> HookPoint | None: ...

    @abstractmethod
    def _run(self, tokens: Tensor, past: KV | None, keep: bool, reserve: int) -> tuple[Tensor, KV | None]: ...

    @abstractmethod
    def unembedded(self, hidden: Tensor) -> Tensor:
        """Final hidden states [n, d_model] times the unembedding: [n, vocabulary] in the model's dtype."""

    @property
    @abstractmethod
    def embedding_weight(self) -> Tensor:
        """The token embedding, [vocabulary, d_model]; Gemma's holds its factor of sqrt(d_model) in one class only."""

    @property
    def device(self) -> torch.device:
        """Where the embedding lives, and so where token ids and soft tokens must be."""
        return self.embedding_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embedding_weight.dtype

    def hidden(
        self,
        tokens: Tensor,
        past: KV | None = None,
        edits: Mapping[Site, Edit] | None = None,
        keep: bool = False,
        reserve: int = 0,
        recompute: bool = False,
    ) -> tuple[Tensor, KV | None]:
        """Final hidden states, after the last norm, of ``tokens`` read behind ``past``.

        Args:
            tokens: ids, [batch, position].
            past: keys and values of the tokens before: of each row, or of one row that all share.
            edits: what to do to the residual stream at which site.
            keep: also give the keys and values of past and tokens together.
            reserve: how many further tokens to keep room for, so that they can be added without a copy. Of several
                passes that go on from the same `KV`, only the last leaves one that can be used.
            recompute: compute the insides of blocks anew in the backward pass instead of keeping them: less memory,
                a third more time. Not together with ``keep``.

        Returns:
            hidden states [batch, position, d_model], and the grown `KV` or None.
        """
        hooks = edits or {}
        with self._hooked(hooks):
            if not recompute:
                return self._run(tokens, past, keep, reserve)
            with recomputing(list(self.model.blocks), partial(self._around, hooks, past)):
                return self._run(tokens, past, keep, reserve)

    @contextmanager
    def _around(self, edits: Mapping[Site, Edit], past: KV | None) -> Iterator[None]:
        """What surrounds blocks in `hidden`, for when they run anew."""
        with self._hooked(edits):
            yield

    def visit(self, tokens: Tensor, past: KV | None, edits: Mapping[Site, Edit]) -> None:
        """Run ``tokens`` for the sake of the edits alone; one of them may end the pass with `StopForward`."""
        with suppress(StopForward):
            self.hidden(tokens, past, edits)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [..., vocabulary] of final hidden states [..., d_model]."""
        # Two axes, whatever came: on a CPU three of them, cut from a larger tensor, take a path four times slower.
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = self.unembedded(flat).float()
        if self.soft_cap > 0:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits.view(*hidden.shape[:-1], -1)

    def require(self, site: Site) -> HookPoint:
        """The hook point of a site.

        Raises:
            InterpToolkitError: the model has no such layer or stream.
        """
        site.require_in(self.n_layers)
        # The class itself may ignore a name it does not know, so every name is looked up first.
        point = self._hook_point(str(site))
        if point is None:
            raise InterpToolkitError(f"{type(self.model).__name__} has no hook point {site}; choose another stream")
        return point

    @contextmanager
    def _hooked(self, edits: Mapping[Site, Edit]) -> Iterator[None]:
        # Hooks go on the hook points directly: the classes' own `hooks()` walk over every name of the model first,
        # which costs as much as decoding a token.
        points = []
        try:
            for site, edit in edits.items():
                point = self.require(site)
                points.append(point)
                point.add_hook(lambda tensor, hook, edit=edit: edit(tensor), level=_HOOK_LEVEL)
            yield
        finally:
            for point in points:
                point.remove_hooks("fwd", level=_HOOK_LEVEL)


class _FixedCache(DynamicCache):
    """Keys and values that a pass reads and does not add to, so that a block may run twice."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        layer: Any = self.layers[layer_idx]
        return torch.cat([layer.keys, key_states], -2), torch.cat([layer.values, value_states], -2)


class BridgeBackend(Backend):
    """`TransformerBridge`: Hugging Face's own modules with hook points between them."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._shared_attention = SharedAttention(model)
        # What transformers calls the cache: `cache` from 5.24 on, `past_key_values` before.
        renamed = "cache" in inspect.signature(model.original_model.base_model.forward).parameters
        self._cache_name = "cache" if renamed else "past_key_values"
        if renamed:
            read_renamed_cache(model)

    def _hook_point(self, name: str) -> HookPoint | None:
        return self.model.get_hook_point(name)

    def _run(self, tokens: Tensor, past: KV | None, keep: bool, reserve: int) -> tuple[Tensor, KV | None]:
        start = past.total if past else 0
        batch, length = tokens.shape
        positions = torch.arange(start, start + length, device=tokens.device).expand(batch, -1)
        # The base model stops before the vocabulary; logits are taken later, where they are wanted.
        run = partial(self.model.original_model.base_model, input_ids=tokens, position_ids=positions)
        if self._shared_attention.usable():
            prefix, own = past.behind() if past else (None, None)
            cache = GrowingCache(own, self.n_layers, reserve) if own or keep else None
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
    def _around(self, edits: Mapping[Site, Edit], past: KV | None) -> Iterator[None]:
        with super()._around(edits, past):
            if not self._shared_attention.usable():
                yield
                return
            with self._shared_attention.standing_in(past.behind()[0] if past else None):
                yield

    def unembedded(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return self.model.unembed(hidden[None]).squeeze(0)

    @property
    def embedding_weight(self) -> Tensor:  # noqa: D102
        return self.model.original_model.get_input_embeddings().weight


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
    def embedding_weight(self) -> Tensor:  # noqa: D102
        return self.model.W_E


_backends: weakref.WeakKeyDictionary[nn.Module, Backend] = weakref.WeakKeyDictionary()


def is_hooked_model(value: object) -> bool:
    """Whether ``value`` is one of the two classes that serve."""
    return isinstance(value, TransformerBridge) or (
        HookedTransformer is not None and isinstance(value, HookedTransformer)
    )


def backend_of(model: Any) -> Backend:
    """The `Backend` of a hooked model, made once and kept as long as the model.

    Raises:
        InterpToolkitError: ``model`` is neither a `TransformerBridge` nor a `HookedTransformer`.
    """
    if not is_hooked_model(model):
        raise InterpToolkitError(
            f"expected a hooked model (TransformerBridge or HookedTransformer), got {type(model).__name__}; "
            f"load one with interp_toolkit.load_model"
        )
    if model not in _backends:
        _backends[model] = (
            BridgeBackend(model) if isinstance(model, TransformerBridge) else (HookedTransformerBackend(model))
        )
    return _backends[model]
