"""Controls: what a label costs, and what descriptions name, without the right vector or the right label."""

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
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.conditions import (
    Condition,
    bias_alone,
    describe_each,
    greedy,
    half_round,
    null_vector,
    own_vectors,
    random_directions,
    untrained,
)
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
# Lengths of the untrained direction that are tried: topics are read best at 4, features of early layers at 80.
SCALES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0, 80.0, 160.0)

Named = Callable[[Sequence[str], Sequence[int]], Values]
"""From descriptions, and for each the row whose label it should name, to whether (or how well) it does."""


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


@plain_defaults()
def control_losses(
    model: object, adapter: Adapter, vectors: Float[Tensor, "n width"], labels: Sequence[str]
) -> ControlLosses:
    """The training loss (mean over a label's tokens, then over labels) and what it is without the right vector.

    What an adapter has learned of its vectors is ``shuffled - own``; what it has learned of how labels look like shows
    in ``null``. See `control_table` for all controls, with intervals.

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
    own = own_vectors(adapter, vectors, labels)
    asked = (own, half_round(own), null_vector(adapter, len(labels)))
    return ControlLosses(*(control.losses(model, labels).mean().item() for control in asked))


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
    """What labels cost, and what descriptions name, under every control beside the vectors themselves.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one a vector.
        bias_only: an adapter of that kind, trained for the same soft prompt, for a row of its own.
        scales: of the untrained direction, see `controls`.
        named: for what descriptions name. One greedy description is made of each vector under each control; ``named``
            takes them with the rows whose labels they should name, and tells for each whether it does, or a number.
        seed: of shuffling, random directions, random labels, and the intervals.

    Returns:
        a row a control, with 95% intervals over vectors: ``control``; ``scale`` of the untrained direction, and whether
        it is the ``best`` of them by loss, on these rows, which favours it; ``loss`` of the label in nats a token,
        ``low``, ``high``; ``evidence`` of the label, its loss under the null vector less its loss, ``evidence_low``,
        ``evidence_high``; ``difference`` in loss to the own vectors, ``difference_low``, ``difference_high``; ``p`` of
        the sign-flip test on it, corrected by Holm's method for all controls; ``n``; ``seed``; with ``named`` also
        ``named``, ``named_low``, ``named_high``.

    Raises:
        InterpToolkitError: no contract with a soft prompt, another model's contract, counts that differ, fewer than two
            vectors or different labels, or a bias-only adapter for another soft prompt.

    Example:
        >>> exact = lambda texts, rows: [text == titles[row] for text, row in zip(texts, rows)]
        >>> control_table(model, adapter, adapter.contract.centre(raw), titles, named=exact)
    """
    asked = controls(adapter, vectors, labels, bias_only=bias_only, scales=scales, seed=seed)
    facts = model_facts(model)
    for control in asked:
        control.adapter.require_contract(facts)
    losses = [control.losses(model, labels) for control in asked]
    found = None
    if named is not None:
        told = describe_each(asked, partial(greedy, model))
        found = [named(texts, control.faced) for control, texts in zip(asked, told)]
    return tabulate(asked, losses, found, seed)


def controls(
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    labels: Sequence[str],
    *,
    bias_only: Adapter | None = None,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
) -> list[Condition]:
    """The own vectors and every control: what `control_table` asks, for runs that keep what they measured.

    The null vector; the vectors in a random cycle, so that none keeps its own; random directions of each vector's norm;
    the bias-only adapter where given; for an adapter of one site and one soft token the untrained direction at each
    scale, in the adapter's own soft prompt; and the own vectors with random labels, drawn from all that differ.

    Raises:
        InterpToolkitError: as `control_table`.
    """
    own, n = own_vectors(adapter, vectors, labels), len(labels)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    cycle = torch.empty(n, dtype=torch.long).scatter(0, order, order.roll(1))
    made = [
        own,
        null_vector(adapter, n),
        replace(own, name=SHUFFLED, given=tuple(cycle.tolist())),
        replace(own, name=RANDOM, vectors=random_directions(vectors, adapter.config.sites, seed)),
    ]
    if bias_only is not None:
        made.append(bias_alone(adapter, bias_only, n))
    if adapter.config.sites == adapter.config.tokens == 1:
        made += [untrained(adapter, vectors, scale) for scale in scales]
    return [*made, replace(own, name=LABELS, faced=_other_labels(labels, seed))]


def tabulate(
    asked: Sequence[Condition], losses: Sequence[Values], named: Sequence[Values] | None = None, seed: int = 0
) -> pd.DataFrame:
    """The table of `control_table` from what was measured of each row, under each control; the first are the own.

    Args:
        asked: see `controls`; the second is the null vector.
        losses: for each control one a row.
        named: likewise, what descriptions name; truths (intervals by Wilson) or numbers (by the bootstrap).
        seed: of the intervals.
    """
    each = [np.asarray(x, dtype=np.float64) for x in losses]
    own, null = each[:2]
    differences = [paired_difference(x, own, seed=seed) for x in each]
    # The own vectors are compared with nothing.
    adjusted = [float("nan"), *adjust_p_values([x.p for x in differences[1:]])]
    scaled = [i for i, control in enumerate(asked) if control.scale is not None]
    best = min(scaled, key=lambda i: each[i].mean(), default=None)
    rows = []
    for i, (control, difference, p) in enumerate(zip(asked, differences, adjusted)):
        loss = mean_interval(each[i], seed=seed)
        row: dict[str, Any] = dict(control=control.name, scale=control.scale, best=i == best)
        row |= dict(loss=loss.value, low=loss.low, high=loss.high)
        evidence = mean_interval(null[list(control.faced)] - each[i], seed=seed)
        row |= dict(evidence=evidence.value, evidence_low=evidence.low, evidence_high=evidence.high)
        row |= dict(difference=difference.value, difference_low=difference.low, difference_high=difference.high, p=p)
        row |= dict(n=loss.n, seed=seed)
        if named is not None:
            share = _named_interval(named[i], seed)
            row |= dict(named=share.value, named_low=share.low, named_high=share.high)
        rows.append(row)
    return pd.DataFrame(rows)


def _named_interval(named: Values, seed: int) -> Interval:
    """How much is named, on average: Wilson's interval for truths, the bootstrap's for numbers."""
    truths = np.asarray(named).dtype == bool
    return proportion_interval(named) if truths else mean_interval(named, seed=seed)


def _other_labels(labels: Sequence[str], seed: int) -> tuple[int, ...]:
    """For each row one at random whose label differs."""
    if len(set(labels)) < 2:
        raise InterpToolkitError(f"expected at least two different labels, got {labels[0]!r} alone")
    draw, drawn = random.Random(seed), []
    for label in labels:
        while labels[row := draw.randrange(len(labels))] == label:
            pass
        drawn.append(row)
    return tuple(drawn)
