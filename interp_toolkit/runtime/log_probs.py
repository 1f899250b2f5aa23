"""Log-probabilities of tokens given final hidden states, without float32 logits of all of them at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from interp_toolkit.models.backend import Backend
from interp_toolkit.models.batches import pass_size
from interp_toolkit.models.threads import run_in_threads, threads_for

# Tokens of a thread below which its product with the vocabulary is too small.
_FEWEST = 16


def token_log_probs(backend: Backend, states: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
    """The log-probability of each token given its state, in nats, float32 [tokens].

    Args:
        backend: of the model whose vocabulary it is.
        states: final hidden states, [tokens, d_model]; gradients flow to them, once.
        tokens: ids, [tokens].
        smoothing: how much of each log-probability to replace by the mean over the vocabulary (label smoothing).
    """
    if torch.is_grad_enabled() and states.requires_grad:
        log_probs: Tensor = _TokenLogProbs.apply(states, backend, tokens, smoothing)
        return log_probs
    # The unembedding may be a user's that takes gradients.
    return _read(backend, backend.unembedded(states).detach(), tokens, smoothing)


class _TokenLogProbs(torch.autograd.Function):
    """The gradient is taken on the way forward, while the logits are there.

    A token's log-probability depends on its own state alone. So the gradient of each is one row of d_model numbers,
    which the loss only scales on the way back, and logits are not kept.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, backend: Backend, tokens: Tensor, smoothing: float) -> Tensor:
        def read(some: Tensor, of_some: Tensor) -> tuple[Tensor, Tensor]:
            some.requires_grad_()
            with torch.enable_grad():
                unembedded = backend.unembedded(some)
            grad_logits = torch.empty_like(unembedded)
            values = _read(backend, unembedded.detach(), of_some, smoothing, grad_logits)
            return values, torch.autograd.grad(unembedded, some, grad_logits)[0].neg_()

        # A hook of the user's is called once, by the thread that it may expect; what a family does to its logits runs a
        # model, which threads would share.
        alone = backend.change is not None or backend.logit_transform
        threads = 1 if alone else threads_for(states.device, len(tokens), _FEWEST)
        shares = zip(states.detach().tensor_split(threads), tokens.tensor_split(threads))
        done = run_in_threads([partial(read, *share) for share in shares])
        values, grad_states = map(torch.cat, zip(*done))
        ctx.save_for_backward(grad_states)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (grad_states,) = ctx.saved_tensors
        return (grad[:, None] * grad_states).to(grad_states.dtype), None, None, None


def _read(
    backend: Backend, unembedded: Tensor, tokens: Tensor, smoothing: float, grad_logits: Tensor | None = None
) -> Tensor:
    """Log-probabilities of ``tokens``; ``grad_logits`` takes minus the gradient of each in its row of ``unembedded``.

    All in one buffer: a new tensor of this size for each step costs more than what is computed in it.
    """
    transform, vocabulary = backend.logit_transform, unembedded.shape[1]
    # Few enough to stay in a processor's cache.
    at_once = pass_size(unembedded.device).logits
    buffer = torch.empty(min(at_once, len(tokens)), vocabulary, device=unembedded.device)
    values = torch.empty(len(tokens), device=unembedded.device)
    for start in range(0, len(tokens), at_once):
        rows = slice(start, start + at_once)
        wanted = tokens[rows, None]
        x = raw = buffer[: len(wanted)].copy_(unembedded[rows])
        if transform:
            raw = raw.requires_grad_(grad_logits is not None)
            with torch.set_grad_enabled(grad_logits is not None):
                logits = transform(raw)
            x = logits.detach().clone()
        chosen, highest = x.gather(1, wanted)[:, 0], x.amax(1)
        if smoothing:
            chosen = torch.lerp(chosen, x.mean(1), smoothing)
        torch.softmax(x, 1, out=x)
        # The highest probability is never too small for its logarithm, as the token's may be.
        values[rows] = chosen - (highest - x.amax(1).log())
        if grad_logits is not None:
            if smoothing:
                x.sub_(smoothing / x.shape[1])
            x.scatter_add_(1, wanted, x.new_full(wanted.shape, smoothing - 1))
            grad_logits[rows] = torch.autograd.grad(logits, raw, x)[0] if transform else x
    return values
