"""Whether a hooked model computes what the model that it stands for computes: a few tokens, before any use."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models.hooked import backend_of, is_bridge
from interp_toolkit.models.wrapped import unwrapped
from interp_toolkit.sites import Site

logger = logging.getLogger(__name__)

_TOKENS, _PREFIX = 8, 4
# Rounding between two ways to compute the same stays well under these shares, and faults are well over them.
_TOLERANCES = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class PlainPass:
    """What a model gives for a few tokens.

    Attributes:
        tokens: ids, [1, positions].
        logits: [positions, vocabulary].
        streams: what each block gives, [positions, d_model], by the name of the list of blocks and its number there.
    """

    tokens: Tensor
    logits: Tensor
    streams: dict[tuple[str, int], Tensor]


@torch.no_grad()
def hugging_face_pass(hf_model: Any) -> PlainPass:
    """One pass of a causal language model of transformers as it is."""
    embedding = hf_model.get_input_embeddings().weight
    tokens = _some_tokens(len(embedding)).to(embedding.device)
    streams: dict[tuple[str, int], Tensor] = {}

    def record(key: tuple[str, int], out: Any) -> None:
        states = out[0] if isinstance(out, (tuple, list)) else out
        if isinstance(states, Tensor) and states.shape[:2] == tokens.shape:
            streams.setdefault(key, states[0])

    lists = [(name, module) for name, module in hf_model.named_modules() if isinstance(module, nn.ModuleList)]
    handles = [
        block.register_forward_hook(lambda _, __, out, key=(name, i): record(key, out))
        for name, blocks in lists
        for i, block in enumerate(blocks)
    ]
    try:
        logits = hf_model(input_ids=tokens, use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return PlainPass(tokens, logits, streams)


@torch.no_grad()
def hooked_pass(model: Any) -> PlainPass:
    """One pass of a hooked model by its own forward: of a bridge, with Hugging Face's modules back in their places."""
    if is_bridge(model):
        with unwrapped(model.original_model):
            return hugging_face_pass(model.original_model)
    tokens = _some_tokens(model.cfg.d_vocab).to(model.cfg.device)
    logits, cache = model.run_with_cache(tokens, prepend_bos=False)
    streams = {("blocks", i): cache[str(Site.after(i))][0] for i in range(model.cfg.n_layers)}
    return PlainPass(tokens, logits[0], streams)


def _some_tokens(vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary // 20, vocabulary // 2, (1, _TOKENS), generator=generator)


def find_difference(model: Any, truth: PlainPass) -> str | None:
    """What a hooked model computes otherwise than ``truth``, and why that may be; None where all agrees.

    The tokens are run in two parts, the second behind the keys and values of the first, so that one comparison covers
    blocks, cache and head. Where that fails and one pass is right, the model keeps another state than keys and values:
    from then on it is run whole each time.
    """
    backend = backend_of(model)
    backend.continues = True
    if _compare(model, truth, [(0, _PREFIX), (_PREFIX, _TOKENS)]) is None:
        return None
    backend.continues = False
    # Without the second half the first is the same, in a model whose tokens see those before them only.
    difference = _compare(model, truth, [(0, _TOKENS), (0, _PREFIX)])
    if difference is None:
        logger.warning(
            "%s does not go on from keys and values alone: each new token runs all before it anew, which is slow",
            getattr(model.cfg, "architecture", None) or type(model).__name__,
        )
    return difference


@torch.no_grad()
def _compare(model: Any, truth: PlainPass, spans: list[tuple[int, int]]) -> str | None:
    """Likewise, with tokens from one position to another in each pass, the later ones behind those before them."""
    backend = backend_of(model)
    dtype = backend.dtype
    tolerance = _TOLERANCES.get(dtype, _TOLERANCES[torch.float32])
    true_streams = _streams_of(model, truth, backend.n_layers)
    faults: list[tuple[float, str, str]] = []
    past = None
    for start, end in spans:
        rows = slice(start, end)
        streams: dict[int, Tensor] = {}
        edits = {Site.after(i): (lambda x, i=i, s=streams: s.update({i: x[0]})) for i in range(backend.n_layers)}
        try:
            hidden, past = backend.hidden(truth.tokens[:, rows], past, edits, keep=backend.continues)
            logits = backend.logits(hidden[0])
        except Exception as error:  # whatever another library raises at a model that it cannot run
            return f"a few tokens cannot be run ({type(error).__name__}: {first_line(error)})"
        where = ", of tokens behind the keys and values of others," if start else ""
        where = (
            ", of tokens whose followers are left out,"
            if (start, end) == (0, _PREFIX) and not backend.continues
            else where
        )
        for i, true_stream in enumerate(true_streams):
            if i not in streams:
                return f"the residual stream after block {i} cannot be read"
            cause = f"block {i} is computed otherwise there"
            cause = "tokens see those behind them" if "followers" in where else cause
            difference = _difference(streams[i], true_stream[rows], dtype)
            faults.append((difference, f"the residual streams after block {i}{where}", cause))
        true_logits = truth.logits[rows].float()
        centred = [x - x.mean(-1, keepdim=True) for x in (logits, true_logits)]
        difference = _difference(centred[0], centred[1], dtype)
        faults.append((difference, f"the logits{where}", "what follows the last block is done otherwise"))
    faults = [fault for fault in faults if not fault[0] <= tolerance]
    if not faults:
        return None
    largest = max(fault[0] for fault in faults)
    # Of faults that differ by rounding alone the first is named, or which one it is would change with the processor.
    largest, what, _ = next(fault for fault in faults if not fault[0] < 0.99 * largest)
    return (
        f"{what} differ by {largest:.2g} of their length where rounding explains {tolerance:g}, probably because "
        f"{faults[0][2]}"
    )


def _streams_of(model: Any, truth: PlainPass, n_layers: int) -> list[Tensor]:
    """The residual streams of a plain pass, from the list of modules that are the model's blocks."""
    names = {name for name, _ in truth.streams}
    if is_bridge(model):
        blocks = (model.adapter.component_mapping or {}).get("blocks")
        names &= {getattr(blocks, "name", "")}
    for name in names:
        streams = [truth.streams.get((name, i)) for i in range(n_layers)]
        if all(stream is not None for stream in streams):
            return streams  # type: ignore[return-value]
    return []


def _difference(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> float:
    """How far apart two tensors [positions, width] are, as a share of the second's length."""
    ours, theirs = ours.float().cpu(), theirs.float().cpu()
    shares = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-6)
    # In half precision a token may take another expert by rounding alone; what is wrong is wrong for most tokens.
    return float(shares.max() if dtype == torch.float32 else shares.median())


def refuse(name: str, difference: str, advice: str) -> InterpToolkitError:
    """The error for a model that does not compute what it should.

    Args:
        name: of the model.
        difference: what differs, and by how much.
        advice: what to do instead.
    """
    return InterpToolkitError(
        f"expected {name} to compute what its own plain forward pass computes, but {difference}; {advice}, or give "
        f"check=False to use it as it is"
    )
