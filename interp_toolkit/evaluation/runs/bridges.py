"""Measure bridge entities: whether hidden states of two-hop and single-hop questions name what they do not say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges.bridge_entities import name_bridges, untrained_adapter
from interp_toolkit.bridges.decoding import ANY_CELL, BEST_SITE
from interp_toolkit.bridges.twohop import KEPT, SHORTCUT, balanced_sample, read_aliases, read_twohop
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import SEED, Bench
from interp_toolkit.evaluation.runs import bridge_tables as tables
from interp_toolkit.evaluation.runs.bridge_tables import NOTE, TRAINED, UNTRAINED, Found, all_groups
from interp_toolkit.evaluation.runs.questions import (
    RIGHT,
    Grids,
    Group,
    filter_questions,
    make_groups,
)
from interp_toolkit.files import sha256_of
from interp_toolkit.models import model_facts, weights_key
from interp_toolkit.results import finished_result, json_rows, write_result
from interp_toolkit.sites import Site, SiteStack
from interp_toolkit.statistics import proportion_interval

FILES = dict(composed="composed_twohop.jsonl.gz", mquake="mquake_2hop_creme.jsonl.gz")
_LARGER = "composed"
_ALIASES = "wikidata_fb15k_entities.jsonl.gz"


@dataclass(frozen=True)
class Scope:
    """How much is measured: all of it in about half an hour on one core.

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

    candidates: dict[str, int] = field(default_factory=lambda: dict(composed=1600, mquake=200))
    prompts: dict[str, int] = field(default_factory=lambda: {KEPT: 30, RIGHT: 48, SHORTCUT: 12})
    tuned: int = 12
    depths: tuple[float, ...] = (-0.13, 0.0, 0.07)
    positions: int = 6
    samples: int = 2
    alike: int = 32
    scales: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0)

    @classmethod
    def trial(cls, limit: int) -> Scope:
        """A look at whether all of it runs."""
        return cls(
            dict.fromkeys(FILES, limit),
            dict.fromkeys((KEPT, RIGHT, SHORTCUT), limit),
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
        (verdicts of the filter), ``groups`` (how many prompts of each are read, and count), ``scales`` (of the
        untrained direction, on prompts of no other table), ``any cell`` and ``best site`` (see `decode_rates`),
        ``extracted`` (how often the bridge is among the first entities found without a gold list), ``layers`` (what the
        trained adapter names at each layer and token from the end); the same as ``cells`` with intervals, by
        ``from_end`` and by ``from_subject`` (see `layer_position_table`); and ``examples``.

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
        weights=weights_key(bench.model)[:16],
        adapter=adapter.digest,
        data={name: sha256_of(path)[:16] for name, path in paths.items()},
        aliases=len(aliases),
        sites=[str(site) for site in sites],
        scope=asdict(scope),
        seed=SEED,
    )
    if kept := finished_result(results, settings):
        return kept
    grids = Grids(bench, sites, scope.positions, scope.alike)
    filtered, groups, apart = [], [], {}
    for name, rows in data.items():
        asked = balanced_sample(rows, scope.candidates[name], SEED)
        verdicts = filter_questions(bench, asked)
        filtered.append(verdicts.assign(data=name))
        # The scale is chosen, and chat tried, on the larger file alone.
        tuned, chat = (scope.tuned, True) if name == _LARGER else (0, False)
        made, spare = make_groups(name, rows, asked, verdicts, scope.prompts, tuned, chat)
        groups += made
        apart[name] = spare
    deep = [site for site in sites if site >= max(contract.site.sites)]
    scales = _scales(Grids(bench, deep, scope.positions, scope.alike), adapter, apart[_LARGER], scope)
    best = max(scales, key=lambda row: (row["value"], row["share"]))["scale"]
    measured = [(group, _measure(grids, adapter, group, scope, best)) for group in groups]
    verdicts: Any = pd.concat(filtered, ignore_index=True)
    failed = tables.failures(verdicts, measured)
    rates = all_groups(measured, tables.rates)
    cells = all_groups(measured, tables.cells_from_end)
    told = dict(
        settings=settings,
        versions=bench.versions,
        note=NOTE,
        failed=dict(count=len(failed), rows=failed),
        shortcuts=json_rows(verdicts[verdicts["verdict"] == SHORTCUT].drop(columns=["reason", "verdict"])),
        tables=dict(
            hops=tables.hops(verdicts),
            groups=all_groups(measured, tables.sizes),
            scales=scales,
            **{measure: tables.rates_at(measure, rates) for measure in (ANY_CELL, BEST_SITE)},
            extracted=all_groups(measured, tables.extracted),
            layers=tables.side_by_side(cells),
        ),
        cells=dict(from_end=cells, from_subject=all_groups(measured, tables.cells_from_subject)),
        examples=all_groups(measured, tables.examples),
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
        share = float(found.cells["named"].to_numpy(dtype=float).mean())
        rows.append(dict(scale=scale) | interval | dict(share=share, seed=SEED))
    return rows
