"""Abstention: the evidence below which a description is no reading, and what keeping only the rest costs and gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import EvidenceThreshold
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.conditions import random_directions
from interp_toolkit.runtime import PromptRun, evidence, generate
from interp_toolkit.statistics import proportion_interval
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults


@dataclass(frozen=True, eq=False)
class EvidenceControls:
    """Evidence of greedy descriptions, in nats a token, each of shape [vectors]; NaN for an empty description.

    Attributes:
        own: of what each vector is described as.
        shuffled: of the same descriptions, judged by the vector half-way round the list.
        random: of what a random direction of each vector's norm is described as.
        descriptions: of the vectors.
    """

    own: Float[Tensor, " n"]
    shuffled: Float[Tensor, " n"]
    random: Float[Tensor, " n"]
    descriptions: tuple[str, ...]

    __repr__ = brief_repr


@plain_defaults()
@torch.no_grad()
def evidence_controls(
    model: Any, adapter: Adapter, vectors: Float[Tensor, "n width"], seed: int = 0, progress: bool = False
) -> EvidenceControls:
    """Describe vectors and random directions, and judge the descriptions by their own vectors and by others.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: at least two, centred as the contract says.
        seed: of the random directions.
        progress: whether to show bars.

    Raises:
        InterpToolkitError: no soft prompt in the contract, or fewer than two vectors.
    """
    soft_prompt = adapter.require_contract().require_soft_prompt()
    if len(vectors) < 2:
        raise InterpToolkitError(f"expected at least two vectors, so that each can face another, got {len(vectors)}")
    run = PromptRun(model, soft_prompt)
    device = run.backend.device
    adapter = adapter.to(device)
    null = adapter.null()
    random = random_directions(vectors, adapter.config.sites, seed)
    soft_tokens, strange = adapter(vectors.to(device)), adapter(random.to(device))
    longest = EvidenceThreshold.MAX_NEW_TOKENS
    texts, others = (
        [row[0] for row in generate(run, tokens, null=null, max_new_tokens=longest, progress=progress)]
        for tokens in (soft_tokens, strange)
    )
    ids = [text.token_ids for text in texts]
    return EvidenceControls(
        own=torch.tensor([text.evidence for text in texts]),
        shuffled=evidence(run, null, ids, soft_tokens.roll(len(vectors) // 2, 0))[1],
        random=torch.tensor([text.evidence for text in others]),
        descriptions=tuple(text.text for text in texts),
    )


@plain_defaults()
def calibrate_threshold(
    controls: EvidenceControls, false_positive_rate: float = 0.05, seed: int = 0
) -> EvidenceThreshold:
    """The lowest evidence that lets through at most this share of either control.

    A description of a random direction, and a description judged by a vector that it is not of, say nothing of the
    vector, however fluent they are. Controls are greedy descriptions at scale 1 by the adapter's own soft prompt, and
    the threshold is for such descriptions alone: `self_explain` gives no verdict on others, samples among them (see
    `EvidenceThreshold.applies`).

    Args:
        controls: of vectors that nothing is measured on afterwards.
        false_positive_rate: above 0 and below 1.
        seed: that the controls were made with, for the record.

    Raises:
        InterpToolkitError: a rate out of its range, or too few vectors to tell it.

    Example:
        >>> threshold = calibrate_threshold(evidence_controls(model, adapter, vectors))
        >>> adapter.contract = replace(adapter.contract, threshold=threshold)
        >>> self_explain("Tell me about baseball.", adapter=adapter)[0].above_threshold
        True
    """
    if not 0 < false_positive_rate < 1:
        raise InterpToolkitError(f"expected a false_positive_rate between 0 and 1, got {false_positive_rate}")
    n = len(controls.own)
    if n * false_positive_rate < 1:
        raise InterpToolkitError(
            f"expected at least {math.ceil(1 / false_positive_rate)} vectors to tell a rate of {false_positive_rate}, "
            f"got {n}"
        )
    allowed = math.floor(false_positive_rate * n + 1e-9)
    # Of either control, the highest that is kept out. An empty description is no reading, whatever the threshold.
    highest = [
        float(found.nan_to_num(nan=-math.inf).sort(descending=True).values[allowed])
        for found in (controls.shuffled, controls.random)
    ]
    value = float(np.nextafter(np.float32(max(highest)), np.float32(math.inf)))
    return EvidenceThreshold(value=value, false_positive_rate=false_positive_rate, n=n, seed=seed)


def reading_table(
    controls: EvidenceControls, correct: Sequence[bool], threshold: EvidenceThreshold, seed: int = 0
) -> pd.DataFrame:
    """What a threshold does on held-out vectors: who passes it, and how right those are who do.

    Args:
        controls: of held-out vectors.
        correct: for each vector whether its description is right.
        threshold: calibrated on others.
        seed: for the record.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high`` (Wilson, 95%), ``n``, ``seed``. Measures: ``kept`` of the
        readings, ``passed, shuffled`` and ``passed, random`` (false positives), ``accuracy, all`` and ``accuracy,
        kept``.

    Raises:
        InterpToolkitError: counts that differ.
    """
    right = _matched(controls.own, correct)
    kept, shuffled, random = (
        (found >= threshold.value).numpy() for found in (controls.own, controls.shuffled, controls.random)
    )
    measures = {
        "kept": kept,
        "passed, shuffled": shuffled,
        "passed, random": random,
        "accuracy, all": right,
        "accuracy, kept": right[kept],
    }
    rows = []
    for name, found in measures.items():
        value, low, high = (math.nan,) * 3
        if len(found):  # where nothing is kept, there is no telling how right it is
            told = proportion_interval(found)
            value, low, high = told.value, told.low, told.high
        rows.append(dict(measure=name, value=value, low=low, high=high, n=len(found), seed=seed))
    return pd.DataFrame(rows)


def coverage_accuracy(
    evidence: Float[Tensor, " n"], correct: Sequence[bool], coverages: Sequence[float] = tuple(np.arange(1, 21) / 20)
) -> pd.DataFrame:
    """How right descriptions are when only the most evident are kept.

    Args:
        evidence: of each description; NaN is kept last.
        correct: whether each is right.
        coverages: shares to keep, above 0 and at most 1.

    Returns:
        columns ``coverage``, ``threshold`` (the lowest evidence kept), ``accuracy``, ``low``, ``high`` (Wilson, 95%),
        ``n`` (descriptions kept).

    Raises:
        InterpToolkitError: counts that differ, or a share out of its range.
    """
    right = _matched(evidence, correct)
    order = np.argsort(-evidence.nan_to_num(nan=-math.inf).numpy(), kind="stable")
    rows = []
    for coverage in coverages:
        if not 0 < coverage <= 1:
            raise InterpToolkitError(f"expected coverages above 0 and at most 1, got {coverage}")
        kept = order[: max(1, round(coverage * len(order)))]
        told = proportion_interval(right[kept])
        lowest = float(evidence[int(kept[-1])])
        rows.append(
            dict(
                coverage=float(coverage),
                threshold=lowest,
                accuracy=told.value,
                low=told.low,
                high=told.high,
                n=len(kept),
            )
        )
    return pd.DataFrame(rows)


def _matched(evidence: Tensor, correct: Sequence[bool]) -> np.ndarray:
    if len(evidence) != len(correct) or not len(evidence):
        raise InterpToolkitError(
            f"expected whether each description is right, got {len(evidence)} descriptions and {len(correct)} verdicts"
        )
    return np.asarray(correct, dtype=bool)
