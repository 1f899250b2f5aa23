"""The share of the bias: how much of what training gains needs no vector at all."""

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
from interp_toolkit.evaluation.conditions import (
    BIAS,
    NULL,
    Condition,
    bias_alone,
    describe_each,
    greedy,
    null_vector,
    own_vectors,
    untrained,
)
from interp_toolkit.evaluation.controls import SCALES, Named
from interp_toolkit.models import model_facts
from interp_toolkit.statistics import Values, ratio_interval
from interp_toolkit.torch_defaults import plain_defaults

# What `share_table` is given of each row, in this order.
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
    """How much of the improvement over the untrained direction is the bias's alone, in loss and in what is named.

    The share is (untrained - bias) / (untrained - trained), with the vector taken out in two ways: the trained adapter
    given the null vector, and an adapter trained with nothing but a bias. Of the improvement in cross-entropy
    arXiv 2602.10352 puts it at 85%. Below 0 the bias is worse than no training, above 1 better than with the vector. It
    is a share of an improvement only where ``trained`` is better than ``untrained``.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the adapter's contract says.
        labels: one a vector.
        bias_only: an adapter of that kind, trained for the same soft prompt.
        scale: length of the untrained direction, chosen on other vectors: see `best_scale`.
        named: as in `control_table`, for the share in what descriptions name.
        named_scale: length of the untrained direction there; by default ``scale``.
        seed: of the intervals.

    Returns:
        a row a ``measure`` (``"loss"``, in nats a token, and ``"named"``) and ``way`` of taking the vector out
        (``"null vector"``, ``"bias only"``): means ``untrained``, ``bias``, ``trained``; ``share`` and its 95% interval
        over vectors, ``low`` and ``high``, infinite where training may have gained nothing; ``scale``; ``n``; ``seed``.

    Raises:
        InterpToolkitError: as `control_table`.

    Example:
        >>> scale = best_scale(model, adapter, other_vectors, other_labels)
        >>> bias_share(model, adapter, vectors, labels, bias_only=bias_only, scale=scale)
    """
    asked = bias_conditions(adapter, vectors, labels, bias_only, scale)
    facts = model_facts(model)
    for condition in asked:
        condition.adapter.require_contract(facts)
    losses = {arm: condition.losses(model, labels) for arm, condition in zip(ARMS, asked)}
    tables = [share_table("loss", losses, scale, seed)]
    if named is not None:
        named_scale = scale if named_scale is None else named_scale
        asked[0] = untrained(adapter, vectors, named_scale)
        told = describe_each(asked, partial(greedy, model))
        found = {arm: named(texts, condition.faced) for arm, texts, condition in zip(ARMS, told, asked)}
        tables.append(share_table("named", found, named_scale, seed))
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
    """The length of the untrained direction at which labels cost least; with ``named``, at which most is named.

    Args:
        model: the hooked model.
        adapter: whose soft prompt is asked; see `untrained` for which of several sites counts.
        vectors: centred; other ones than those that are measured afterwards.
        labels: one a vector.
        scales: lengths to try.
        named: as in `control_table`.

    Raises:
        InterpToolkitError: as `control_table`, or no scale.
    """
    own_vectors(adapter, vectors, labels)  # its checks
    if not scales:
        raise InterpToolkitError("expected at least one scale, got none")
    asked = [untrained(adapter, vectors, scale) for scale in scales]
    if named is None:
        worth = [-condition.losses(model, labels).mean().item() for condition in asked]
    else:
        texts = describe_each(asked, partial(greedy, model))
        worth = [float(np.mean(named(told, condition.faced))) for told, condition in zip(texts, asked)]
    return scales[worth.index(max(worth))]


def bias_conditions(
    adapter: Adapter, vectors: Tensor, labels: Sequence[str], bias_only: Adapter, scale: float
) -> list[Condition]:
    """What `bias_share` asks, in the order of `ARMS`, for runs that keep what they measured."""
    own, n = own_vectors(adapter, vectors, labels), len(labels)
    return [untrained(adapter, vectors, scale), own, null_vector(adapter, n), bias_alone(adapter, bias_only, n)]


def share_table(measure: str, values: Mapping[str, Values], scale: float, seed: int = 0) -> pd.DataFrame:
    """The rows of `bias_share` for one measure.

    Args:
        measure: its name.
        values: for each of `ARMS` one number a row; whether more or less is better does not matter.
        scale: of the untrained direction.
        seed: of the intervals.
    """
    each = {arm: np.asarray(found, dtype=np.float64) for arm, found in values.items()}
    start, trained = each["untrained"], each["trained"]
    rows = []
    for way in (NULL, BIAS):
        share = ratio_interval(start - each[way], start - trained, seed=seed)
        rows.append(
            dict(
                measure=measure,
                way=way,
                untrained=float(start.mean()),
                bias=float(each[way].mean()),
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
