"""Controls: what a label costs given its vector, another's, and none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.runtime import PromptRun, score


@dataclass(frozen=True)
class ControlLosses:
    """Mean losses of labels, in nats a token.

    Attributes:
        own: each label given its own vector.
        shuffled: given the vector half-way round the list from its own.
        null: given the null vector, so that only the adapter's bias speaks.
    """

    own: float
    shuffled: float
    null: float


@torch.no_grad()
def control_losses(
    model: object, adapter: Adapter, vectors: Float[Tensor, "n d_model"], labels: Sequence[str]
) -> ControlLosses:
    """The training loss (mean over a label's tokens, then over labels) and what it is without the right vector.

    What an adapter has learned of its vectors is ``shuffled - own``; what it has learned of how labels look like shows
    in ``null``.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one a vector.

    Raises:
        InterpToolkitError: no contract with a soft prompt, counts that differ, or fewer than two vectors.

    Example:
        >>> control_losses(model, adapter, adapter.contract.centre(raw), titles).own
    """
    if adapter.contract is None or adapter.contract.soft_prompt is None:
        raise InterpToolkitError("expected an adapter whose contract names its soft prompt; see train_adapter")
    if len(vectors) != len(labels) or len(labels) < 2:
        raise InterpToolkitError(
            f"expected one label for each of at least two vectors, got {len(vectors)} vectors and {len(labels)} labels"
        )
    run = PromptRun(model, adapter.contract.soft_prompt)
    soft_tokens = adapter(vectors.to(run.backend.device))
    targets = run.soft_prompt.targets(run.model.tokenizer, labels)
    own = score(run, soft_tokens, targets)
    shuffled = score(run, soft_tokens.roll(len(labels) // 2, 0), targets)
    null = score(run, adapter.null()[None], targets, owners=[0] * len(labels))
    return ControlLosses(*(-told.mean().mean().item() for told in (own, shuffled, null)))
