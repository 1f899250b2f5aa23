"""Attention whose gradient is written out, for passes that train: half as many operations as torch records."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_with_gradient(
    query: Tensor, key: Tensor, value: Tensor, shared: tuple[Tensor, Tensor] | None, hidden: Tensor | None, scale: float
) -> Tensor:
    """Attention, differentiable in the tokens of each row.

    Args:
        query: [batch, heads, new, d_head].
        key: [batch, key heads, keys, d_head].
        value: likewise.
        shared: keys and values [1, key heads, past, d_head] before those of every row, or None.
        hidden: which keys a new token must not see, [new, past + keys]; None where it sees all.
        scale: factor on the scores.

    Returns:
        [batch, heads, new, d_head].
    """
    result: Tensor = _Attention.apply(query, key, value, shared, hidden, scale)
    return result


class _Attention(torch.autograd.Function):
    """Query heads that share a key head stand side by side, so they are further rows of the same product."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        shared: tuple[Tensor, Tensor] | None,
        hidden: Tensor | None,
        scale: float,
    ) -> Tensor:
        batch, groups, keys, d_head = key.shape
        if shared is not None:
            key, value = (
                torch.cat([x.expand(batch, -1, -1, -1), of_row], 2) for x, of_row in zip(shared, (key, value))
            )
        rows, key, value = (x.reshape(batch * groups, -1, d_head) for x in (query, key, value))
        scores = torch.bmm(rows, key.transpose(1, 2)).mul_(scale)
        if hidden is not None:
            scores.view(-1, *hidden.shape).masked_fill_(hidden, -torch.inf)
        weights = torch.softmax(scores, -1, dtype=torch.float32)
        ctx.save_for_backward(rows, key, value, weights)
        ctx.sizes = query.shape, keys, scale
        return torch.bmm(weights.to(value.dtype), value).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, key, value, weights = ctx.saved_tensors
        shape, keys, scale = ctx.sizes
        grad = grad.reshape(rows.shape)
        row_shape = (shape[0], -1, keys, shape[-1])
        grad_value = torch.bmm(weights[..., -keys:].to(value.dtype).transpose(1, 2), grad)
        grad_weights = torch.bmm(grad, value.transpose(1, 2)).float()
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, torch.float32)
        grad_scores = grad_scores.mul_(scale).to(rows.dtype)
        grad_key = torch.bmm(grad_scores[..., -keys:].transpose(1, 2), rows)
        grad_query = torch.bmm(grad_scores, key)
        return grad_query.view(shape), grad_key.view(row_shape), grad_value.view(row_shape), None, None, None
