"""Tables of bridge entities: what was read, how often it names the bridge, where, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp_toolkit.bridges.bridge_entities import BridgeEntities
from interp_toolkit.bridges.decoding import decode_rates, layer_position_table
from interp_toolkit.bridges.entities import extract_entities
from interp_toolkit.bridges.grid import Grid
from interp_toolkit.bridges.names import find_names
from interp_toolkit.bridges.twohop import FAILED, HOPS
from interp_toolkit.evaluation.bench import SEED
from interp_toolkit.evaluation.runs.questions import ONE_HOP, Group
from interp_toolkit.results import json_rows
from interp_toolkit.sites import parse_place
from interp_toolkit.statistics import mean_interval, proportion_interval

TRAINED, UNTRAINED = "trained", "untrained"
# Depths at which bridges are looked up among the entities that were extracted without a gold list.
_WITHIN = (1, 5, 10)
# Examples a group.
_EXAMPLES = 4
# Single-hop prompts are answered by their bridge; what counts there is said in every result.
NOTE = (
    "two-hop: bridges that the prompt or the model's own response names or hints at (as Polish does at Poland) are not "
    "counted; one-hop: the answer is the bridge itself, so the response may name it and the prompt may not; near the "
    "prompt's end a description may then say no more than what the model is about to write"
)

Found = dict[str, BridgeEntities]
"""What `TRAINED` and `UNTRAINED` found in a group."""
Measured = Sequence[tuple[Group, Found]]
"""Groups with what was found in them."""


def all_groups(measured: Measured, table: Callable[[Group, Found], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A table of all groups: that of each, below each other."""
    return [dict(group=group.name) | row for group, found in measured for row in table(group, found)]


def _counted(group: Group, found: BridgeEntities) -> np.ndarray:
    """Which prompts count, see `NOTE`."""
    prompts = found.prompts
    return (~prompts["in_prompt"] if group.task == ONE_HOP else prompts["hidden"]).to_numpy(dtype=bool)


def sizes(group: Group, found: Found) -> list[dict[str, Any]]:
    """How many prompts of a group there are, and count, and how many different bridges these have."""
    prompts: Any = found[TRAINED].prompts
    told = dict(n=len(group.rows), in_prompt=int(prompts["in_prompt"].sum()))
    told |= dict(in_response=int(prompts["in_response"].sum()), counted=int(_counted(group, found[TRAINED]).sum()))
    return [told | dict(bridges=_bridges(group, found[TRAINED]), seed=SEED)]


def _bridges(group: Group, found: BridgeEntities) -> int:
    """How many different bridges count."""
    return len(set(found.prompts["bridge"].to_numpy()[_counted(group, found)]))


def rates(group: Group, found: Found) -> list[dict[str, Any]]:
    """Rates of a group; none where all its prompts have one bridge, which leaves none to compare with."""
    if any(_bridges(group, one) < 2 for one in found.values()):
        return []
    told = decode_rates(found, said=group.task == ONE_HOP, seed=SEED)
    return json_rows(told.drop(columns="clusters"))  # told by `sizes`


def rates_at(measure: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one measure."""
    return [{name: x for name, x in row.items() if name != "measure"} for row in rows if row["measure"] == measure]


def cells_from_end(group: Group, found: Found) -> list[dict[str, Any]]:
    """Layers, and tokens from the prompt's end."""
    return _cells(group, found[TRAINED], "from_end")


def cells_from_subject(group: Group, found: Found) -> list[dict[str, Any]]:
    """Layers, and tokens from the subject's end; none where no subject is known."""
    return _cells(group, found[TRAINED], "from_subject")


def _cells(group: Group, found: BridgeEntities, by: Literal["from_end", "from_subject"]) -> list[dict[str, Any]]:
    own: Any = found.cells[by][_counted(group, found)[found.rows]]
    if own.isna().all():
        return []
    return json_rows(layer_position_table(found, by, said=group.task == ONE_HOP, seed=SEED))


def side_by_side(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Values side by side: a row a layer, a column a position."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        layer = " + ".join(str(site.layer) for site in parse_place(cell["site"]).sites)
        place = dict(group=cell["group"], layer=layer)
        row = rows.setdefault((cell["group"], layer), place | dict(n=0, seed=SEED))
        row["n"] = max(row["n"], cell["n"])
        row[str(cell["position"])] = cell["value"]
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name) for name in names} for row in rows.values()]


def extracted(group: Group, found: Found) -> list[dict[str, Any]]:
    """How often the bridge is among the first entities that are extracted, and strangers are."""
    return _extracted(group, found[TRAINED])


def _extracted(group: Group, found: BridgeEntities) -> list[dict[str, Any]]:
    prompts = found.prompts
    if group.task == ONE_HOP:
        prompts = prompts.assign(response="")  # the answer is what is looked for
    listed = extract_entities(Grid(found.cells, prompts, found.failed))
    names = find_names(found.entities, listed["entity"].tolist())
    counted = _counted(group, found) & found.strangers.any(1)
    bridges = prompts["bridge"].to_numpy()[counted]
    rows = []
    for k in _WITHIN if counted.any() else ():
        first = (listed["rank"] <= k).to_numpy()
        named = np.array([names[first & (listed["prompt"] == i).to_numpy()].any(0) for i in prompts["prompt"]])
        hits = named[np.arange(len(named)), found.own][counted]
        chance = mean_interval(found.chance(named)[counted], bridges, seed=SEED).value
        told = proportion_interval(hits, bridges).to_dict() | dict(chance=chance, seed=SEED)
        rows.append(dict(measure=f"recall@{k}") | told)
    return rows


def examples(_: Group, found: Found) -> list[dict[str, Any]]:
    """For the first prompts the description with most evidence, of those that name the bridge where any does."""
    own = found[TRAINED]
    order: Any = own.cells.sort_values(["prompt", "named", "evidence"], ascending=[True, False, False])
    best = order.groupby("prompt", sort=False).head(1).head(_EXAMPLES)
    shown = ["text", "response", "bridge", "site", "from_end", "token", "description", "evidence", "named"]
    return json_rows(best.merge(own.prompts, on="prompt")[shown])


def hops(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """How many questions of each file have each verdict, and how often each cloze is right."""
    rows = []
    asked: Any = verdicts[verdicts["verdict"] != FAILED]
    for data, own in asked.groupby("data", sort=False):
        told = {name: own["verdict"] == name for name in sorted(set(own["verdict"]))}
        for what, hits in (told | {f"{hop} right": own[hop].astype(bool) for hop in HOPS}).items():
            interval = proportion_interval(hits.tolist(), own["bridge"].tolist()).to_dict()
            rows.append(dict(data=data, what=what, count=int(hits.sum())) | interval | dict(seed=SEED))
    return rows


def failures(verdicts: pd.DataFrame, measured: Measured) -> list[dict[str, Any]]:
    """Rows that could not be measured, each with its reason."""
    rows = [
        dict(data=row["data"], step="filter", text=row["question"], reason=row["reason"])
        for row in verdicts.to_dict("records")
        if row["verdict"] == FAILED
    ]
    for group, found in measured:
        for name, one in found.items():
            rows += [dict(data=group.data, step=name) | row for row in json_rows(one.failed.drop(columns="prompt"))]
    return rows
