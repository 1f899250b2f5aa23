"""Hook functions that write soft tokens into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import Backend
from interp_toolkit.models.kv import Edit
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import SoftPrompt


@dataclass(frozen=True, eq=False)
class SoftTokenEdit:
    """Writes the soft tokens of each row into its slots.

    Attributes:
        soft_tokens: [batch, d_model], or [batch, tokens, d_model].
        places: the slots, positions within the tokens that are run.
        add: whether to add to what is there, instead of replacing it.
    """

    soft_tokens: Tensor
    places: Tensor
    add: bool

    def __call__(self, stream: Tensor) -> Tensor:
        """The stream [batch, position, d_model] with the soft tokens in it."""
        # The adapter works in float32; the stream keeps its own dtype and device.
        new = for_each_slot(self.soft_tokens.to(stream), len(self.places))
        write = stream.index_add if self.add else stream.index_copy
        return write(1, self.places.to(stream.device), new)

    def take(self, rows: Tensor) -> SoftTokenEdit:
        """The edit for the given rows of the batch, in that order."""
        return SoftTokenEdit(self.soft_tokens.index_select(0, rows.to(self.soft_tokens.device)), self.places, self.add)


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
    require_slots(soft_tokens, len(slots))
    places = torch.tensor(slots, device=backend.device)
    return {soft_prompt.site: SoftTokenEdit(soft_tokens, places, soft_prompt.mode == "add")}


def for_each_slot(soft_tokens: Tensor, slots: int) -> Tensor:
    """What each slot holds, [batch, slots, d_model]: the soft tokens of a row in turn."""
    rows = soft_tokens[:, None] if soft_tokens.ndim == 2 else soft_tokens
    return rows.repeat(1, slots // rows.shape[1], 1)


def require_slots(soft_tokens: Tensor, slots: int) -> None:
    """Refuse soft tokens that do not fill so many slots evenly.

    Args:
        soft_tokens: [batch, d_model], or [batch, tokens, d_model].
        slots: of the soft prompt.

    Raises:
        InterpToolkitError: the text names both numbers.
    """
    tokens = soft_tokens.shape[1] if soft_tokens.ndim == 3 else 1
    if slots % tokens:
        raise InterpToolkitError(
            f"expected a prompt with {tokens} slots, or {2 * tokens} and so on, for an adapter that makes {tokens} "
            f"soft tokens, got {slots}; see SoftPrompt.for_chat(tokens={tokens})"
        )
