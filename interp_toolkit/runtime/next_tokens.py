"""Which token comes next, and how probable it is, for many rows at once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from interp_toolkit.models import Backend
from interp_toolkit.models.batches import pass_size
from interp_toolkit.models.threads import run_in_threads, threads_for

# Rows of a thread below which threads are not worth their start.
_FEWEST = 8
# Most of a distribution lies in this many tokens; only where it does not is the whole vocabulary sorted.
_TOP = 256
# Tokens that are summed together when a draw is looked up.
_BLOCK = 256


def next_tokens(
    backend: Backend, states: Tensor, temperature: float, top_p: float, draws: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The next token of each row, and its log-probability at temperature 1, [rows] each.

    Args:
        backend: of the model.
        states: final hidden states, [rows, d_model].
        temperature: of the sampling.
        top_p: sample among the most probable tokens that together have this probability.
        draws: in [0, 1), float64 [rows]; None for the most probable token.
    """
    unembedded = backend.unembedded(states)
    # What a family does to its logits runs a model, which threads would share.
    threads = 1 if backend.logit_transform else threads_for(states.device, len(states), _FEWEST)
    # A few rows stay in the cache of a processor, which passes over the vocabulary several times.
    size = min(pass_size(states.device).logits, -(-len(states) // threads))
    pieces = unembedded.split(size)
    draws_of_pieces = [None] * len(pieces) if draws is None else draws.split(size)

    def read(first: int) -> list[tuple[Tensor, Tensor]]:
        read_pieces = []
        for piece, of_piece in zip(pieces[first::threads], draws_of_pieces[first::threads]):
            logits = backend.finished(piece)
            tokens = _pick(logits, temperature, top_p, of_piece)
            read_pieces.append((tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)))
        return read_pieces

    by_thread = run_in_threads([partial(read, first) for first in range(threads)])
    in_order = [by_thread[i % threads][i // threads] for i in range(len(pieces))]
    tokens, log_probs = map(torch.cat, zip(*in_order))
    return tokens, log_probs


def _pick(logits: Tensor, temperature: float, top_p: float, draws: Tensor | None) -> Tensor:
    """The next token of each row, [rows]."""
    if draws is None:
        return logits.max(-1).indices  # in half the time of argmax
    probs = (logits / temperature).softmax(-1)
    if top_p == 1:
        return _invert(probs, draws)
    top, index = probs.topk(min(_TOP, probs.shape[-1]))
    if (top.sum(-1) < top_p).any():
        top, index = probs.sort(descending=True)
    before = top.double().cumsum(-1) - top
    return index.gather(1, _invert(top.masked_fill(before >= top_p, 0), draws)[:, None])[:, 0]


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """Where each draw falls in the cumulated weights of its row.

    First among blocks of tokens, then within one: exact sums in float64 over the whole vocabulary would cost as much as
    the model does.
    """
    rows, size = weights.shape
    blocks = torch.nn.functional.pad(weights, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    draws = draws[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, draws, right=True).clamp_(max=ends.shape[1] - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_(min=0)), 0)
    chosen = blocks.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0]
    within = torch.searchsorted(chosen.double().cumsum(-1), draws - before, right=True)
    # The two sums may differ in their last digit; a draw at the very end of a block stays within it.
    last = (chosen > 0).double().mul(torch.arange(1, _BLOCK + 1, device=chosen.device)).argmax(-1, keepdim=True)
    return (block * _BLOCK + torch.minimum(within, last))[:, 0]
