"""Steering: what a model answers while a vector is added to its residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.chat import Prompt, prompt_ids, stop_ids, uses_chat
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, backend_of, require_context
from interp_toolkit.runtime.next_tokens import next_tokens
from interp_toolkit.settings import whole_number
from interp_toolkit.sites import Site, SiteLike
from interp_toolkit.spans import contents
from interp_toolkit.torch_defaults import plain_defaults


@plain_defaults()
@torch.no_grad()
def steered_answers(
    model: Any,
    prompt: Prompt,
    site: SiteLike,
    vectors: Float[Tensor, "n d_model"],
    strengths: float | Sequence[float] = 1.0,
    *,
    max_new_tokens: int = 32,
    chat: bool | None = None,
) -> list[str]:
    """Answer a prompt greedily, once per vector, while the vector is added to the residual stream.

    The vector is added at one site, to every token from the first of the prompt's own on, those of the answer included
    (activation addition, Turner et al. 2023). It is scaled to the median length of the prompt's residual streams at
    this site, times the strength. A vector of zeros gives the plain answer; a random one is the control.

    Args:
        model: the hooked model.
        prompt: a text, messages or token ids.
        site: of the residual stream.
        vectors: directions; their lengths do not matter.
        strengths: of all vectors, or of each, in lengths of the residual stream; negative ones point away.
        max_new_tokens: greatest length of an answer, in tokens.
        chat: whether a text is a user turn; by default where the model has a chat template.

    Returns:
        one answer per vector, all decoded in one batch.

    Raises:
        InterpToolkitError: a site outside the residual stream, vectors of another shape or not finite, or a prompt that
            leaves no room in the model's context.

    Example:
        >>> v = read_activations(model, "Tell me about baseball.", 15).vectors - adapter.contract.mean
        >>> steered_answers(model, "What did you do today?", 15, torch.cat([v, torch.zeros_like(v)]), 0.5)
    """
    model = as_hooked_model(model)
    backend, place = backend_of(model), Site.parse(site)
    backend.require(place, to_write=True)
    whole_number(max_new_tokens, "max_new_tokens", least=1)
    if not place.in_stream:
        raise InterpToolkitError(f"expected a site of the residual stream, such as a layer number, got {place}")
    if vectors.ndim != 2 or vectors.shape[1] != backend.d_model or not vectors.isfinite().all():
        raise InterpToolkitError(
            f"expected finite vectors of shape (n, {backend.d_model}), got {tuple(vectors.shape)}"
            + ("" if vectors.isfinite().all() else " with values that are not finite")
        )
    (ids,) = prompt_ids(model.tokenizer, [prompt], chat)
    require_context(model, len(ids) + max_new_tokens, "the prompt with its answer")
    chat = uses_chat(model.tokenizer, chat)
    start = contents(model.tokenizer, [ids], chat)[0][0] if isinstance(prompt, str) and chat else 0
    length = read_activations(model, [ids], place, range(start, len(ids))).vectors.norm(dim=1).median()
    factors = torch.as_tensor(strengths, dtype=torch.float32).reshape(-1, 1) * length
    added = torch.nn.functional.normalize(vectors.detach().float().cpu(), dim=1) * factors

    def steer(stream: Tensor, first: int) -> Tensor:
        shift = added.to(stream.device, stream.dtype)[:, None].expand(-1, stream.shape[1], -1).clone()
        shift[:, :first] = 0
        return stream + shift

    stops = set(stop_ids(model))
    answers: list[list[int]] = [[] for _ in vectors]
    running = set(range(len(vectors)))
    tokens, past = torch.tensor(ids, device=backend.device).expand(len(vectors), -1), None
    for step in range(max_new_tokens):
        first = start if step == 0 else 0
        hidden, past = backend.hidden(
            tokens, past, {place: lambda x, first=first: steer(x, first)}, keep=True, reserve=max_new_tokens
        )
        following, _ = next_tokens(backend, hidden[:, -1], 0.0, 1.0, None)
        for row, token in enumerate(following.tolist()):
            if row in running and token in stops:
                running.discard(row)
            elif row in running:
                answers[row].append(token)
        if not running:
            break
        tokens = following[:, None]
    return [model.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
