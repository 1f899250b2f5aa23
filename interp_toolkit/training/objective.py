"""What training minimises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.runtime import PromptRun, Scores, score


def losses(
    run: PromptRun,
    adapter: Adapter,
    vectors: Tensor,
    targets: Sequence[Sequence[int]],
    smoothing: float = 0.0,
    most: float = math.inf,
) -> Tensor:
    """Cross-entropy of each target given its vector, the mean over the target's tokens, in nats, float32 [targets].

    arXiv 2602.10352, section 3.

    Args:
        run: the soft prompt on its model.
        adapter: in training or not.
        vectors: one for each target.
        targets: token ids, see `SoftPrompt.targets`.
        smoothing: label smoothing.
        most: largest loss that a token may count.
    """
    told = score(run, adapter(vectors), targets, smoothing=smoothing)
    return -Scores(told.log_probs.clamp(min=-most), told.lengths).mean()


@torch.no_grad()
def validation_losses(
    run: PromptRun, adapter: Adapter, vectors: Tensor, targets: Sequence[Sequence[int]], rows: Sequence[int]
) -> tuple[float, float]:
    """The loss on held-out examples, and on the same with each label facing the vector of another.

    Args:
        run: the soft prompt on its model.
        adapter: as it stands.
        vectors: of all held-out rows.
        targets: of all held-out examples.
        rows: the row of each example's vector.
    """
    soft_tokens = adapter(vectors)
    elsewhere = [(row + len(vectors) // 2) % len(vectors) for row in rows]
    own, other = (-score(run, soft_tokens, targets, r).mean().mean().item() for r in (rows, elsewhere))
    return own, other
