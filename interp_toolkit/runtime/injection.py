"""Hook functions that write soft tokens into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp_toolkit.models import Backend
from interp_toolkit.models.backend import Edit
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import SoftPrompt


def write_soft_tokens(
    backend: Backend, soft_prompt: SoftPrompt, slots: Sequence[int], soft_tokens: Tensor
) -> dict[Site, Edit]:
    """The edit that puts soft tokens at the slots, by site, for `Backend.hidden`.

    At the embedding a soft token counts as a row of Hugging Face's ``inputs_embeds``; where the hooked model has
    already scaled its embeddings (Gemma in a `HookedTransformer`), it is scaled likewise.

    Args:
        backend: of the model.
        soft_prompt: says at which site, and whether to replace or to add.
        slots: positions within the tokens that will be run.
        soft_tokens: [batch, d_model]; gradients flow to them.
    """
    site = soft_prompt.site
    values = soft_tokens * backend.embedding_gain if site.is_embedding else soft_tokens
    places = torch.tensor(slots, device=backend.device)

    def edit(stream: Tensor) -> Tensor:
        # The adapter works in float32; the stream keeps its own dtype and device.
        new = values.to(stream)[:, None].expand(-1, len(slots), -1)
        if soft_prompt.mode == "add":
            return stream.index_add(1, places.to(stream.device), new)
        return stream.index_copy(1, places.to(stream.device), new)

    return {site: edit}
