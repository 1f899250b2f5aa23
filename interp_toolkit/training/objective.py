"""What training minimises, and the order in which it sees examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.runtime import PromptRun, score

# Batches whose examples are sorted by length together: enough to pad little, few enough to stay shuffled.
_WINDOW = 16


def loss(run: PromptRun, adapter: Adapter, vectors: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Cross-entropy of the targets given their vectors: the mean over a target's tokens, then over targets, in nats.

    arXiv 2602.10352, section 3; computed in float32.
    """
    return -score(run, adapter(vectors), targets).mean().mean()


@torch.no_grad()
def validation_losses(
    run: PromptRun, adapter: Adapter, vectors: Tensor, targets: Sequence[Sequence[int]], rows: Sequence[int]
) -> tuple[float, float]:
    """The loss on held-out examples, and on the same with each label facing the vector of another.

    Args:
        vectors: of all held-out rows.
        targets: of all held-out examples.
        rows: the row of each example's vector.
    """
    soft_tokens = adapter(vectors)
    elsewhere = [(row + len(vectors) // 2) % len(vectors) for row in rows]
    own, other = (-score(run, soft_tokens, targets, r).mean().mean().item() for r in (rows, elsewhere))
    return own, other


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Numbers of examples, batch by batch, in the order that seed and epoch fix.

    Examples are shuffled, sorted by length within a window of batches so that little is padded, and the batches of a
    window are shuffled again.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), batch_size * _WINDOW):
        window = sorted(order[start : start + batch_size * _WINDOW].tolist(), key=lambda i: lengths[i])
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        for i in rng.permutation(len(batches)):
            yield batches[i]
