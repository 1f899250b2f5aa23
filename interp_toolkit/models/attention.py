"""Attention of rows that have a copy of the shared prefix each: in one operation, or with its gradient written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention


def attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, shared: tuple[Tensor, Tensor] | None, hidden: Tensor | None, scale: float
) -> Tensor:
    """Attention, differentiable once in the tokens of each row.

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
    if torch.is_grad_enabled() and query.requires_grad:
        # Half as many operations as torch records.
        result: Tensor = _Attention.apply(query, key, value, shared, hidden, scale)
        return result
    batch, groups, _, d_head = key.shape
    # Query heads that share a key head stand side by side, so they are further rows of the same product.
    rows = query.reshape(batch, groups, -1, d_head)
    seen = None if hidden is None else hidden.logical_not().repeat(rows.shape[2] // len(hidden), 1)
    out = scaled_dot_product_attention(rows, *_joined(shared, key, value), attn_mask=seen, scale=scale)
    return out.reshape(query.shape)


def _joined(shared: tuple[Tensor, Tensor] | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of all tokens."""
    if shared is None:
        return key, value
    before_key, before_value = (x.expand(len(key), -1, -1, -1) for x in shared)
    return torch.cat([before_key, key], 2), torch.cat([before_value, value], 2)


class _Attention(torch.autograd.Function):
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
        key, value = _joined(shared, key, value)
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
