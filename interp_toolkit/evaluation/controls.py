"""Controls: the loss of labels, and what descriptions name, without the right vector or the right label."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bias_only import bias_training, train_bias_only
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.evaluation.control_kinds import (
    Control,
    bias_control,
    describe_controls,
    greedy_descriptions,
    matched_control,
    null_control,
    random_directions,
    shifted_control,
    untrained_control,
)
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import recall_table
from interp_toolkit.evaluation.row_losses import row_losses, target_ranks
from interp_toolkit.models import model_facts
from interp_toolkit.statistics import (
    Interval,
    Values,
    adjust_p_values,
    mean_interval,
    paired_difference,
    proportion_interval,
)
from interp_toolkit.torch_defaults import plain_defaults

SHUFFLED, RANDOM, LABELS = "shuffled vectors", "random directions", "random labels"
# Lengths of the untrained direction that are tried: topics are described best at 4, features of early layers at 80.
SCALES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0, 80.0, 160.0)

Named = Callable[[Sequence[str], Sequence[int]], Values]
"""From descriptions, and for each the row whose label it should name, to whether (or how well) it does."""

# How many held-out titles the evaluation measures; a description names its title if it is among so many.
_MEASURED, _WITHIN = 500, 10
_EXAMPLES = 12


@dataclass(frozen=True)
class ControlLosses:
    """Mean losses of labels, in nats per token.

    Attributes:
        matched: each label with its own vector.
        shuffled: with the vector half a list away.
        null: with the null vector, so that only the adapter's bias is left.
    """

    matched: float
    shuffled: float
    null: float

    @property
    def own(self) -> float:
        """The old name of ``matched``."""
        warn_renamed("ControlLosses.own", "ControlLosses.matched")
        return self.matched


@plain_defaults()
def control_losses(
    model: object, adapter: Adapter, vectors: Float[Tensor, "n width"], labels: Sequence[str]
) -> ControlLosses:
    """Compute the training loss (mean over a label's tokens, then over labels), and the same without the right vector.

    What an adapter has learned about its vectors is ``shuffled - matched``; what it has learned about labels in general
    shows in ``null``. See `control_table` for all controls, with intervals.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one per vector.

    Raises:
        InterpToolkitError: no contract with a soft prompt, counts that differ, or fewer than two vectors.

    Example:
        >>> control_losses(model, adapter, adapter.contract.centre(raw), titles).matched
    """
    matched = matched_control(adapter, vectors, labels)
    compared = (matched, shifted_control(matched), null_control(adapter, len(labels)))
    return ControlLosses(*(control.losses(model, labels).mean().item() for control in compared))


@plain_defaults()
def control_table(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    *,
    bias_only: Adapter | None = None,
    scales: Sequence[float] = SCALES,
    named: Named | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate the loss of labels, and what descriptions name, under every control beside the matched vectors.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one per vector.
        bias_only: an adapter of that kind, trained for the same soft prompt; adds a row.
        scales: of the untrained direction, see `make_controls`.
        named: for what descriptions name. One greedy description is made of each vector under each control; ``named``
            takes them with the rows whose labels they should name, and returns for each whether it does, or a number.
        seed: of shuffling, random directions, random labels, and the intervals.

    Returns:
        one row per control, with 95% intervals over vectors: ``control``; ``scale`` of the untrained direction, and
        whether it is the ``best`` of them by loss, on these rows, which favours it; ``loss`` of the label in nats per
        token, ``low``, ``high``; ``evidence`` of the label, its loss under the null vector less its loss,
        ``evidence_low``, ``evidence_high``; ``difference`` in loss to the matched vectors, ``difference_low``,
        ``difference_high``; ``p`` of the sign-flip test on it, corrected by Holm's method for all
        controls; ``n``; ``seed``; with ``named`` also ``named``, ``named_low``, ``named_high``.

    Raises:
        InterpToolkitError: no contract with a soft prompt, another model's contract, counts that differ, fewer than two
            vectors or different labels, or a bias-only adapter for another soft prompt.

    Example:
        >>> exact = lambda texts, rows: [text == titles[row] for text, row in zip(texts, rows)]
        >>> control_table(model, adapter, adapter.contract.centre(raw), titles, named=exact)
    """
    controls = make_controls(adapter, vectors, labels, bias_only=bias_only, scales=scales, seed=seed)
    facts = model_facts(model)
    for control in controls:
        control.adapter.require_contract(facts)
    losses = [control.losses(model, labels) for control in controls]
    hits = None
    if named is not None:
        descriptions = describe_controls(controls, partial(greedy_descriptions, model))
        hits = [named(texts, control.target_index) for control, texts in zip(controls, descriptions)]
    return tabulate_controls(controls, losses, hits, seed)


def make_controls(
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    *,
    bias_only: Adapter | None = None,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
) -> list[Control]:
    """Set up the matched vectors and every control of `control_table`.

    The null vector; the vectors in a random cycle, so that no row has its own; random directions of each vector's norm;
    the bias-only adapter if there is one; for an adapter of one site and one soft token the untrained direction at each
    scale, in the adapter's soft prompt; and the matched vectors with random labels, drawn from all that differ.

    Args:
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one per vector.
        bias_only: see `control_table`.
        scales: lengths of the untrained direction.
        seed: of shuffling, random directions and random labels.

    Raises:
        InterpToolkitError: as `control_table`.
    """
    matched, n = matched_control(adapter, vectors, labels), len(labels)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cycle = torch.empty(n, dtype=torch.long).scatter(0, order, order.roll(1))
    controls = [
        matched,
        null_control(adapter, n),
        replace(matched, name=SHUFFLED, vector_index=tuple(cycle.tolist())),
        replace(matched, name=RANDOM, vectors=random_directions(vectors, adapter.config.sites, seed)),
    ]
    if bias_only is not None:
        controls.append(bias_control(adapter, bias_only, n))
    if adapter.config.sites == adapter.config.tokens == 1:
        controls += [untrained_control(adapter, vectors, scale) for scale in scales]
    return [*controls, replace(matched, name=LABELS, target_index=_other_labels(labels, seed))]


def tabulate_controls(
    controls: Sequence[Control], losses: Sequence[Values], named: Sequence[Values] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Build the table of `control_table` from the measurements of each row under each control.

    Args:
        controls: see `make_controls`; the first is the matched vectors, the second the null vector.
        losses: for each control one per row.
        named: likewise, what descriptions name; truths (intervals by Wilson) or numbers (by the bootstrap).
        seed: of the intervals.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in losses]
    matched, null = arrays[:2]
    differences = [paired_difference(values, matched, seed=seed) for values in arrays]
    # The matched vectors are compared with nothing.
    adjusted = [float("nan"), *adjust_p_values([x.p for x in differences[1:]])]
    scaled = [i for i, control in enumerate(controls) if control.scale is not None]
    best = min(scaled, key=lambda i: arrays[i].mean(), default=None)
    rows = []
    for i, (control, difference, p) in enumerate(zip(controls, differences, adjusted)):
        loss = mean_interval(arrays[i], seed=seed)
        row: dict[str, Any] = dict(control=control.name, scale=control.scale, best=i == best)
        row |= dict(loss=loss.value, low=loss.low, high=loss.high)
        evidence = mean_interval(null[list(control.target_index)] - arrays[i], seed=seed)
        row |= dict(evidence=evidence.value, evidence_low=evidence.low, evidence_high=evidence.high)
        row |= dict(difference=difference.value, difference_low=difference.low, difference_high=difference.high, p=p)
        row |= dict(n=loss.n, seed=seed)
        if named is not None:
            share = _named_interval(named[i], seed)
            row |= dict(named=share.value, named_low=share.low, named_high=share.high)
        rows.append(row)
    return pd.DataFrame(rows)


def _named_interval(named: Values, seed: int) -> Interval:
    """The mean of what is named: Wilson's interval for truths, the bootstrap's for numbers."""
    truths = np.asarray(named).dtype == bool
    return proportion_interval(named) if truths else mean_interval(named, seed=seed)


def _other_labels(labels: Sequence[str], seed: int) -> tuple[int, ...]:
    """For each row one at random whose label differs."""
    if len(set(labels)) < 2:
        raise InterpToolkitError(f"expected at least two different labels, got {labels[0]!r} alone")
    generator, rows = random.Random(seed), []
    for label in labels:
        while labels[row := generator.randrange(len(labels))] == label:
            pass
        rows.append(row)
    return tuple(rows)


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    return context.facts | dict(
        task="controls",
        adapter=adapter.digest,
        n=len(context.titles.held_out[:_MEASURED]),
        scales=list(SCALES),
        named_within=_WITHIN,
        training=bias_training(context, adapter),
        protocol=GREEDY,
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Score and describe held-out titles under every control.

    Half an hour on two cores, less for adapters of several sites; half of it trains a bias alone, which the evaluation
    of the bias shares.

    Returns:
        ``tables``: ``controls`` (see `control_table`; a title is named if it is among the first 10 of all) and
        ``retrieval`` (recall at several depths under each control); ``failed`` rows; ``bias_only`` (its digest); and
        ``examples``.
    """
    held_out = HeldOut.read(context, adapter, _MEASURED)
    bias_only = train_bias_only(context, adapter)
    measured = row_losses(
        context,
        adapter,
        held_out.titles,
        held_out.vectors,
        lambda vectors, labels: make_controls(adapter, vectors, labels, bias_only=bias_only, seed=SEED),
    )
    descriptions = describe_controls(measured.controls, context.describe_greedily)
    ranks = [
        target_ranks(context, measured.titles, texts, control.target_index)
        for texts, control in zip(descriptions, measured.controls)
    ]
    within = [rank <= _WITHIN for rank in ranks]
    return dict(
        tables=dict(
            controls=tabulate_controls(measured.controls, measured.losses, within, SEED),
            retrieval=[
                dict(control=control.name, scale=control.scale) | row
                for rank, control in zip(ranks, measured.controls)
                for row in recall_table(rank, seed=SEED).to_dict("records")
            ],
        ),
        failed=held_out.failed + measured.failed,
        bias_only=dict(digest=bias_only.digest),
        examples=[
            dict(title=title, control=control.name, scale=control.scale, description=texts[i])
            for i, title in enumerate(measured.titles[:_EXAMPLES])
            for control, texts in zip(measured.controls, descriptions)
        ],
    )


EVALUATION = Evaluation(_settings, _measure)
