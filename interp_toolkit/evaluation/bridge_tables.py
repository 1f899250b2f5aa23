"""Tables of bridge entities: how often descriptions name the bridge, at which places, and which prompts failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp_toolkit.bridges.decoding import decode_rates, layer_position_table
from interp_toolkit.bridges.entities import extract_entities
from interp_toolkit.bridges.grid import Grid
from interp_toolkit.bridges.names import find_names
from interp_toolkit.bridges.naming import BridgeEntities
from interp_toolkit.bridges.twohop import FAILED, HOPS
from interp_toolkit.evaluation.bridge_questions import ONE_HOP, Group
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.results import json_rows
from interp_toolkit.sites import parse_place
from interp_toolkit.statistics import mean_interval, proportion_interval

TRAINED, UNTRAINED = "trained", "untrained"
# Depths at which bridges are looked up among the entities that were extracted without a gold list.
_WITHIN = (1, 5, 10)
# Examples per group.
_EXAMPLES = 4
# Single-hop prompts are answered by their bridge; every result says what counts there.
NOTE = (
    "two-hop: bridges that the prompt or the model's own response names or hints at (as Polish does at Poland) are not "
    "counted; one-hop: the answer is the bridge itself, so the response may name it and the prompt may not; near the "
    "prompt's end a description may then say no more than what the model is about to write"
)

ByAdapter = dict[str, BridgeEntities]
"""A group's descriptions by `TRAINED` and by `UNTRAINED`."""
Measured = Sequence[tuple[Group, ByAdapter]]
"""Groups with their descriptions."""


def all_groups(measured: Measured, table: Callable[[Group, ByAdapter], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Put the tables of all groups below each other."""
    return [dict(group=group.name) | row for group, results in measured for row in table(group, results)]


def _counted(group: Group, result: BridgeEntities) -> np.ndarray:
    """Which prompts count, see `NOTE`."""
    prompts = result.prompts
    return (~prompts["in_prompt"] if group.task == ONE_HOP else prompts["hidden"]).to_numpy(dtype=bool)


def sizes(group: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """How many prompts of a group there are, and count, and how many different bridges these have."""
    result = results[TRAINED]
    prompts: Any = result.prompts
    return [
        dict(
            n=len(group.rows),
            in_prompt=int(prompts["in_prompt"].sum()),
            in_response=int(prompts["in_response"].sum()),
            counted=int(_counted(group, result).sum()),
            bridges=_bridges(group, result),
            seed=SEED,
        )
    ]


def _bridges(group: Group, result: BridgeEntities) -> int:
    """How many different bridges count."""
    return len(set(result.prompts["bridge"].to_numpy()[_counted(group, result)]))


def rates(group: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """Rates of a group; none where all its prompts have one bridge, which leaves none to compare with."""
    if any(_bridges(group, result) < 2 for result in results.values()):
        return []
    table = decode_rates(results, count_answered=group.task == ONE_HOP, seed=SEED)
    return json_rows(table.drop(columns="clusters"))  # `sizes` has them


def rates_at(measure: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one measure."""
    return [{name: x for name, x in row.items() if name != "measure"} for row in rows if row["measure"] == measure]


def cells_from_end(group: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """Layers, and tokens from the prompt's end."""
    return _cells(group, results[TRAINED], "from_end")


def cells_from_subject(group: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """Layers, and tokens from the subject's end; none where no subject is known."""
    return _cells(group, results[TRAINED], "from_subject")


def _cells(group: Group, result: BridgeEntities, by: Literal["from_end", "from_subject"]) -> list[dict[str, Any]]:
    positions: Any = result.cells[by][_counted(group, result)[result.rows]]
    if positions.isna().all():
        return []
    return json_rows(layer_position_table(result, by, count_answered=group.task == ONE_HOP, seed=SEED))


def side_by_side(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Values side by side: one row per layer, one column per position."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        layer = " + ".join(str(site.layer) for site in parse_place(cell["site"]).sites)
        place = dict(group=cell["group"], layer=layer)
        row = rows.setdefault((cell["group"], layer), place | dict(n=0, seed=SEED))
        row["n"] = max(row["n"], cell["n"])
        row[str(cell["position"])] = cell["value"]
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name) for name in names} for row in rows.values()]


def extracted(group: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """How often the bridge is among the first extracted entities, and how often the bridges of other prompts are."""
    result = results[TRAINED]
    prompts = result.prompts
    if group.task == ONE_HOP:
        prompts = prompts.assign(response="")  # the answer is what is looked for
    listed = extract_entities(Grid(result.cells, prompts, result.failed))
    names = find_names(result.entities, listed["entity"].tolist())
    counted = _counted(group, result) & result.strangers.any(1)
    bridges = prompts["bridge"].to_numpy()[counted]
    rows = []
    for k in _WITHIN if counted.any() else ():
        first = (listed["rank"] <= k).to_numpy()
        named = np.array([names[first & (listed["prompt"] == i).to_numpy()].any(0) for i in prompts["prompt"]])
        hits = named[np.arange(len(named)), result.bridge_index][counted]
        chance = mean_interval(result.chance(named)[counted], bridges, seed=SEED).value
        rate = proportion_interval(hits, bridges).to_dict()
        rows.append(dict(measure=f"recall@{k}") | rate | dict(chance=chance, seed=SEED))
    return rows


def examples(_: Group, results: ByAdapter) -> list[dict[str, Any]]:
    """For the first prompts the description with most evidence, of those that name the bridge where any does."""
    result = results[TRAINED]
    order: Any = result.cells.sort_values(["prompt", "named", "evidence"], ascending=[True, False, False])
    best = order.groupby("prompt", sort=False).head(1).head(_EXAMPLES)
    shown = ["text", "response", "bridge", "site", "from_end", "token", "description", "evidence", "named"]
    return json_rows(best.merge(result.prompts, on="prompt")[shown])


def hops(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """How many questions of each file have each verdict, and how often each cloze is right."""
    rows = []
    measured: Any = verdicts[verdicts["verdict"] != FAILED]
    for data, table in measured.groupby("data", sort=False):
        hits_by_what = {name: table["verdict"] == name for name in sorted(set(table["verdict"]))}
        hits_by_what |= {f"{hop} right": table[hop].astype(bool) for hop in HOPS}
        for what, hits in hits_by_what.items():
            interval = proportion_interval(hits.tolist(), table["bridge"].tolist()).to_dict()
            rows.append(dict(data=data, what=what, count=int(hits.sum())) | interval | dict(seed=SEED))
    return rows


def failures(verdicts: pd.DataFrame, measured: Measured) -> list[dict[str, Any]]:
    """Rows that could not be measured, each with its reason."""
    rows = [
        dict(data=row["data"], step="filter", text=row["question"], reason=row["reason"])
        for row in verdicts.to_dict("records")
        if row["verdict"] == FAILED
    ]
    for group, results in measured:
        for name, result in results.items():
            rows += [dict(data=group.data, step=name) | row for row in json_rows(result.failed.drop(columns="prompt"))]
    return rows
