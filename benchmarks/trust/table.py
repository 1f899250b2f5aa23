"""One table of the results of the measurements of trust."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.results import read_result

_NUMBERS = ("value", "low", "high", "n")
# Groups of prompts in which bridges are hidden, and what the table calls them.
_GROUPS = {
    "composed two-hop kept": "two-hop",
    "composed two-hop chat kept": "two-hop, asked in chat",
    "composed one-hop right": "one-hop",
}
_READINGS = {
    "passed, shuffled": "controls above the threshold: descriptions of other vectors",
    "passed, random": "controls above the threshold: random directions",
    "kept": "descriptions above the threshold",
    "accuracy, all": "right among the first 10, all descriptions",
    "accuracy, kept": "right among the first 10, of those above the threshold",
}
_SOURCES = dict(adapter="by the adapter's description", prompted="by what the model says when asked", gap="the gap")
_COSINES = dict(cosine="cosine with its own vector", shuffled="with another's", null="of no vector's description")
Tables = Mapping[str, list[dict[str, Any]]]
Rows = Iterator[tuple[str, dict[str, Any]]]


def trust_table(results: Path) -> pd.DataFrame:
    """The main numbers of each results file in a folder, with 95% intervals and the number of rows behind them.

    Returns:
        columns ``measurement``, ``what``, ``value``, ``low``, ``high``, ``n``.

    Raises:
        InterpToolkitError: results of several adapters.
    """
    rows, adapters = [], set()
    for name, read in _READERS.items():
        path = results / f"{name}.json"
        if path.exists():
            result = read_result(path)
            adapters.add(result["settings"]["adapter"])
            for what, row in read(result["tables"]):
                rows.append(dict(measurement=name, what=what) | {key: row[key] for key in _NUMBERS})
    if len(adapters) > 1:
        listed = ", ".join(sorted(adapters))
        raise InterpToolkitError(f"expected results of one adapter in {results}, got those of {listed}")
    return pd.DataFrame(rows, columns=["measurement", "what", *_NUMBERS])


def _controls(tables: Tables) -> Rows:
    for row in tables["controls"]:
        if row["scale"] is None or row["best"]:
            scale = f", scale {row['scale']:g}" if row["scale"] is not None else ""
            yield f"{row['control']}{scale}: nats per token that the title costs", row | dict(value=row["loss"])
            named = dict(value=row["named"], low=row["named_low"], high=row["named_high"])
            yield f"{row['control']}{scale}: its title among the first 10", row | named


def _bias(tables: Tables) -> Rows:
    for row in tables["bias"]:
        if row["measure"] in ("loss", "recall@10"):
            what = f"share of the gain in {row['measure']} that is the bias's, by {row['way']}"
            yield what, row | dict(value=row["share"])


def _selective_prediction(tables: Tables) -> Rows:
    rows = {row["measure"]: row for row in tables["readings"]}  # later rows are those of the wider count
    yield from ((what, rows[measure]) for measure, what in _READINGS.items())
    for row in tables["choosing"]:
        if row["measure"] in ("recall@1", "recall@10"):
            yield f"{row['measure']}: the best of six by evidence less the first sample", row | dict(value=row["gain"])


def _bridges(tables: Tables) -> Rows:
    for group, name in _GROUPS.items():
        rows = {row["what"]: row for row in tables["any cell"] if row["group"] == group}
        for what in ("trained", "trained by chance", "untrained", "trained - untrained"):
            if what in rows:
                yield f"{name}: bridge named at any place, {what}", rows[what]


def _prompted_baseline(tables: Tables) -> Rows:
    for row in tables["knowledge"]:
        if row["measure"] in ("recall@1", "recall@100"):
            yield f"{row['measure']} {_SOURCES[row['source']]}", row


def _mixtures(tables: Tables) -> Rows:
    for row in tables["mixtures"]:
        if row["named"] == "within 10" and (row["share"] in (0.25, 0.5) or row["vector"] != "mixture"):
            vector = f"{100 * row['share']:.0f}% of the second" if row["vector"] == "mixture" else row["vector"]
            count = "one description" if row["samples"] == 1 else f"{row['samples']} samples"
            yield f"{vector}: the {row['what']} named, {count}", row


def _reconstruction(tables: Tables) -> Rows:
    for row in tables["round_trip"]:
        if row["measure"] in _COSINES:
            yield _COSINES[row["measure"]], row
    for row in tables["telling"]:
        if row["right"] == "within 10":
            yield f"AUROC of right against wrong by {row['score']}", row


def _privileged(tables: Tables) -> Rows:
    for row in tables["explainers"]:
        if row["within"] == 10:
            yield f"title among the first 10 by: {row['explainer']}", row
    for row in tables["tail"]:
        if row["within"] == 10:
            yield f"behind a tail that all prompts share, title of: {row['what']}", row


_READERS: dict[str, Callable[[Tables], Rows]] = dict(
    controls=_controls,
    bias=_bias,
    selective_prediction=_selective_prediction,
    bridges=_bridges,
    prompted_baseline=_prompted_baseline,
    mixtures=_mixtures,
    privileged=_privileged,
    reconstruction=_reconstruction,
)
