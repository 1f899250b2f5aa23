"""Soft tokens of single vectors, and of spans: several vectors that are one input."""

from __future__ import annotations

from torch import Tensor

from interp_toolkit.adapters.adapter import Adapter


def soft_tokens_of(adapter: Adapter, vectors: Tensor, scale: float = 1.0) -> Tensor:
    """Map vectors, or spans of them, of which each vector becomes soft tokens of its own, in order.

    Only a prompt with room for a span takes its soft tokens, see `SoftPrompt.with_room`; the adapter itself takes no
    spans, so that none gets into slots that are meant for one vector.

    Args:
        adapter: for single vectors.
        vectors: [n, width], or spans [n, span, width].
        scale: a factor on the (normalised) vectors, as the adapter takes it.

    Returns:
        As the adapter gives them, [n, d_model] or [n, tokens, d_model]; of spans [n, span * tokens, d_model].

    Raises:
        InterpToolkitError: as the adapter.

    Example:
        >>> score(PromptRun(model, prompt.with_room(spans.shape[1])), soft_tokens_of(adapter, spans), targets)
    """
    if vectors.ndim < 3:
        return adapter(vectors, scale)
    return adapter(vectors.flatten(0, 1), scale).reshape(len(vectors), -1, adapter.config.d_model)
