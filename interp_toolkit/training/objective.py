"""What training minimises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter, soft_tokens_of
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.runtime import PromptRun, Scores, score
from interp_toolkit.training.examples import by_question


@runtime_checkable
class Objective(Protocol):
    """A loss: from the log-probabilities of the target tokens to one number per example.

    Any function or object of this signature will do. It sees nothing but the log-probability of each target token; the
    gradient of these to the adapter is the library's.

    Example:
        >>> def focal_loss(scores):
        ...     log_probs = scores.log_probs
        ...     return Scores((1 - log_probs.exp()) ** 2 * -log_probs, scores.lengths).mean()
        >>> train_adapter(model, pairs, adapter, objective=focal_loss)
    """

    def __call__(self, scores: Scores) -> Tensor:
        """Compute the loss of each example.

        Args:
            scores: log-probabilities in nats, float32, of every token of every target, after label smoothing and the
                limit on a token's loss; gradients flow back to them, once.

        Returns:
            The losses, [examples], differentiable in ``scores.log_probs``.
        """
        ...


def mean_cross_entropy(scores: Scores) -> Tensor:
    """Compute the cross-entropy of each target, the mean over its tokens, in nats (arXiv 2602.10352, section 3)."""
    return -scores.mean()


def objective_name(objective: Objective) -> str:
    """Return the name under which a run records its loss: that of the function, or of the class of an object."""
    named = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{named.__module__}.{named.__qualname__}"  # type: ignore[attr-defined]


def losses(
    run: PromptRun,
    adapter: Adapter,
    vectors: Tensor,
    targets: Sequence[Sequence[int]],
    smoothing: float = 0.0,
    max_token_loss: float = math.inf,
    objective: Objective = mean_cross_entropy,
) -> Tensor:
    """Compute the loss of each target given its vector, float32 [targets].

    Args:
        run: the soft prompt on its model.
        adapter: in training or not.
        vectors: one for each target, [targets, width], or a span of them, [targets, span, width].
        targets: token ids, see `SoftPrompt.targets`.
        smoothing: label smoothing.
        max_token_loss: largest loss that a token may count, in nats.
        objective: from the targets' scores to their losses.

    Returns:
        The losses, in nats per token under the default objective.

    Raises:
        InterpToolkitError: the objective gives something other than one number per target, or nothing that gradients
            can flow through.
    """
    scores = score(run, soft_tokens_of(adapter, vectors), targets, smoothing=smoothing)
    values = objective(Scores(scores.log_probs.clamp(min=-max_token_loss), scores.lengths))
    name = objective_name(objective)
    if not isinstance(values, Tensor) or values.shape != (len(targets),):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InterpToolkitError(f"expected one loss per example, shape ({len(targets)},), from {name}, got {got}")
    if scores.log_probs.requires_grad and not values.requires_grad:
        raise InterpToolkitError(
            f"expected losses that gradients can flow through from {name}, got a tensor that was detached; compute it "
            f"from scores.log_probs with torch"
        )
    return values


@torch.no_grad()
def validation_losses(
    run: PromptRun,
    adapter: Adapter,
    vectors: Tensor,
    targets: Sequence[Sequence[int]],
    rows: Sequence[int],
    questions: Sequence[str] | None = None,
) -> tuple[float, float]:
    """Compute the cross-entropy on held-out examples, and on the same with each label given another example's vector.

    It is the same whatever is minimised, so that runs with different losses compare.

    Args:
        run: the soft prompt on its model.
        adapter: as it stands.
        vectors: of all held-out rows, [rows, width], or spans of them.
        targets: of all held-out examples.
        rows: the row of each example's vector.
        questions: that each example answers; by default none.

    Returns:
        Both means over examples, in nats per token.
    """
    soft_tokens = soft_tokens_of(adapter, vectors)
    sums = [0.0, 0.0]
    for question, group in by_question(questions or [""] * len(targets)).items():
        matched = [rows[i] for i in group]
        # Among the vectors of the same question: those of another may be the same vectors.
        unique = sorted(set(matched))
        other = {row: unique[(i + len(unique) // 2) % len(unique)] for i, row in enumerate(unique)}
        for number, chosen in enumerate((matched, [other[row] for row in matched])):
            scores = score(run.about(question), soft_tokens, [targets[i] for i in group], chosen)
            sums[number] -= scores.mean().mean().item() * len(group)
    return sums[0] / len(targets), sums[1] / len(targets)
