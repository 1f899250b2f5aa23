"""Hook functions that write soft tokens into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import Backend
from interp_toolkit.models.backend import Edit
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import SoftPrompt


def write_soft_tokens(
    backend: Backend, soft_prompt: SoftPrompt, slots: Sequence[int], soft_tokens: Tensor
) -> dict[Site, Edit]:
    """The edit that puts soft tokens at the slots, by site, for `Backend.hidden`.

    Args:
        backend: of the model.
        soft_prompt: says at which site, and whether to replace or to add.
        slots: positions within the tokens that will be run.
        soft_tokens: [batch, d_model], or [batch, tokens, d_model] which the slots take in turn; gradients flow to them.

    Raises:
        InterpToolkitError: slots that the soft tokens do not fill evenly.
    """
    tokens = soft_tokens.shape[1] if soft_tokens.ndim == 3 else 1
    if len(slots) % tokens:
        raise InterpToolkitError(
            f"expected a prompt with {tokens} slots, or {2 * tokens} and so on, for an adapter that makes {tokens} "
            f"soft tokens, got {len(slots)}; see SoftPrompt.for_chat(tokens={tokens})"
        )
    places = torch.tensor(slots, device=backend.device)

    def edit(stream: Tensor) -> Tensor:
        # The adapter works in float32; the stream keeps its own dtype and device.
        rows = soft_tokens.to(stream).reshape(len(soft_tokens), tokens, stream.shape[-1])
        new = rows.repeat(1, len(slots) // tokens, 1)
        if soft_prompt.mode == "add":
            return stream.index_add(1, places.to(stream.device), new)
        return stream.index_copy(1, places.to(stream.device), new)

    return {soft_prompt.site: edit}
