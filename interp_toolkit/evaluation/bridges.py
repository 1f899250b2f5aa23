"""Bridge entities: whether hidden states of two-hop and single-hop questions name what the question only implies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from interp_toolkit.adapters import Adapter, untrained_adapter
from interp_toolkit.bridges.decoding import ANY_CELL, BEST_SITE
from interp_toolkit.bridges.naming import name_bridges
from interp_toolkit.bridges.twohop import KEPT, SHORTCUT, TwoHop, balanced_sample, read_aliases, read_twohop
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation import bridge_tables as tables
from interp_toolkit.evaluation.bridge_questions import RIGHT, Grids, Group, filter_questions, make_groups
from interp_toolkit.evaluation.bridge_tables import NOTE, TRAINED, UNTRAINED, ByAdapter, all_groups
from interp_toolkit.evaluation.context import SEED, EvalContext, QuestionFile
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.files import sha256_of
from interp_toolkit.models import model_facts
from interp_toolkit.results import json_rows
from interp_toolkit.sites import Place, Site, SiteStack
from interp_toolkit.statistics import proportion_interval


@dataclass(frozen=True)
class Scope:
    """How much is measured: all of it in an hour on one core.

    Attributes:
        candidates: questions of each file that are filtered, by its name.
        prompts: limits of a group, by `Group.known`.
        tuned: prompts on which the scale of the untrained direction is chosen.
        depths: sites that a single-site adapter reads, as shares of the model's layers from the adapter's.
        positions: the last tokens of a prompt that are read.
        samples: descriptions per token and site.
        alike: prompts that a mean is taken over, see `Grids`.
        scales: of the untrained direction.
    """

    candidates: dict[str, int]
    prompts: dict[str, int] = field(default_factory=lambda: {KEPT: 120, RIGHT: 48, SHORTCUT: 12})
    tuned: int = 12
    depths: tuple[float, ...] = (-0.13, 0.0, 0.07)
    positions: int = 6
    samples: int = 2
    alike: int = 32
    scales: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0)

    @classmethod
    def from_context(cls, context: EvalContext) -> Scope:
        """All of it, or with a limit a trial that shows whether all of it runs."""
        files, limit = context.questions, context.limit
        if limit is None:
            return cls({file.name: file.candidates for file in files})
        return cls(
            {file.name: limit for file in files},
            dict.fromkeys((KEPT, RIGHT, SHORTCUT), limit),
            tuned=limit,
            depths=(0.0, 0.07),
            positions=2,
            samples=1,
            alike=4,
            scales=(2.0, 5.0),
        )


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    place, scope = adapter.require_contract().require_site(), Scope.from_context(context)
    questions = _read_questions(context)
    return context.model_settings | dict(
        task="bridges",
        adapter=adapter.digest,
        data={file.name: sha256_of(file.path)[:16] for file in questions},
        aliases=sum(len(_aliases(file)) for file in questions),
        sites=[str(site) for site in _sites(context, place, scope)],
        scope=asdict(scope),
        seed=SEED,
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Filter two-hop questions, and decode the bridges of those that the model answers, and of single hops.

    Returns:
        ``note`` (which prompts count); ``failed`` rows; ``shortcuts`` (questions that are answered right without the
        first hop); ``tables``: ``hops`` (verdicts of the filter), ``groups`` (how many prompts of each are read, and
        count), ``scales`` (of the untrained direction, on prompts of no other table), ``any cell`` and ``best site``
        (see `decode_rates`), ``extracted`` (how often the bridge is among the first entities extracted without a gold
        list), ``layers`` (what the trained adapter names at each layer and token from the end); the same as ``cells``
        with intervals, by ``from_end`` and by ``from_subject`` (see `layer_position_table`); and ``examples``.
    """
    scope, place = Scope.from_context(context), adapter.require_contract().require_site()
    sites = _sites(context, place, scope)
    grids = Grids(context, sites, scope.positions, scope.alike)
    filtered, groups, separate = [], [], None
    for file, rows in _read_questions(context).items():
        candidates = balanced_sample(rows, scope.candidates[file.name], SEED)
        verdicts = filter_questions(context, candidates)
        filtered.append(verdicts.assign(data=file.name))
        tuned = scope.tuned if file.tuned else 0
        file_groups, spare = make_groups(file.name, rows, candidates, verdicts, scope.prompts, tuned, file.tuned)
        groups += file_groups
        separate = spare if file.tuned else separate
    assert separate is not None
    deep = [site for site in sites if site >= max(place.sites)]
    scales = _scales(Grids(context, deep, scope.positions, scope.alike), adapter, separate, scope)
    best = max(scales, key=lambda row: (row["value"], row["share"]))["scale"]
    measured = [(group, _describe(grids, adapter, group, scope, best)) for group in groups]
    verdicts: Any = pd.concat(filtered, ignore_index=True)
    rates = all_groups(measured, tables.rates)
    cells = all_groups(measured, tables.cells_from_end)
    return dict(
        note=NOTE,
        failed=tables.failures(verdicts, measured),
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


def _read_questions(context: EvalContext) -> dict[QuestionFile, list[TwoHop]]:
    """The questions of each file.

    Raises:
        InterpToolkitError: not exactly one file on which settings are chosen.
        FileFormatError: a file is missing or damaged.
    """
    if sum(file.tuned for file in context.questions) != 1:
        raise InterpToolkitError(
            f"expected files of two-hop questions, one of them with tuned=True, got {len(context.questions)} files, "
            f"{sum(file.tuned for file in context.questions)} of them with it; see EvalContext(questions=...)"
        )
    return {file: read_twohop(file.path, _aliases(file)) for file in context.questions}


def _aliases(file: QuestionFile) -> dict[str, tuple[str, ...]]:
    return read_aliases(file.aliases) if file.aliases is not None and file.aliases.exists() else {}


def _sites(context: EvalContext, place: Place, scope: Scope) -> list[Site]:
    """The single sites that are read: those of a stack, or of layers around the adapter's site."""
    if isinstance(place, SiteStack):
        return list(place.sites)
    layers = model_facts(context.model).n_layers
    near = [Site(min(max(place.layer + round(depth * layers), 0), layers - 1), place.hook) for depth in scope.depths]
    return list(dict.fromkeys(near))


def _describe(grids: Grids, adapter: Adapter, group: Group, scope: Scope, scale: float) -> ByAdapter:
    """Describe a group by the trained adapter and by the untrained direction, with as many descriptions per token."""
    together = len(grids.sites) if adapter.config.sites > 1 else 1
    described = {
        TRAINED: (adapter, scope.samples * together),
        UNTRAINED: (untrained_adapter(adapter, scale), scope.samples),
    }
    bridges = [row.bridge for row in group.rows]
    return {
        name: name_bridges(grids.describe(by, group, samples), bridges) for name, (by, samples) in described.items()
    }


def _scales(grids: Grids, adapter: Adapter, group: Group, scope: Scope) -> list[dict[str, Any]]:
    """How often the untrained direction names the bridge at each scale."""
    bridges = [row.bridge for row in group.rows]
    rows = []
    for scale in scope.scales:
        grid = grids.describe(untrained_adapter(adapter, scale), group, scope.samples)
        result = name_bridges(grid, bridges)
        interval = proportion_interval(result.prompts["hit"].tolist(), result.prompts["bridge"].tolist()).to_dict()
        share = float(result.cells["named"].to_numpy(dtype=float).mean())
        rows.append(dict(scale=scale) | interval | dict(share=share, seed=SEED))
    return rows


EVALUATION = Evaluation(_settings, _measure)
