"""The share of the bias: how much of the gain of training needs no vector at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bias_only import bias_training, train_bias_only
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.evaluation.control_kinds import (
    BIAS,
    NULL,
    Control,
    bias_control,
    describe_controls,
    greedy_descriptions,
    matched_control,
    null_control,
    untrained_control,
)
from interp_toolkit.evaluation.controls import SCALES, Named
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.row_losses import row_losses, target_ranks
from interp_toolkit.models import model_facts
from interp_toolkit.statistics import Values, ratio_interval
from interp_toolkit.torch_defaults import plain_defaults

# Titles to measure on, and training titles to choose the untrained direction's length by.
_MEASURED, _SWEPT = 1000, 300
_EXAMPLES = 12
# The columns of `share_table`, in this order.
ARMS = ("untrained", "trained", NULL, BIAS)


@plain_defaults()
def bias_share(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    *,
    bias_only: Adapter,
    scale: float,
    named: Named | None = None,
    named_scale: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate how much of the improvement over the untrained direction the bias alone gives, in loss and in names.

    The share is (untrained - bias) / (untrained - trained). The vector is left out in two ways: the trained adapter
    with the null vector, and an adapter trained with nothing but a bias. arXiv 2602.10352 puts the share of the
    improvement in cross-entropy at 85%. Below 0 the bias is worse than no training, above 1 better than with the
    vector. It is a share of an improvement only where ``trained`` is better than ``untrained``.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one per vector.
        bias_only: an adapter of that kind, trained for the same soft prompt.
        scale: length of the untrained direction, chosen on other vectors: see `best_scale`.
        named: as in `control_table`, for the share in what descriptions name.
        named_scale: length of the untrained direction there; by default ``scale``.
        seed: of the intervals.

    Returns:
        one row per ``measure`` (``"loss"``, in nats per token, and ``"named"``) and ``way`` of leaving the vector out
        (``"null vector"``, ``"bias only"``): means ``untrained``, ``bias``, ``trained``; ``share`` and its 95% interval
        over vectors, ``low`` and ``high``, infinite where training may have gained nothing; ``scale``; ``n``; ``seed``.

    Raises:
        InterpToolkitError: as `control_table`.

    Example:
        >>> scale = best_scale(model, adapter, other_vectors, other_labels)
        >>> bias_share(model, adapter, vectors, labels, bias_only=bias_only, scale=scale)
    """
    controls = bias_controls(adapter, vectors, labels, bias_only, scale)
    facts = model_facts(model)
    for control in controls:
        control.adapter.require_contract(facts)
    losses = {arm: control.losses(model, labels) for arm, control in zip(ARMS, controls)}
    tables = [share_table("loss", losses, scale, seed)]
    if named is not None:
        named_scale = scale if named_scale is None else named_scale
        controls[0] = untrained_control(adapter, vectors, named_scale)
        descriptions = describe_controls(controls, partial(greedy_descriptions, model))
        hits = {arm: named(texts, control.target_index) for arm, texts, control in zip(ARMS, descriptions, controls)}
        tables.append(share_table("named", hits, named_scale, seed))
    return pd.concat(tables, ignore_index=True)


@plain_defaults()
def best_scale(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    *,
    scales: Sequence[float] = SCALES,
    named: Named | None = None,
) -> float:
    """Choose the length of the untrained direction with the lowest loss; with ``named``, that which names most.

    Args:
        model: the hooked model.
        adapter: whose soft prompt is used; see `untrained_control` for which of several sites counts.
        vectors: centred; not those that are measured afterwards.
        labels: one per vector.
        scales: lengths to try.
        named: as in `control_table`.

    Raises:
        InterpToolkitError: as `control_table`, or no scale.
    """
    matched_control(adapter, vectors, labels)  # for its checks
    if not scales:
        raise InterpToolkitError("expected at least one scale, got none")
    controls = [untrained_control(adapter, vectors, scale) for scale in scales]
    if named is None:
        scores = [-control.losses(model, labels).mean().item() for control in controls]
    else:
        descriptions = describe_controls(controls, partial(greedy_descriptions, model))
        hits = [named(texts, control.target_index) for texts, control in zip(descriptions, controls)]
        scores = [float(np.mean(hit)) for hit in hits]
    return scales[scores.index(max(scores))]


def bias_controls(
    adapter: Adapter, vectors: Tensor, labels: Sequence[str], bias_only: Adapter, scale: float
) -> list[Control]:
    """Set up the controls of `bias_share`, in the order of `ARMS`.

    Args:
        adapter: with its contract.
        vectors: centred.
        labels: one per vector.
        bias_only: see `bias_share`.
        scale: length of the untrained direction.

    Raises:
        InterpToolkitError: as `make_controls`.
    """
    matched, n = matched_control(adapter, vectors, labels), len(labels)
    without_vector = [null_control(adapter, n), bias_control(adapter, bias_only, n)]
    return [untrained_control(adapter, vectors, scale), matched, *without_vector]


def share_table(measure: str, values: Mapping[str, Values], scale: float, seed: int = 0) -> pd.DataFrame:
    """Build the rows of `bias_share` for one measure.

    Args:
        measure: its name.
        values: for each of `ARMS` one number per row; whether more or less is better does not matter.
        scale: of the untrained direction.
        seed: of the intervals.
    """
    arrays = {arm: np.asarray(x, dtype=np.float64) for arm, x in values.items()}
    start, trained = arrays["untrained"], arrays["trained"]
    rows = []
    for way in (NULL, BIAS):
        share = ratio_interval(start - arrays[way], start - trained, seed=seed)
        rows.append(
            dict(
                measure=measure,
                way=way,
                untrained=float(start.mean()),
                bias=float(arrays[way].mean()),
                trained=float(trained.mean()),
                share=share.value + 0.0,  # no minus before a zero
                low=share.low,
                high=share.high,
                scale=scale,
                n=share.n,
                seed=seed,
            )
        )
    return pd.DataFrame(rows)


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    return context.facts | dict(
        task="bias",
        adapter=adapter.digest,
        n=len(context.titles.held_out[:_MEASURED]),
        swept=len(context.titles.dev[:_SWEPT]),
        scales=list(SCALES),
        training=bias_training(context, adapter),
        protocol=GREEDY,
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Train a bias alone, choose the untrained direction's length on training titles, and measure on held-out ones.

    Half an hour on two cores, most of it the training of the bias.

    Returns:
        ``tables``: ``bias`` (see `bias_share`, with recall and mean reciprocal rank among all titles for what is named)
        and ``sweep`` (loss and mean reciprocal rank of untrained directions by length); ``failed`` rows;
        ``bias_only`` (digest, and loss on the titles that chose its weights); and ``examples``.
    """
    held_out = HeldOut.read(context, adapter, _MEASURED)
    bias_only = train_bias_only(context, adapter)
    sweep, sweep_failed = _sweep(context, adapter)
    by_loss = float(sweep.loc[sweep.loss.idxmin(), "scale"])
    by_rank = float(sweep.loc[sweep.mrr.idxmax(), "scale"])
    measured = row_losses(
        context,
        adapter,
        held_out.titles,
        held_out.vectors,
        lambda vectors, labels: bias_controls(adapter, vectors, labels, bias_only, by_loss),
    )
    tables = [share_table("loss", dict(zip(ARMS, measured.losses)), by_loss, SEED)]
    matched = measured.controls[ARMS.index("trained")]
    described = [untrained_control(adapter, matched.vectors, by_rank), *measured.controls[1:]]
    descriptions = describe_controls(described, context.describe_greedily)
    ranks = {
        arm: target_ranks(context, measured.titles, texts, matched.target_index)
        for arm, texts in zip(ARMS, descriptions)
    }
    for name, value in (
        ("recall@1", lambda rank: rank <= 1),
        ("recall@10", lambda rank: rank <= 10),
        ("mrr", lambda rank: 1 / rank.double()),
    ):
        tables.append(share_table(name, {arm: value(rank) for arm, rank in ranks.items()}, by_rank, SEED))
    return dict(
        tables=dict(bias=pd.concat(tables), sweep=sweep),
        failed=held_out.failed + sweep_failed + measured.failed,
        bias_only=dict(digest=bias_only.digest, dev_loss=bias_only.metadata["best_val_loss"]),
        examples=[dict(zip(("title", *ARMS), row)) for row in zip(measured.titles[:_EXAMPLES], *descriptions)],
    )


def _sweep(context: EvalContext, adapter: Adapter) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Untrained directions of training titles by length, and the rows that failed."""
    dev = HeldOut.read(context, adapter, _SWEPT, context.titles.dev)
    measured = row_losses(
        context,
        adapter,
        dev.titles,
        dev.vectors,
        lambda vectors, _: [untrained_control(adapter, vectors, scale) for scale in SCALES],
    )
    rows = []
    descriptions = describe_controls(measured.controls, context.describe_greedily)
    for control, losses, texts in zip(measured.controls, measured.losses, descriptions):
        ranks = target_ranks(context, measured.titles, texts, control.target_index)
        mrr = (1 / ranks.double()).mean().item()
        rows.append(dict(scale=control.scale, loss=losses.mean().item(), mrr=mrr, n=len(losses), seed=SEED))
    return pd.DataFrame(rows), dev.failed + measured.failed


EVALUATION = Evaluation(_settings, _measure)
