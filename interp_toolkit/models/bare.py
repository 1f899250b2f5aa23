"""The blocks of a Llama or Qwen2 model without their hook points, for passes in which nobody listens inside.

A token of one row takes about as long in the modules, hooks and caches around the products as in the products
themselves. Where a pass is known to be nothing but norms, projections, rotary positions, attention and a gated MLP, it
is written out here; only the stream between blocks can be read and written. The operations and their order are those of
transformers, so the numbers are too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from interp_toolkit.models.kv import KV, Edit
from interp_toolkit.models.products import Products
from interp_toolkit.models.shared_attention import MOST_COPIED, GrowingCache, attend, reading
from interp_toolkit.models.threads import rows_in_threads
from interp_toolkit.models.wrapped import inner_module
from interp_toolkit.sites import Site

_FAMILIES = ("Llama", "Qwen2")
_HOOKS = ("hook_resid_pre", "hook_resid_post")
# Rotary frequencies that change with the length of the text are left to transformers.
_ROTARY = ("default", "linear", "llama3")


@dataclass(frozen=True, eq=False)
class _Block:
    """The modules of a block, out of those that a bridge wraps around them."""

    block: Any
    attention: Any
    mlp: Any
    norms: tuple[Any, Any]
    queries_keys_values: tuple[nn.Linear, ...]
    output: tuple[nn.Linear, ...]
    gate_up: tuple[nn.Linear, ...]
    down: tuple[nn.Linear, ...]
    activation: Callable[[Tensor], Tensor]

    @classmethod
    def from_bridge(cls, bridge: Any) -> _Block:
        """Look through a bridge's block; an AttributeError says that it consists of other modules."""
        block = inner_module(bridge)
        attention, mlp = inner_module(block.self_attn), inner_module(block.mlp)

        def matrices(parent: Any, *names: str) -> tuple[nn.Linear, ...]:
            return tuple(inner_module(getattr(parent, f"{name}_proj")) for name in names)

        return cls(
            block,
            attention,
            mlp,
            (inner_module(block.input_layernorm), inner_module(block.post_attention_layernorm)),
            matrices(attention, "q", "k", "v"),
            matrices(attention, "o"),
            matrices(mlp, "gate", "up"),
            matrices(mlp, "down"),
            inner_module(mlp.act_fn),
        )

    def is_of(self, family: str) -> bool:
        """Whether the block consists of the modules that its family has in transformers, with plain matrices."""
        named = {"DecoderLayer": [self.block], "Attention": [self.attention], "MLP": [self.mlp], "RMSNorm": self.norms}
        matrices = (*self.queries_keys_values, *self.output, *self.gate_up, *self.down)
        return all(
            type(module).__name__ == f"{family}{name}" and type(module).__module__.startswith("transformers.")
            for name, modules in named.items()
            for module in modules
        ) and all(type(matrix) is nn.Linear for matrix in matrices)


class BareBlocks:
    """The blocks of a `TransformerBridge` as products alone.

    Args:
        model: a `TransformerBridge`.
        base: Hugging Face's model without its head.
        products: with its matrices.
    """

    def __init__(self, model: Any, base: Any, products: Products) -> None:
        self._model, self._base, self._products = model, base, products
        self._blocks: list[_Block] = []
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
        try:
            self._blocks = [_Block.from_bridge(block) for block in self._model.blocks]
        except AttributeError:
            return False
        devices = {parameter.device for parameter in self._base.parameters()}
        return len(devices) == 1 and all(block.is_of(family) for block in self._blocks)

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
        self._products.begin_pass()
        batch, length = tokens.shape
        start = past.total if past else 0
        positions = torch.arange(start, start + length, device=tokens.device)[None]
        prefix, per_row = past.behind() if past else (None, None)
        if past and prefix and reserve and batch * prefix.length <= MOST_COPIED:
            prefix, per_row = None, KV(past.whole(batch, 2), start)
        cache = GrowingCache(per_row, len(self._blocks), reserve) if per_row or keep else None
        stream = _edited(inner_module(self._base.embed_tokens)(tokens), edits, Site.embedding())
        cos, sin = (x[:, None] for x in inner_module(self._base.rotary_emb)(stream, positions))
        turn = _Turn(cos, sin)
        inside = {site: edit for site, edit in edits.items() if not site.is_embedding}

        def through_blocks(stream: Tensor) -> Tensor:
            with reading(prefix):
                for layer, block in enumerate(self._blocks):
                    if inside:
                        stream = _edited(stream, inside, Site(layer, "hook_resid_pre"))
                    stream = stream + self._attention(block, stream, turn, cache, layer)
                    stream = stream + self._mlp(block, stream)
                    if inside:
                        stream = _edited(stream, inside, Site(layer, "hook_resid_post"))
            return _norm(inner_module(self._base.norm), stream)

        if cache is None and not inside:
            return rows_in_threads(through_blocks, stream, length), None
        final = through_blocks(stream)
        layers: Any = tuple(cache.layers) if cache and keep else ()
        return final, KV(layers, cache.length, prefix) if cache and keep else None

    def _attention(self, block: _Block, stream: Tensor, turn: _Turn, cache: GrowingCache | None, layer: int) -> Tensor:
        batch, length, _ = stream.shape
        d_head = block.attention.head_dim
        queries, keys, values = (
            projected.view(batch, length, -1, d_head).transpose(1, 2)
            for projected in self._products(_norm(block.norms[0], stream), block.queries_keys_values)
        )
        queries, keys = turn(queries), turn(keys)
        if cache is not None:
            keys, values = cache.update(keys, values, layer)
        mixed, _ = attend(block.attention, queries, keys, values, None, block.attention.scaling)
        return self._products(mixed.reshape(batch, length, -1), block.output)[0]

    def _mlp(self, block: _Block, stream: Tensor) -> Tensor:
        gate, up = self._products(_norm(block.norms[1], stream), block.gate_up)
        return self._products(block.activation(gate) * up, block.down)[0]


class _Turn:
    """Turns queries or keys [batch, heads, position, d_head] to their rotary positions."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self._half = cos.shape[-1] // 2
        # The sign of the half that is negated, which changes no bit of the product.
        self._cos, self._sin = cos, torch.cat([-sin[..., : self._half], sin[..., self._half :]], -1)

    def __call__(self, x: Tensor) -> Tensor:
        halves = x.split(self._half, -1)
        return (x * self._cos).add_(torch.cat(halves[::-1], -1).mul_(self._sin))


def _norm(norm: Any, x: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Norm.apply(x, norm.weight, norm.variance_epsilon)
        return result
    wide = x.float()
    return norm.weight * (wide * _inverse_size(wide, norm.variance_epsilon)).to(x.dtype)


def _inverse_size(wide: Tensor, epsilon: float) -> Tensor:
    return torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)


class _Norm(torch.autograd.Function):
    """The norm in three operations less on the way back than torch records."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        inverse = _inverse_size(wide, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return weight * (wide * inverse).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad, wide = (grad * weight).float(), x.float()
        # What changes the size of x alone changes nothing behind the norm.
        along = torch.linalg.vecdot(grad, wide).unsqueeze(-1) * (inverse.square() / x.shape[-1])
        return torch.addcmul(grad, wide, along, value=-1).mul_(inverse).to(x.dtype), None, None


def _edited(stream: Tensor, edits: Mapping[Site, Edit], site: Site) -> Tensor:
    if site not in edits:
        return stream
    new = edits[site](stream)
    return stream if new is None else new


def _slides(config: Any) -> bool:
    """Whether some layers see a window of the text alone, or rotary frequencies depend on its length."""
    rotary = (getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}).get("rope_type")
    sliding = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return sliding or bool(getattr(config, "use_sliding_window", False)) or rotary not in (None, *_ROTARY)
