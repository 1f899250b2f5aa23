"""Measure abstention: calibrated on training titles, what the threshold lets through on held-out ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.abstention import (
    calibrate_threshold,
    coverage_accuracy,
    evidence_controls,
    reading_table,
)
from interp_toolkit.evaluation.bench import SAMPLES, SEED, TEMPERATURE, Bench
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.protocols import best_by_evidence, description_ranks
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.statistics import paired_difference

_RATE = 0.05
# Titles to calibrate on, and to measure on.
_CALIBRATED, _MEASURED = 500, 1000
# A description is right if its title is among so many.
_WITHIN = (1, 10)


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Calibrate on training titles that chose the weights at most, and measure on held-out ones.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` rows with reasons, ``threshold``, and ``tables``:
        what passes the threshold (``readings``), ``coverage`` against accuracy, and ``choosing`` among samples by
        evidence against taking the first.

    Raises:
        InterpToolkitError: too few titles.
    """
    settings = bench.facts | dict(
        task="abstention",
        adapter=adapter.digest,
        n=len(bench.titles.held[:_MEASURED]),
        calibrated_on=len(bench.titles.dev[:_CALIBRATED]),
        false_positive_rate=_RATE,
        samples=SAMPLES,
        temperature=TEMPERATURE,
    )
    if kept := finished_result(results, settings):
        return kept

    dev = Held.read(bench, adapter, _CALIBRATED, bench.titles.dev)
    held = Held.read(bench, adapter, _MEASURED)
    threshold = calibrate_threshold(evidence_controls(bench.model, adapter, dev.vectors, SEED, True), _RATE, SEED)
    answers = bench.answers(held.titles)
    # Other random directions than those of the calibration.
    found = evidence_controls(bench.model, adapter, held.vectors, SEED + 1, True)
    ranks = description_ranks([[text] for text in found.descriptions], bench.embed, bench.index, answers)[:, 0]
    readings, coverage = [], []
    for k in _WITHIN:
        correct = (ranks <= k).tolist()
        table = reading_table(found, correct, threshold, SEED).to_dict("records")
        readings += [row | dict(right=f"within {k}") for row in table if k == 1 or "accuracy" in row["measure"]]
        coverage += [
            row | dict(right=f"within {k}") for row in coverage_accuracy(found.own, correct).to_dict("records")
        ]
    told = dict(
        settings=settings,
        versions=bench.versions,
        failed=held.failed,
        threshold=asdict(threshold),
        tables=dict(readings=readings, coverage=coverage, choosing=_choosing(bench, adapter, held.vectors, answers)),
    )
    write_result(results, told)
    return told


def _choosing(bench: Bench, adapter: Adapter, vectors: Tensor, answers: Tensor) -> list[dict[str, Any]]:
    """Recall of the sample with the highest evidence beside that of the first sample."""
    sampled = bench.describe(adapter, vectors, SAMPLES)
    ranks = description_ranks(sampled.texts, bench.embed, bench.index, answers)
    first, chosen = ranks[:, 0], best_by_evidence(ranks, sampled.evidence)
    rows = []
    for k in (1, 5, 10, 100):
        one, other = ((found <= k).double().numpy() for found in (first, chosen))
        gain = paired_difference(other, one, seed=SEED)
        rows.append(
            dict(
                measure=f"recall@{k}",
                first=float(one.mean()),
                by_evidence=float(other.mean()),
                gain=gain.value,
                low=gain.low,
                high=gain.high,
                p=gain.p,
                n=len(one),
                seed=SEED,
            )
        )
    return rows
