"""Selective prediction: the evidence below which an adapter abstains, and how right the other descriptions are."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import EvidenceThreshold
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.engines import Engine, LocalEngine, as_engine, require_same_model
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.confidence import require_verdicts
from interp_toolkit.evaluation.context import SAMPLES, SEED, TEMPERATURE, EvalContext
from interp_toolkit.evaluation.control_kinds import random_directions
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import best_by_evidence
from interp_toolkit.runtime import Generation, PromptRun, evidence
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.statistics import paired_difference, proportion_interval
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

_RATE = 0.05
# Titles to calibrate on, and to measure on.
_CALIBRATED, _MEASURED = 500, 1000
# A description is right if its title is among so many.
_WITHIN = (1, 10)


@dataclass(frozen=True, eq=False)
class EvidenceControls:
    """Evidence of greedy descriptions, in nats per token; NaN for an empty description.

    Attributes:
        matched: of each vector's description, [vectors].
        shuffled: of the same descriptions by the vector half a list away, [vectors].
        random: of the description of a random direction with each vector's norm, [vectors].
        descriptions: of the vectors.
    """

    matched: Float[Tensor, " n"]
    shuffled: Float[Tensor, " n"]
    random: Float[Tensor, " n"]
    descriptions: tuple[str, ...]

    __repr__ = brief_repr

    @property
    def own(self) -> Tensor:
        """The old name of ``matched``."""
        warn_renamed("EvidenceControls.own", "EvidenceControls.matched")
        return self.matched


@plain_defaults()
@torch.no_grad()
def evidence_controls(
    model: Any, adapter: Adapter, vectors: Float[Tensor, "n width"], seed: int = 0, progress: bool = False
) -> EvidenceControls:
    """Describe vectors and random directions, and compute the evidence by matched and by shuffled vectors.

    Args:
        model: the hooked model, or another engine, as of `self_explain`.
        adapter: with its contract.
        vectors: at least two, centred as the contract says.
        seed: of the random directions.
        progress: whether to show bars.

    Raises:
        InterpToolkitError: no soft prompt in the contract, or fewer than two vectors.
    """
    soft_prompt = adapter.require_contract().require_soft_prompt()
    if len(vectors) < 2:
        raise InterpToolkitError(
            f"expected at least two vectors, so that there is another for each, got {len(vectors)}"
        )
    engine = as_engine(model)
    require_same_model(engine, adapter)
    device = engine.device
    adapter = adapter.to(device)
    null = adapter.null()
    random = random_directions(vectors, adapter.config.sites, seed)
    soft_tokens, random_tokens = adapter(vectors.to(device)), adapter(random.to(device))
    settings: Any = dict(null=null, max_new_tokens=EvidenceThreshold.MAX_NEW_TOKENS, progress=progress)
    texts, random_texts = (
        [row[0] for row in engine.generate(soft_prompt, tokens, **settings)] for tokens in (soft_tokens, random_tokens)
    )
    return EvidenceControls(
        matched=torch.tensor([text.evidence for text in texts]),
        shuffled=_evidence_of(engine, soft_prompt, null, texts, soft_tokens.roll(len(vectors) // 2, 0)),
        random=torch.tensor([text.evidence for text in random_texts]),
        descriptions=tuple(text.text for text in texts),
    )


def _evidence_of(
    engine: Engine, soft_prompt: SoftPrompt, null: Tensor, texts: Sequence[Generation], soft_tokens: Tensor
) -> Tensor:
    """The evidence of texts behind other soft tokens than those they were written behind; NaN where they have none."""
    if isinstance(engine, LocalEngine):
        ids = [text.token_ids for text in texts]
        return evidence(PromptRun(engine.model, soft_prompt), null, ids, soft_tokens)[1]
    # Of these an engine elsewhere can score the tokens.
    rows = [i for i, text in enumerate(texts) if not math.isnan(text.evidence)]
    targets, values = [texts[i].token_ids for i in rows], torch.full((len(texts),), math.nan)
    if rows:
        by_vector = engine.score(soft_prompt, soft_tokens, targets, rows).mean()
        values[rows] = (by_vector - engine.score(soft_prompt, null[None], targets, [0] * len(rows)).mean()).cpu()
    return values


def calibrate(
    adapter: Adapter,
    model: Any,
    vectors: Float[Tensor, "n width"],
    *,
    false_positive_rate: float = 0.05,
    seed: int = 0,
    progress: bool = False,
) -> Adapter:
    """Return a copy of an adapter whose contract has a calibrated evidence threshold.

    `self_explain` then marks, for one greedy description per vector, whether its evidence is above the threshold.

    Args:
        adapter: with its contract; it is not changed.
        model: the hooked model.
        vectors: centred as the contract says; nothing is measured on them afterwards.
        false_positive_rate: share of either control that may pass, see `calibrate_threshold`.
        seed: of the random directions.
        progress: whether to show bars.

    Raises:
        InterpToolkitError: no soft prompt in the contract, a rate out of its range, or too few vectors for the rate.

    Example:
        >>> calibrated = calibrate(adapter, model, vectors)
        >>> calibrated.save_pretrained("my-adapter")
    """
    contract = adapter.require_contract()
    controls = evidence_controls(model, adapter, vectors, seed, progress)
    calibrated = copy.deepcopy(adapter)
    calibrated.contract = replace(contract, threshold=calibrate_threshold(controls, false_positive_rate, seed))
    return calibrated


@plain_defaults()
def calibrate_threshold(
    controls: EvidenceControls, false_positive_rate: float = 0.05, seed: int = 0
) -> EvidenceThreshold:
    """Compute the lowest evidence that at most this share of either control reaches.

    A description of a random direction, and a description by a vector that it does not belong to, say nothing about
    the vector, however fluent they are. Controls are greedy descriptions at scale 1 by the adapter's soft prompt, and
    the threshold is for such descriptions only: `self_explain` gives no verdict on others, such as samples (see
    `EvidenceThreshold.applies`). `calibrate` puts the threshold into a copy of an adapter.

    Args:
        controls: of vectors that nothing is measured on afterwards.
        false_positive_rate: above 0 and below 1.
        seed: that the controls were made with, for the record.

    Raises:
        InterpToolkitError: a rate out of its range, or too few vectors for it.
    """
    if not 0 < false_positive_rate < 1:
        raise InterpToolkitError(f"expected a false_positive_rate between 0 and 1, got {false_positive_rate}")
    n = len(controls.matched)
    if n * false_positive_rate < 1:
        raise InterpToolkitError(
            f"expected at least {math.ceil(1 / false_positive_rate)} vectors for a rate of {false_positive_rate}, "
            f"got {n}"
        )
    allowed = math.floor(false_positive_rate * n + 1e-9)
    # For each control, the highest evidence that must not pass. An empty description never passes.
    highest = [
        float(evidence.nan_to_num(nan=-math.inf).sort(descending=True).values[allowed])
        for evidence in (controls.shuffled, controls.random)
    ]
    value = float(np.nextafter(np.float32(max(highest)), np.float32(math.inf)))
    return EvidenceThreshold(value=value, false_positive_rate=false_positive_rate, n=n, seed=seed)


def threshold_table(
    controls: EvidenceControls, correct: Sequence[bool], threshold: EvidenceThreshold, seed: int = 0
) -> pd.DataFrame:
    """Tabulate what passes a threshold on held-out vectors, and how right the descriptions that pass are.

    Args:
        controls: of held-out vectors.
        correct: for each vector whether its description is right.
        threshold: calibrated on other vectors.
        seed: for the record.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high`` (Wilson, 95%), ``n``, ``seed``. Measures: ``kept`` (the
        descriptions that pass), ``passed, shuffled`` and ``passed, random`` (false positives), ``accuracy, all`` and
        ``accuracy, kept``.

    Raises:
        InterpToolkitError: counts that differ.
    """
    right = _verdicts(controls.matched, correct)
    passed, shuffled, random = (
        (evidence >= threshold.value).numpy() for evidence in (controls.matched, controls.shuffled, controls.random)
    )
    measures = {
        "kept": passed,
        "passed, shuffled": shuffled,
        "passed, random": random,
        "accuracy, all": right,
        "accuracy, kept": right[passed],
    }
    rows = []
    for name, hits in measures.items():
        value, low, high = (math.nan,) * 3
        if len(hits):  # without descriptions that pass, their accuracy is unknown
            share = proportion_interval(hits)
            value, low, high = share.value, share.low, share.high
        rows.append(dict(measure=name, value=value, low=low, high=high, n=len(hits), seed=seed))
    return pd.DataFrame(rows)


def accuracy_by_coverage(
    evidence: Float[Tensor, " n"], correct: Sequence[bool], coverages: Sequence[float] = tuple(np.arange(1, 21) / 20)
) -> pd.DataFrame:
    """Tabulate the accuracy of the descriptions with most evidence, by the share of descriptions that are taken.

    One less the accuracy is the risk of the risk-coverage curve of selective prediction.

    Args:
        evidence: of each description; NaN is taken last.
        correct: whether each description is right.
        coverages: shares to take, above 0 and at most 1.

    Returns:
        columns ``coverage``, ``threshold`` (the lowest evidence taken), ``accuracy``, ``low``, ``high`` (Wilson, 95%),
        ``n`` (descriptions taken).

    Raises:
        InterpToolkitError: counts that differ, or a share out of its range.
    """
    right = _verdicts(evidence, correct)
    order = np.argsort(-evidence.nan_to_num(nan=-math.inf).numpy(), kind="stable")
    rows = []
    for coverage in coverages:
        if not 0 < coverage <= 1:
            raise InterpToolkitError(f"expected coverages above 0 and at most 1, got {coverage}")
        taken = order[: max(1, round(coverage * len(order)))]
        share = proportion_interval(right[taken])
        rows.append(
            dict(
                coverage=float(coverage),
                threshold=float(evidence[int(taken[-1])]),
                accuracy=share.value,
                low=share.low,
                high=share.high,
                n=len(taken),
            )
        )
    return pd.DataFrame(rows)


def _verdicts(evidence: Tensor, correct: Sequence[bool]) -> np.ndarray:
    require_verdicts(len(evidence), len(correct))
    return np.asarray(correct, dtype=bool)


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    return context.facts | dict(
        task="selective_prediction",
        adapter=adapter.digest,
        n=len(context.titles.held_out[:_MEASURED]),
        calibrated_on=len(context.titles.dev[:_CALIBRATED]),
        false_positive_rate=_RATE,
        samples=SAMPLES,
        temperature=TEMPERATURE,
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Calibrate on training titles that chose the weights at most, and measure on held-out ones.

    Returns:
        ``tables``: ``readings`` (see `threshold_table`), ``coverage`` (see `accuracy_by_coverage`), and ``choosing``
        among samples by evidence against taking the first; ``failed`` rows; and ``threshold``.
    """
    dev = HeldOut.read(context, adapter, _CALIBRATED, context.titles.dev)
    held_out = HeldOut.read(context, adapter, _MEASURED)
    calibration = evidence_controls(context.engine, adapter, dev.vectors, SEED, context.progress)
    threshold = calibrate_threshold(calibration, _RATE, SEED)
    answers = context.answers(held_out.titles)
    # Other random directions than those of the calibration.
    controls = evidence_controls(context.engine, adapter, held_out.vectors, SEED + 1, context.progress)
    ranks = context.ranks([[text] for text in controls.descriptions], answers)[:, 0]
    readings, coverage = [], []
    for k in _WITHIN:
        correct, right = (ranks <= k).tolist(), dict(right=f"within {k}")
        table = threshold_table(controls, correct, threshold, SEED).to_dict("records")
        readings += [row | right for row in table if k == 1 or "accuracy" in row["measure"]]
        coverage += [row | right for row in accuracy_by_coverage(controls.matched, correct).to_dict("records")]
    choosing = _choosing(context, adapter, held_out.vectors, answers)
    return dict(
        tables=dict(readings=readings, coverage=coverage, choosing=choosing),
        failed=held_out.failed,
        threshold=asdict(threshold),
    )


def _choosing(context: EvalContext, adapter: Adapter, vectors: Tensor, answers: Tensor) -> list[dict[str, Any]]:
    """Recall of the sample with the highest evidence beside that of the first sample."""
    sampled = context.describe(adapter, vectors, SAMPLES)
    ranks = context.ranks(sampled.texts, answers)
    first, chosen = ranks[:, 0], best_by_evidence(ranks, sampled.evidence)
    rows = []
    for k in (1, 5, 10, 100):
        first_hits, chosen_hits = ((rank <= k).double().numpy() for rank in (first, chosen))
        gain = paired_difference(chosen_hits, first_hits, seed=SEED)
        means = dict(first=float(first_hits.mean()), by_evidence=float(chosen_hits.mean()))
        interval = dict(gain=gain.value, low=gain.low, high=gain.high, p=gain.p, n=len(first_hits), seed=SEED)
        rows.append(dict(measure=f"recall@{k}") | means | interval)
    return rows


EVALUATION = Evaluation(_settings, _measure)
