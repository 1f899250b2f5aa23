"""One table of what the measurements of trust.py found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

_COLUMNS = ("measurement", "what", "value", "low", "high", "n")
# Groups of prompts in which bridges are hidden, and how the table calls them.
_GROUPS = {
    "composed two-hop kept": "two-hop",
    "composed two-hop chat kept": "two-hop, asked in chat",
    "composed one-hop right": "one-hop",
}
Tables = Mapping[str, list[dict[str, Any]]]
Found = Iterator[tuple[str, dict[str, Any]]]


def trust_table(results: Path) -> pd.DataFrame:
    """What was found, by the files that are there: one row a finding, with a 95% interval and how many rows it is of.

    Raises:
        ValueError: an adapter's results beside another's.
    """
    rows, adapters = [], set()
    for name, read in _READ.items():
        path = results / f"{name}.json"
        if path.exists():
            told = json.loads(path.read_text())
            adapters.add(told["settings"]["adapter"])
            for what, row in read(told["tables"]):
                rows.append(dict(measurement=name, what=what) | {key: row[key] for key in _COLUMNS[2:]})
    if len(adapters) > 1:
        raise ValueError(f"expected results of one adapter in {results}, found those of {', '.join(sorted(adapters))}")
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _controls(tables: Tables) -> Found:
    for row in tables["controls"]:
        if row["scale"] is None or row["best"]:
            scale = f", scale {row['scale']:g}" if row["scale"] is not None else ""
            yield f"{row['control']}{scale}: nats a token that the title costs", row | dict(value=row["loss"])
            named = dict(value=row["named"], low=row["named_low"], high=row["named_high"])
            yield f"{row['control']}{scale}: its title among the first 10", row | named


def _bias(tables: Tables) -> Found:
    for row in tables["bias"]:
        if row["measure"] in ("loss", "recall@10"):
            yield (
                f"share of the gain in {row['measure']} that is the bias's, by {row['way']}",
                row | dict(value=row["share"]),
            )


def _abstention(tables: Tables) -> Found:
    said = {
        "passed, shuffled": "controls called a reading: descriptions of other vectors",
        "passed, random": "controls called a reading: random directions",
        "kept": "descriptions called a reading",
        "accuracy, all": "right among the first 10, all descriptions",
        "accuracy, kept": "right among the first 10, those called a reading",
    }
    rows = {row["measure"]: row for row in tables["readings"]}  # later rows are those of the wider count
    for measure, what in said.items():
        yield what, rows[measure]
    for row in tables["choosing"]:
        if row["measure"] in ("recall@1", "recall@10"):
            yield f"{row['measure']}: the best of six by evidence less the first sample", row | dict(value=row["gain"])


def _bridges(tables: Tables) -> Found:
    whats = ("trained", "trained by chance", "untrained", "trained - untrained")
    for group, said in _GROUPS.items():
        rows = {row["what"]: row for row in tables["any cell"] if row["group"] == group}
        yield from ((f"{said}: bridge named at any place, {what}", rows[what]) for what in whats if what in rows)


def _knowledge(tables: Tables) -> Found:
    said = dict(adapter="by the adapter's description", prompted="by what the model says when asked", gap="the gap")
    for row in tables["knowledge"]:
        if row["measure"] in ("recall@1", "recall@100"):
            yield f"{row['measure']} {said[row['source']]}", row


def _mixtures(tables: Tables) -> Found:
    for row in tables["mixtures"]:
        if row["named"] == "within 10" and (row["share"] in (0.25, 0.5) or row["vector"] != "mixture"):
            where = f"{100 * row['share']:.0f}% of the second" if row["vector"] == "mixture" else row["vector"]
            count = "one description" if row["samples"] == 1 else f"{row['samples']} samples"
            yield f"{where}: the {row['what']} named, {count}", row


def _round_trip(tables: Tables) -> Found:
    said = dict(cosine="cosine with its own vector", shuffled="with another's", null="of no vector's description")
    for row in tables["round_trip"]:
        if row["measure"] in said:
            yield said[row["measure"]], row
    for row in tables["telling"]:
        if row["right"] == "within 10":
            yield f"AUROC of right against wrong by {row['score']}", row


_READ: dict[str, Callable[[Tables], Found]] = dict(
    controls=_controls,
    bias=_bias,
    abstention=_abstention,
    bridges=_bridges,
    knowledge=_knowledge,
    mixtures=_mixtures,
    round_trip=_round_trip,
)
