"""The blocks of a Llama or Qwen2 model without their hook points, for passes in which nobody listens inside.

A token of one row takes about as long in the modules, hooks and caches around the products as in the products
themselves. Where a pass is known to be nothing but norms, projections, rotary positions, attention and a gated MLP, it
is written out here; only the stream between blocks can be read and written. The operations and their order are those of
transformers, so the numbers are too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from interp_toolkit.models.kv import KV, Edit
from interp_toolkit.models.shared_attention import GrowingCache, attend, reading
from interp_toolkit.sites import Site

_FAMILIES = ("Llama", "Qwen2")
_HOOKS = ("hook_resid_pre", "hook_resid_post")
# Rotary frequencies that change with the length of the text are left to transformers.
_ROTARY = ("default", "linear", "llama3")


class BareBlocks:
    """The blocks of a `TransformerBridge` as products alone.

    Args:
        model: a `TransformerBridge`.
        base: Hugging Face's model without its head.
    """

    def __init__(self, model: Any, base: Any) -> None:
        self._model, self._base = model, base
        self._blocks: list[Any] = []
        self._seen: Sequence[nn.Module] = ()
        self._known = False

    def usable(self, edits: Mapping[Site, Edit], modules: Sequence[nn.Module]) -> bool:
        """Whether a pass with these edits is what is written here, given that nothing of a user's is on the model.

        Args:
            edits: of the pass, by site.
            modules: of the model as it is now; one that has been replaced may compute something else.
        """
        if modules != self._seen:
            self._seen, self._known = modules, self._find_blocks()
        in_stream = all(site.is_embedding or site.hook in _HOOKS for site in edits)
        return self._known and in_stream and not getattr(self._model, "compatibility_mode", False)

    def _find_blocks(self) -> bool:
        """Whether all blocks are of a known family and on one device."""
        family = type(self._base).__name__.removesuffix("Model")
        if family not in _FAMILIES or _slides(self._base.config):
            return False
        self._blocks = [_bare(block) for block in self._model.blocks]
        devices = {parameter.device for parameter in self._base.parameters()}
        return len(devices) == 1 and all(_is_known(block, family) for block in self._blocks)

    def run(
        self, tokens: Tensor, past: KV | None, edits: Mapping[Site, Edit], keep: bool, reserve: int
    ) -> tuple[Tensor, KV | None]:
        """Final hidden states, after the last norm, of ``tokens`` read behind ``past``; see `Backend.hidden`.

        Args:
            tokens: ids, [batch, position].
            past: keys and values of the tokens before, or None.
            edits: what to do to the stream between blocks, by site.
            keep: also give the keys and values.
            reserve: how many further tokens to keep room for.
        """
        start = past.total if past else 0
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
        prefix, per_row = past.behind() if past else (None, None)
        cache = GrowingCache(per_row, len(self._blocks), reserve) if per_row or keep else None
        stream = _edited(_bare(self._base.embed_tokens)(tokens), edits, Site.embedding())
        cos, sin = (x[:, None] for x in _bare(self._base.rotary_emb)(stream, positions))
        with reading(prefix):
            for layer, block in enumerate(self._blocks):
                stream = _edited(stream, edits, Site(layer, "hook_resid_pre"))
                stream = stream + _attention(block, stream, cos, sin, cache, layer)
                stream = stream + _mlp(block, stream)
                stream = _edited(stream, edits, Site(layer, "hook_resid_post"))
        layers: Any = tuple(cache.layers) if cache and keep else ()
        return _norm(self._base.norm, stream), KV(layers, cache.length, prefix) if cache and keep else None


def _attention(block: Any, stream: Tensor, cos: Tensor, sin: Tensor, cache: GrowingCache | None, layer: int) -> Tensor:
    attention = _bare(block.self_attn)
    x = _norm(block.input_layernorm, stream)
    batch, length, _ = x.shape
    queries, keys, values = (
        _projected(x, projection).view(batch, length, -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    queries, keys = _turned(queries, cos, sin), _turned(keys, cos, sin)
    if cache is not None:
        keys, values = cache.update(keys, values, layer)
    mixed, _ = attend(attention, queries, keys, values, None, attention.scaling)
    return _projected(mixed.reshape(batch, length, -1), attention.o_proj)


def _mlp(block: Any, stream: Tensor) -> Tensor:
    mlp = _bare(block.mlp)
    x = _norm(block.post_attention_layernorm, stream)
    return _projected(_bare(mlp.act_fn)(_projected(x, mlp.gate_proj)) * _projected(x, mlp.up_proj), mlp.down_proj)


def _projected(x: Tensor, projection: nn.Module) -> Tensor:
    weights: Any = _bare(projection)
    return linear(x, weights.weight, weights.bias)


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    weights: Any = _bare(norm)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + weights.variance_epsilon)
    return weights.weight * wide.to(x.dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys at their rotary positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _edited(stream: Tensor, edits: Mapping[Site, Edit], site: Site) -> Tensor:
    if site not in edits:
        return stream
    new = edits[site](stream)
    return stream if new is None else new


def _bare(module: Any) -> Any:
    """What a bridge's module wraps."""
    while (inner := getattr(module, "original_component", None)) is not None:
        module = inner
    return module


def _is_known(block: Any, family: str) -> bool:
    """Whether a block consists of the modules that its family has in transformers, with plain matrices."""
    try:
        attention, mlp = _bare(block.self_attn), _bare(block.mlp)
        norms = [_bare(block.input_layernorm), _bare(block.post_attention_layernorm)]
        projections = [getattr(attention, f"{name}_proj") for name in "qkvo"]
        projections += [getattr(mlp, f"{name}_proj") for name in ("gate", "up", "down")]
    except AttributeError:
        return False
    named = {"DecoderLayer": [block], "Attention": [attention], "MLP": [mlp], "RMSNorm": norms}
    return all(
        type(module).__name__ == f"{family}{name}" and type(module).__module__.startswith("transformers.")
        for name, modules in named.items()
        for module in modules
    ) and all(type(_bare(projection)) is nn.Linear for projection in projections)


def _slides(config: Any) -> bool:
    """Whether some layers see a window of the text alone, or rotary frequencies depend on its length."""
    rotary = (getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}).get("rope_type")
    sliding = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return sliding or bool(getattr(config, "use_sliding_window", False)) or rotary not in (None, *_ROTARY)
