"""Measure bridge entities: whether hidden states of two-hop and single-hop questions name what they do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import SEED, Bench, kept_result, write_result
from interp_toolkit.evaluation.bridges import (
    CHANCE,
    RATE,
    BridgeEntities,
    decode_rates,
    layer_position_table,
    name_bridges,
    untrained_adapter,
)
from interp_toolkit.evaluation.entities import extract_entities
from interp_toolkit.evaluation.grid import Grid
from interp_toolkit.evaluation.names import find_names
from interp_toolkit.evaluation.runs.losses import records
from interp_toolkit.evaluation.runs.questions import (
    ONE_HOP,
    RIGHT,
    WRONG,
    Grids,
    Group,
    filter_questions,
    make_groups,
)
from interp_toolkit.evaluation.statistics import mean_interval, proportion_interval
from interp_toolkit.evaluation.twohop import FAILED, HOPS, KEPT, SHORTCUT, balanced_sample, read_aliases, read_twohop
from interp_toolkit.files import sha256_of
from interp_toolkit.models import model_facts
from interp_toolkit.sites import Site, SiteStack

FILES = dict(composed="composed_twohop.jsonl.gz", mquake="mquake_2hop_creme.jsonl.gz")
_ALIASES = "wikidata_fb15k_entities.jsonl.gz"
TRAINED, UNTRAINED = "trained", "untrained"
# Depths at which bridges are looked up among the entities that were extracted without a gold list.
_WITHIN = (1, 5, 10)
# Examples a group.
_EXAMPLES = 4
# Single-hop prompts are answered by their bridge; what counts there is said in every result.
NOTE = (
    "two-hop: bridges that the prompt or the model's own response names are not counted; one-hop: the answer is the "
    "bridge itself, so the response may name it and the prompt may not"
)

Found = dict[str, BridgeEntities]
"""What `TRAINED` and `UNTRAINED` found in a group."""


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    Attributes:
        candidates: questions of each file that are filtered.
        prompts: most of a group, by `Group.known`.
        tuned: prompts on which the scale of the untrained direction is chosen.
        depths: sites that a single-site adapter reads, as shares of the model's layers from its own.
        positions: the last tokens of a prompt that are read.
        samples: descriptions of a token at a site.
        alike: prompts that a mean is taken over, see `Grids`.
        scales: of the untrained direction.
    """

    candidates: dict[str, int] = field(default_factory=lambda: dict(composed=1200, mquake=500))
    prompts: dict[str, int] = field(default_factory=lambda: {KEPT: 60, RIGHT: 60, SHORTCUT: 30, WRONG: 30})
    tuned: int = 24
    depths: tuple[float, ...] = (-0.4, -0.13, 0.0, 0.07, 0.13)
    positions: int = 8
    samples: int = 2
    alike: int = 32
    scales: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)

    @classmethod
    def trial(cls, limit: int) -> Scope:
        """A look at whether all of it runs."""
        return cls(
            dict.fromkeys(FILES, limit),
            dict.fromkeys((KEPT, RIGHT, SHORTCUT, WRONG), limit),
            tuned=limit,
            depths=(0.0, 0.07),
            positions=2,
            samples=1,
            alike=4,
            scales=(2.0, 5.0),
        )


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Filter two-hop questions, and decode the bridges of those that the model answers, and of single hops.

    Args:
        bench: with the model and the folder of the data, in which the questions are ``twohop/*.jsonl.gz``.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``note`` (what counts), ``failed`` (``count`` and ``rows`` with
        reasons), ``shortcuts`` (questions that are answered right without the first hop), ``tables``: ``hops``
        (verdicts of the filter), ``scales`` (of the untrained direction, on prompts of no other table), ``rates`` and
        ``compared`` (see `decode_rates`), ``extracted`` (how often the bridge is among the first entities found without
        a gold list), ``layers`` (what the trained adapter names at each layer and token from the end); the same as
        ``cells`` with intervals, by ``from_end`` and by ``from_subject`` (see `layer_position_table`); and
        ``examples``.

    Raises:
        FileFormatError: the data is not there.
        InterpToolkitError: an adapter without a site.
    """
    contract = adapter.contract
    if contract is None or contract.site is None:
        raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
    scope = Scope() if bench.limit is None else Scope.trial(bench.limit)
    paths = {name: bench.data / "twohop" / file for name, file in FILES.items()}
    # Not all files come with further names of their entities.
    known = bench.data / "topics" / _ALIASES
    aliases = read_aliases(known) if known.exists() else {}
    data = {name: read_twohop(path, aliases if name == "mquake" else None) for name, path in paths.items()}
    facts = model_facts(bench.model)
    sites = _sites(contract, scope, facts.n_layers)
    settings = dict(
        task="bridges",
        model=facts.model_id,
        revision=facts.revision,
        dtype=str(next(bench.model.parameters()).dtype),
        adapter=adapter.digest,
        data={name: sha256_of(path)[:16] for name, path in paths.items()},
        aliases=len(aliases),
        sites=[str(site) for site in sites],
        scope=asdict(scope),
        seed=SEED,
    )
    if kept := kept_result(results, settings):
        return kept
    grids = Grids(bench, sites, scope.positions, scope.alike)
    filtered, groups, apart = [], [], []
    for name, rows in data.items():
        asked = balanced_sample(rows, scope.candidates[name], SEED)
        verdicts = filter_questions(bench, asked)
        filtered.append(verdicts.assign(data=name))
        made, spare = make_groups(name, rows, asked, verdicts, scope.prompts, scope.tuned, chat=name == "composed")
        groups += made
        apart.append(spare)
    deep = [site for site in sites if site >= max(contract.site.sites)]
    scales = _scales(Grids(bench, deep, scope.positions, scope.alike), adapter, apart[0], scope)
    best = max(scales, key=lambda row: (row["value"], row["share"]))["scale"]
    measured = [(group, _measure(grids, adapter, group, scope, best)) for group in groups]
    verdicts: Any = pd.concat(filtered, ignore_index=True)
    failed = _failed(verdicts, measured)
    rates = [group.labels | row for group, found in measured for row in _rates(group, found)]
    cells = {
        by: [group.labels | row for group, found in measured for row in _cells(group, found, by)]
        for by in ("from_end", "from_subject")
    }
    told = dict(
        settings=settings,
        versions=bench.versions,
        note=NOTE,
        failed=dict(count=len(failed), rows=failed),
        shortcuts=records(verdicts[verdicts["verdict"] == SHORTCUT].drop(columns=["reason", "verdict"])),
        tables=dict(
            hops=_hops(verdicts),
            scales=scales,
            rates=[row for row in rates if row["what"] in (RATE, CHANCE)],
            compared=[row for row in rates if row["what"] not in (RATE, CHANCE)],
            extracted=[group.labels | row for group, found in measured for row in _extracted(group, found[TRAINED])],
            layers=_layers(cells["from_end"]),
        ),
        cells=cells,
        examples=[group.labels | row for group, found in measured for row in _examples(found[TRAINED])],
    )
    write_result(results, told)
    return told


def _sites(contract: Contract, scope: Scope, layers: int) -> list[Site]:
    """The single sites that are read: those of a stack, or of layers around the adapter's own."""
    own = contract.site
    assert own is not None
    if isinstance(own, SiteStack):
        return list(own.sites)
    near = [Site(min(max(own.layer + round(depth * layers), 0), layers - 1), own.stream) for depth in scope.depths]
    return list(dict.fromkeys(near))


def _measure(grids: Grids, adapter: Adapter, group: Group, scope: Scope, scale: float) -> Found:
    """A group by the trained adapter and by the untrained direction, with as many descriptions a token."""
    together = len(grids.sites) if adapter.config.sites > 1 else 1
    asked = {
        TRAINED: (adapter, scope.samples * together),
        UNTRAINED: (untrained_adapter(adapter, scale), scope.samples),
    }
    bridges = [row.bridge for row in group.rows]
    return {name: name_bridges(grids.describe(one, group, samples), bridges) for name, (one, samples) in asked.items()}


def _scales(grids: Grids, adapter: Adapter, group: Group, scope: Scope) -> list[dict[str, Any]]:
    """What the untrained direction names at each scale."""
    bridges = [row.bridge for row in group.rows]
    rows = []
    for scale in scope.scales:
        made = untrained_adapter(adapter, scale)
        found = name_bridges(grids.describe(made, group, scope.samples), bridges)
        interval = proportion_interval(found.prompts["hit"].tolist(), found.prompts["bridge"].tolist()).to_dict()
        rows.append(dict(scale=scale) | interval | dict(share=float(found.shares()[0].mean()), seed=SEED))
    return rows


def _rates(group: Group, found: Found) -> list[dict[str, Any]]:
    try:
        return records(decode_rates(found, said=group.task == ONE_HOP, seed=SEED))
    except InterpToolkitError:
        return []  # hidden bridges of fewer than two names


def _cells(group: Group, found: Found, by: Literal["from_end", "from_subject"]) -> list[dict[str, Any]]:
    try:
        return records(layer_position_table(found[TRAINED], by, said=group.task == ONE_HOP, seed=SEED))
    except InterpToolkitError:
        return []  # no hidden bridge, or no subjects


def _layers(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Values side by side: a row a layer, a column a position."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell in cells:
        place = {name: cell[name] for name in ("data", "task", "reading", "known", "site")}
        row = rows.setdefault(tuple(place.values()), place | dict(n=0, seed=SEED))
        row["n"] = max(row["n"], cell["n"])
        row[str(cell["position"])] = cell["value"]
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name) for name in names} for row in rows.values()]


def _extracted(group: Group, found: BridgeEntities) -> list[dict[str, Any]]:
    """How often the bridge is among the first entities that are extracted, and strangers are."""
    prompts = found.prompts
    if group.task == ONE_HOP:
        prompts = prompts.assign(response="")  # the answer is what is looked for
    listed = extract_entities(Grid(found.cells, prompts, found.failed))
    names = find_names(found.entities, listed["entity"].tolist())
    counted = ~prompts["in_prompt"] if group.task == ONE_HOP else prompts["hidden"]
    counted = counted.to_numpy(dtype=bool) & found.strangers.any(1)
    rows = []
    for k in _WITHIN if counted.any() else ():
        first = (listed["rank"] <= k).to_numpy()
        named = np.array([names[first & (listed["prompt"] == i).to_numpy()].any(0) for i in prompts["prompt"]])
        hits = named[np.arange(len(named)), found.own][counted]
        strangers = found.strangers[counted]
        chance = (named[counted] & strangers).sum(1) / strangers.sum(1)
        bridges = prompts["bridge"].to_numpy()[counted]
        interval = proportion_interval(hits, bridges).to_dict()
        told = dict(chance=mean_interval(chance, bridges, seed=SEED).value, seed=SEED)
        rows.append(dict(measure=f"recall@{k}") | interval | told)
    return rows


def _examples(found: BridgeEntities) -> list[dict[str, Any]]:
    """For the first prompts the description with most evidence, of those that name the bridge where any does."""
    order: Any = found.cells.sort_values(["prompt", "named", "evidence"], ascending=[True, False, False])
    best = order.groupby("prompt", sort=False).head(1).head(_EXAMPLES)
    shown = ["text", "response", "bridge", "site", "from_end", "token", "description", "evidence", "named"]
    return records(best.merge(found.prompts, on="prompt")[shown])


def _hops(verdicts: pd.DataFrame) -> list[dict[str, Any]]:
    """How many questions of each file have each verdict, and how often each cloze is right."""
    rows = []
    asked: Any = verdicts[verdicts["verdict"] != FAILED]
    for data, own in asked.groupby("data", sort=False):
        told = {name: own["verdict"] == name for name in sorted(set(own["verdict"]))}
        for what, hits in (told | {f"{hop} right": own[hop].astype(bool) for hop in HOPS}).items():
            interval = proportion_interval(hits.tolist(), own["bridge"].tolist()).to_dict()
            rows.append(dict(data=data, what=what, count=int(hits.sum())) | interval | dict(seed=SEED))
    return rows


def _failed(verdicts: pd.DataFrame, measured: Sequence[tuple[Group, Found]]) -> list[dict[str, Any]]:
    """Rows that could not be measured, each with its reason."""
    rows = [
        dict(data=row["data"], step="filter", text=row["question"], reason=row["reason"])
        for row in verdicts.to_dict("records")
        if row["verdict"] == FAILED
    ]
    for group, found in measured:
        for name, one in found.items():
            rows += [dict(data=group.data, step=name) | row for row in records(one.failed.drop(columns="prompt"))]
    return rows
