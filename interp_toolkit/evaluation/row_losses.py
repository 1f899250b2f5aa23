"""Losses of rows under controls, cached shard by shard; rows that cannot be scored are named before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import JsonCache
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import EvalContext, tensor_digest
from interp_toolkit.evaluation.control_kinds import Control
from interp_toolkit.runtime import PromptRun

# Rows scored at a time and cached together: what an interruption can lose.
_SHARD = 256

MakeControls = Callable[[Tensor, list[str]], list[Control]]
"""From vectors and their titles to the controls under which they are scored."""


@dataclass(frozen=True, eq=False)
class RowLosses:
    """Losses of rows under controls.

    Attributes:
        titles: the rows that could be scored.
        controls: see `MakeControls`.
        losses: for each control one per row, in nats per token.
        failed: the other rows, each a ``title`` with a ``reason``.
    """

    titles: list[str]
    controls: list[Control]
    losses: list[Tensor]
    failed: list[dict[str, str]]


def row_losses(
    context: EvalContext, adapter: Adapter, titles: Sequence[str], vectors: Tensor, make_controls: MakeControls
) -> RowLosses:
    """Score titles under the controls that ``make_controls`` sets up.

    Rows that cannot be scored are left out of all controls, since a row may be the control of another.

    Args:
        context: with the model.
        adapter: whose soft prompt the titles are scored in.
        titles: of the rows.
        vectors: centred, one per title.
        make_controls: see `MakeControls`.

    Raises:
        InterpToolkitError: no rows are left, or whatever ``make_controls`` raises.
    """
    reasons = _reasons(context, adapter, titles, vectors)
    rows = [i for i, reason in enumerate(reasons) if reason is None]
    failed = [dict(title=title, reason=reason) for title, reason in zip(titles, reasons) if reason is not None]
    if failed and not rows:
        raise InterpToolkitError(
            f"none of {len(titles)} rows can be scored; the reason for the first: {failed[0]['reason']}"
        )
    labels = [titles[row] for row in rows]
    controls = make_controls(vectors[rows], labels)
    bar = tqdm(controls, desc="scoring", unit="control", disable=not context.progress)
    return RowLosses(labels, controls, [_losses(context, control, labels) for control in bar], failed)


def target_ranks(
    context: EvalContext, titles: Sequence[str], descriptions: Sequence[str], target_index: Sequence[int]
) -> Tensor:
    """Rank of the title that each description should name among all titles, 1 for the first.

    Args:
        context: with the index.
        titles: of all rows.
        descriptions: one per row.
        target_index: for each row the row whose title the description should name.
    """
    answers = context.answers([titles[row] for row in target_index])
    return context.ranks([[text] for text in descriptions], answers)[:, 0]


def _reasons(context: EvalContext, adapter: Adapter, titles: Sequence[str], vectors: Tensor) -> list[str | None]:
    """For each row why it cannot be scored, None where it can."""
    run = PromptRun(context.model, adapter.require_contract().require_soft_prompt())
    return [
        "its vector is not finite" if not finite else _label_reason(run, title)
        for title, finite in zip(titles, vectors.isfinite().all(1).tolist())
    ]


def _label_reason(run: PromptRun, label: str) -> str | None:
    """Why a label is none of the soft prompt's, or does not fit the context; from the checks of the prompt itself."""
    try:
        (target,) = run.soft_prompt.targets(run.model.tokenizer, [label])
        run.require_room(len(target) - 1, "the title")
    except InterpToolkitError as error:
        return str(error)
    return None


def _losses(context: EvalContext, control: Control, labels: list[str]) -> Tensor:
    rows, cache = range(len(control.vector_index)), JsonCache("losses")
    losses: list[float] = []
    for start in range(0, len(rows), _SHARD):
        shard = control.take(rows[start : start + _SHARD])
        losses += cache.get(
            _key(context, shard, labels), lambda shard=shard: shard.losses(context.engine, labels).tolist()
        )
    values = torch.tensor(losses)
    if not values.isfinite().all():
        row = int((~values.isfinite()).nonzero()[0])
        raise InterpToolkitError(
            f"expected a finite loss for each row, got {losses[row]} for {labels[row]!r} under {control.name!r}"
        )
    return values


def _key(context: EvalContext, control: Control, labels: list[str]) -> list[Any]:
    return [
        *context.key(),
        control.adapter.require_contract().require_soft_prompt().to_dict(),
        control.adapter.digest,
        tensor_digest(control.vectors),
        control.vector_index,
        [labels[row] for row in control.target_index],
    ]
