"""Bridge entities: whether descriptions of a question's hidden states name what it makes the model think of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.conditions import contract_of
from interp_toolkit.evaluation.grid import Grid, Means, Where, describe_grid
from interp_toolkit.evaluation.names import Entity, find_names
from interp_toolkit.evaluation.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    proportion_interval,
    ratio_interval,
)
from interp_toolkit.sites import SiteLike, SiteStack

ANY_CELL, BEST_SITE, BEST_CELL, DESCRIPTION = "any cell", "best site", "best cell", "a description"
RATE, CHANCE = "rate", "chance"


@dataclass(frozen=True, eq=False)
class BridgeEntities:
    """A grid of descriptions, and where it names each prompt's bridge.

    Attributes:
        cells: as `Grid.cells`, with ``named``: whether the description names the bridge.
        prompts: one row a prompt: ``prompt``, ``text``, ``response``, ``bridge``, ``kind``, ``in_prompt``,
            ``in_response`` (whether they name the bridge), ``hidden`` (neither does), ``hit`` (whether any cell names
            it).
        failed: ``prompt``, ``text``, ``reason``.
        bridges: of ``prompts``, row by row.
    """

    cells: pd.DataFrame
    prompts: pd.DataFrame
    failed: pd.DataFrame
    bridges: tuple[Entity, ...]

    @cached_property
    def entities(self) -> list[Entity]:
        """The different bridges, one a name and kind."""
        return list({(bridge.name, bridge.kind): bridge for bridge in self.bridges}.values())

    @cached_property
    def names(self) -> np.ndarray:
        """Which descriptions name which of `entities`, [cells, entities]."""
        return find_names(self.entities, self.cells["description"].tolist())

    @cached_property
    def rows(self) -> np.ndarray:
        """For each cell the row of its prompt in ``prompts``."""
        number = {prompt: i for i, prompt in enumerate(self.prompts["prompt"])}
        return np.array([number[prompt] for prompt in self.cells["prompt"]], dtype=int)

    @cached_property
    def own(self) -> np.ndarray:
        """For each prompt the number of its bridge among `entities`."""
        number = {(entity.name, entity.kind): i for i, entity in enumerate(self.entities)}
        return np.array([number[bridge.name, bridge.kind] for bridge in self.bridges], dtype=int)

    @cached_property
    def strangers(self) -> np.ndarray:
        """For each prompt which of `entities` may be named by chance alone, [prompts, entities].

        Those of its bridge's kind, without the bridge itself under whatever name, and without what the prompt or the
        response names.
        """
        said = (self.prompts["text"] + "\n" + self.prompts["response"]).tolist()
        kinds = np.array([entity.kind for entity in self.entities])
        names = [entity.name for entity in self.entities]
        same = find_names(self.entities, names)
        same = same | same.T
        return (kinds[self.own][:, None] == kinds) & ~same[self.own] & ~find_names(self.entities, said)

    def hits(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each prompt whether any of some cells names its bridge, and the share of strangers that they name.

        Args:
            cells: truths, which cells count.

        Returns:
            float64 [prompts] each; the second NaN where a prompt has no strangers.
        """
        found = np.zeros((len(self.prompts), len(self.entities)), dtype=bool)
        np.logical_or.at(found, self.rows[cells], self.names[cells])
        return self._of(found.astype(float))

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """For each prompt the share of its descriptions that name its bridge, and that name a stranger on average."""
        found = np.zeros((len(self.prompts), len(self.entities)))
        np.add.at(found, self.rows, self.names)
        return self._of(found / np.bincount(self.rows, minlength=len(found))[:, None])

    def _of(self, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = self.strangers.sum(1)
        with np.errstate(invalid="ignore"):
            chance = (found * self.strangers).sum(1) / count
        return found[np.arange(len(found)), self.own], chance


def find_bridge_entities(
    model: Any,
    prompts: Sequence[str],
    bridges: Sequence[Entity],
    adapter: Adapter,
    *,
    sites: SiteLike | Sequence[SiteLike] | SiteStack | None = None,
    positions: Where = "content",
    samples: int = 2,
    seed: int = 0,
    chat: bool = False,
    means: Means | Sequence[Means] | None = None,
    responses: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    progress: bool = False,
) -> BridgeEntities:
    """Read each prompt's residual stream at every asked layer and token, and look for its bridge in the descriptions.

    In "The currency of the country whose capital is Warsaw is the" the bridge is Poland (arXiv 2602.10352, bridge
    entities). A bridge that the prompt or the model's own response names is not hidden, and counts in no rate. A bridge
    that is decoded is there to be read; whether the model uses it is another question.

    Args:
        model: the hooked model.
        prompts: texts, two-hop questions or others that have something in mind.
        bridges: one a prompt; those of one kind are each other's chance level.
        adapter: with its contract; see `untrained_adapter` for one to compare with.
        sites: see `describe_grid`, as all that follows.
        positions: which tokens; by default the prompts' own.
        samples: descriptions a cell.
        seed: of the sampling.
        chat: whether prompts go through the chat template.
        means: what to take off at each site, see `site_means`.
        responses: how the model goes on behind each prompt; by default it is asked.
        subjects: for each prompt what its first hop starts from, to count positions from.
        progress: whether to show bars.

    Raises:
        ContractError: an adapter for another model.
        InterpToolkitError: as `describe_grid`, or counts that differ.

    Example:
        >>> prompt = "The currency of the country whose capital is Warsaw is the"
        >>> found = find_bridge_entities(model, [prompt], [Entity("Poland", ("Polska",))], adapter)
        >>> found.cells[found.cells.named]
    """
    if len(bridges) != len(prompts):
        raise InterpToolkitError(f"expected a bridge for each of {len(prompts)} prompts, got {len(bridges)}")
    grid = describe_grid(
        model,
        prompts,
        adapter,
        sites=sites,
        positions=positions,
        samples=samples,
        seed=seed,
        chat=chat,
        means=means,
        responses=responses,
        subjects=subjects,
        progress=progress,
    )
    return name_bridges(grid, bridges)


def name_bridges(grid: Grid, bridges: Sequence[Entity]) -> BridgeEntities:
    """Look for each prompt's bridge in a grid that is there already.

    Args:
        grid: see `describe_grid`.
        bridges: one for each prompt that was given, failed ones included.
    """
    if len(bridges) != len(grid.prompts) + len(grid.failed):
        raise InterpToolkitError(
            f"expected a bridge for each of {len(grid.prompts) + len(grid.failed)} prompts, got {len(bridges)}"
        )
    own = tuple(bridges[i] for i in grid.prompts["prompt"])
    cells = grid.cells.assign(
        named=[bridges[i].named_in(text) for i, text in zip(grid.cells["prompt"], grid.cells["description"])]
    )
    in_prompt = [bridge.named_in(text) for bridge, text in zip(own, grid.prompts["text"])]
    in_response = [bridge.named_in(text) for bridge, text in zip(own, grid.prompts["response"])]
    hit = set(cells["prompt"][cells["named"]])
    prompts = grid.prompts.assign(
        bridge=[bridge.name for bridge in own],
        kind=[bridge.kind for bridge in own],
        in_prompt=in_prompt,
        in_response=in_response,
        hidden=[not (one or other) for one, other in zip(in_prompt, in_response)],
        hit=[i in hit for i in grid.prompts["prompt"]],
    )
    return BridgeEntities(cells, prompts, grid.failed, own)


def untrained_adapter(adapter: Adapter, scale: float) -> Adapter:
    """The untrained direction, s x^, in an adapter's own soft prompt: what self-interpretation does without training.

    It reads one site alone, since several side by side are no direction of the model's: the deepest of the adapter's,
    or those that `find_bridge_entities` is asked for.

    Args:
        adapter: with its contract.
        scale: length s of the direction.
    """
    contract = contract_of(adapter)
    made = Adapter.create("scale", contract.d_model, init_scale=scale).requires_grad_(False).eval()
    site = max(contract.site.sites) if contract.site else None
    mean = contract.mean if site == contract.site else None
    made.contract = replace(contract, site=site, mean=mean, normalize=True, threshold=None)
    return made


def decode_rates(
    found: Mapping[str, BridgeEntities], *, said: bool = False, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """How often descriptions name the hidden bridge, beside the chance level, for adapters over the same prompts.

    Measures: ``any cell``, where one description of the whole grid is enough; ``best site`` and ``best cell``, one of
    those at the site (or site and distance from the prompt's end) that names most bridges of *other* prompts, found by
    cross-validation in which prompts of one bridge stay together; and ``a description``, the share of all of them.
    Chance is the same descriptions against the bridges of other prompts, averaged over all different ones of the same
    kind: it grows with the number of descriptions as the rate does. Bridges should be as good as balanced: where one
    is that of most prompts, an adapter that always says it beats this chance.

    Args:
        found: results by name, over the same prompts; the first is compared with each of the others.
        said: also count prompts whose response names the bridge, such as single-hop ones, whose answer it is.
        folds: of the cross-validation.
        seed: of the folds and of the bootstrap.

    Returns:
        columns ``adapter`` (the name), ``measure``, ``what``, ``value``, ``low``, ``high``, ``n`` (prompts),
        ``clusters`` (different bridges, which the 95% intervals are clustered by), ``seed``. For each adapter and
        measure ``what`` is ``rate``, ``chance``, and ``rate / chance`` (over prompts that have a chance level); for the
        first also ``rate / NAME`` and ``rate - NAME`` for each other adapter.

    Raises:
        InterpToolkitError: nothing to compare, or bridges of fewer than two names.

    Example:
        >>> decode_rates({"trained": found, "untrained": find_bridge_entities(..., untrained_adapter(adapter, 5.0))})
    """
    if folds < 2:
        raise InterpToolkitError(f"expected at least 2 folds, so that each has other prompts, got {folds}")
    kept = {name: _counted(one, said) for name, one in found.items()}
    common = set.intersection(*({int(i) for i in one.prompts["prompt"]} for one in kept.values())) if kept else set()
    each = {name: _take(one, one.prompts["prompt"].isin(list(common)).to_numpy()) for name, one in kept.items()}
    clusters = next(iter(each.values())).prompts["bridge"].tolist() if common else []
    if len(set(clusters)) < 2:
        raise InterpToolkitError(
            f"expected prompts with hidden bridges of at least two names, got {len(clusters)} prompts of "
            f"{len(set(clusters))}"
        )
    groups = np.array(clusters)
    told = {name: _measures(one, groups, folds, seed) for name, one in each.items()}
    first = next(iter(told))
    rows = []
    for name, measures in told.items():
        for measure, (rate, chance) in measures.items():
            known = np.isfinite(chance)
            whole = np.isin(rate, (0.0, 1.0)).all()
            values: dict[str, Interval] = {
                RATE: proportion_interval(rate, groups) if whole else mean_interval(rate, groups, seed=seed)
            }
            if known.any():
                values[CHANCE] = mean_interval(chance[known], groups[known], seed=seed)
                values[f"{RATE} / {CHANCE}"] = ratio_interval(rate[known], chance[known], groups[known], seed=seed)
            if name == first:
                for other in (other for other in told if other != first):
                    values[f"{RATE} / {other}"] = ratio_interval(rate, told[other][measure][0], groups, seed=seed)
                    values[f"{RATE} - {other}"] = paired_difference(rate, told[other][measure][0], groups, seed=seed)
            for what, x in values.items():
                cells = dict(value=x.value, low=x.low, high=x.high, n=x.n, clusters=x.clusters, seed=seed)
                rows.append(dict(adapter=name, measure=measure, what=what) | cells)
    return pd.DataFrame(rows)


def layer_position_table(
    found: BridgeEntities, by: Literal["from_end", "from_subject"] = "from_end", *, said: bool = False, seed: int = 0
) -> pd.DataFrame:
    """At which layers and tokens descriptions name the hidden bridge.

    Args:
        found: see `find_bridge_entities`.
        by: how positions are counted: from the last of the prompt's own tokens, or from the subject's last token.
        said: as in `decode_rates`.
        seed: of the bootstrap.

    Returns:
        one row a site and position: ``site``, ``position``, ``value`` (share of prompts for which any sample there
        names the bridge), ``low``, ``high`` (95%, clustered by bridge), ``chance``, ``n``, ``clusters``, ``seed``.

    Raises:
        InterpToolkitError: no prompt with a hidden bridge, or no subjects to count from.
    """
    kept = _counted(found, said)
    cells = kept.cells.dropna(subset=[by])
    if cells.empty:
        raise InterpToolkitError(
            "expected prompts with hidden bridges, got none" if kept.cells.empty else "pass subjects=... to count from"
        )
    rows = []
    sites = {site: i for i, site in enumerate(dict.fromkeys(kept.cells["site"]))}
    for site, position in sorted({*zip(cells["site"], cells[by])}, key=lambda x: (sites[x[0]], x[1])):
        here = (kept.cells["site"] == site) & (kept.cells[by] == position).fillna(False)
        mask = here.to_numpy(dtype=bool)
        asked = np.unique(kept.rows[mask])
        rate, chance = (x[asked] for x in kept.hits(mask))
        names = kept.prompts["bridge"].to_numpy()[asked]
        x = proportion_interval(rate, names)
        by_chance = float(np.nanmean(chance)) if np.isfinite(chance).any() else float("nan")
        rows.append(dict(site=site, position=int(position), value=x.value, low=x.low, high=x.high, chance=by_chance))
        rows[-1] |= dict(n=x.n, clusters=x.clusters, seed=seed)
    return pd.DataFrame(rows)


def _counted(found: BridgeEntities, said: bool) -> BridgeEntities:
    """The prompts that count."""
    return _take(found, (~found.prompts["in_prompt"] if said else found.prompts["hidden"]).to_numpy(dtype=bool))


def _take(found: BridgeEntities, rows: np.ndarray) -> BridgeEntities:
    """Some of the prompts."""
    prompts: Any = found.prompts[rows].reset_index(drop=True)
    cells: Any = found.cells[found.cells["prompt"].isin(list(prompts["prompt"]))].reset_index(drop=True)
    bridges = tuple(bridge for bridge, kept in zip(found.bridges, rows) if kept)
    return BridgeEntities(cells, prompts, found.failed, bridges)


def _measures(
    found: BridgeEntities, groups: np.ndarray, folds: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rate and chance of each prompt, by measure."""
    sites = found.cells["site"].to_numpy()
    cells = np.array([f"{site} {end}" for site, end in zip(sites, found.cells["from_end"])], dtype=object)
    return {
        ANY_CELL: found.hits(np.ones(len(sites), dtype=bool)),
        BEST_SITE: _best(found, sites, groups, folds, seed),
        BEST_CELL: _best(found, cells, groups, folds, seed),
        DESCRIPTION: found.shares(),
    }


def _best(
    found: BridgeEntities, places: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rate and chance of each prompt at the place that is best for prompts of other folds."""
    by_place = {place: found.hits(places == place) for place in dict.fromkeys(places)}
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    fold = {name: i % min(folds, len(names)) for i, name in enumerate(names)}
    own = np.array([fold[name] for name in groups])
    rate, chance = np.zeros(len(own)), np.zeros(len(own))
    for number in set(own):
        inside = own == number
        best = max(by_place, key=lambda place: by_place[place][0][~inside].mean())
        rate[inside], chance[inside] = (x[inside] for x in by_place[best])
    return rate, chance
