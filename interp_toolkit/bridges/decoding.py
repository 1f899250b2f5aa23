"""Decoding: how often descriptions name the hidden bridge, at which layers and tokens, and how often by chance."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp_toolkit.bridges.naming import BridgeEntities
from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    proportion_interval,
    ratio_interval,
)
from interp_toolkit.torch_defaults import plain_defaults

ANY_CELL, BEST_SITE = "any cell", "best site"


@renamed_arguments(found="results", said="count_answered")
@plain_defaults()
def decode_rates(
    results: Mapping[str, BridgeEntities], *, count_answered: bool = False, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Tabulate how often descriptions name the hidden bridge, and by chance, for adapters over the same prompts.

    Measures: ``any cell``, where one description of the whole grid is enough; and ``best site``, one of those at the
    site that names most bridges of *other* prompts, found by cross-validation in which prompts of one bridge stay
    together. Chance is the same descriptions against the bridges of other prompts, where these are of the same kind and
    another bridge: it grows with the number of descriptions as the rate does. See `BridgeEntities.chance`.

    Args:
        results: by name, over the same prompts; the first is compared with each of the others.
        count_answered: also count prompts whose response names the bridge, such as single-hop ones, whose answer it is.
        folds: of the cross-validation.
        seed: of the folds and of the bootstrap.

    Returns:
        columns ``measure``, ``what``, ``value``, ``low``, ``high``, ``n`` (prompts), ``clusters`` (different bridges,
        which the 95% intervals are clustered by), ``seed``. For each measure ``what`` is, for each name, ``NAME`` (its
        rate), ``NAME by chance`` and ``NAME / chance`` (over prompts that have a chance level); and for the first with
        each other ``FIRST / OTHER`` and ``FIRST - OTHER``.

    Raises:
        InterpToolkitError: nothing to compare, or bridges of fewer than two names.

    Example:
        >>> decode_rates({"trained": result, "untrained": find_bridge_entities(..., untrained_adapter(adapter, 5.0))})
    """
    if folds < 2:
        raise InterpToolkitError(f"expected at least 2 folds, so that there are other prompts for each, got {folds}")
    counted = {name: _counted(result, count_answered) for name, result in results.items()}
    numbers = [{int(i) for i in result.prompts["prompt"]} for result in counted.values()]
    common = list(set.intersection(*numbers)) if numbers else []
    compared = {name: _take(one, one.prompts["prompt"].isin(common).to_numpy()) for name, one in counted.items()}
    groups = next(iter(compared.values())).prompts["bridge"].to_numpy() if common else np.array([])
    if len(set(groups)) < 2:
        raise InterpToolkitError(
            f"expected prompts with hidden bridges of at least two names, got {len(groups)} prompts of "
            f"{len(set(groups))}"
        )
    rows = []
    for measure in (ANY_CELL, BEST_SITE):
        rates = {name: _rate(result, measure, groups, folds, seed) for name, result in compared.items()}
        for what, x in _figures(rates, groups, seed).items():
            cells = dict(value=x.value, low=x.low, high=x.high, n=x.n, clusters=x.clusters, seed=seed)
            rows.append(dict(measure=measure, what=what) | cells)
    return pd.DataFrame(rows)


@renamed_arguments(found="result", said="count_answered")
def layer_position_table(
    result: BridgeEntities,
    by: Literal["from_end", "from_subject"] = "from_end",
    *,
    count_answered: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate at which layers and tokens descriptions name the hidden bridge.

    Args:
        result: see `find_bridge_entities`.
        by: how positions are counted: from the last of the prompt's own tokens, or from the subject's last token.
        count_answered: as in `decode_rates`.
        seed: of the bootstrap.

    Returns:
        one row per site and position: ``site``, ``position``, ``value`` (share of prompts for which any sample there
        names the bridge), ``low``, ``high`` (95%, clustered by bridge), ``chance``, ``n``, ``clusters``, ``seed``.

    Raises:
        InterpToolkitError: no prompt with a hidden bridge, or no subjects to count from.
    """
    counted = _counted(result, count_answered)
    cells = counted.cells.dropna(subset=[by])
    if cells.empty:
        raise InterpToolkitError(
            "expected prompts with hidden bridges, got none"
            if counted.cells.empty
            else "pass subjects=... to count from"
        )
    rows = []
    sites = {site: i for i, site in enumerate(dict.fromkeys(counted.cells["site"]))}
    for site, position in sorted({*zip(cells["site"], cells[by])}, key=lambda x: (sites[x[0]], x[1])):
        here = (counted.cells["site"] == site) & (counted.cells[by] == position).fillna(False)
        mask = here.to_numpy(dtype=bool)
        prompts = np.unique(counted.rows[mask])
        rate, chance = (x[prompts] for x in counted.hits(mask))
        names = counted.prompts["bridge"].to_numpy()[prompts]
        x = proportion_interval(rate, names)
        by_chance = float(np.nanmean(chance)) if np.isfinite(chance).any() else float("nan")
        rows.append(dict(site=site, position=int(position), value=x.value, low=x.low, high=x.high, chance=by_chance))
        rows[-1] |= dict(n=x.n, clusters=x.clusters, seed=seed)
    return pd.DataFrame(rows)


def _counted(result: BridgeEntities, count_answered: bool) -> BridgeEntities:
    """The prompts that count."""
    counts = ~result.prompts["in_prompt"] if count_answered else result.prompts["hidden"]
    return _take(result, counts.to_numpy(dtype=bool))


def _take(result: BridgeEntities, rows: np.ndarray) -> BridgeEntities:
    """Some of the prompts."""
    prompts: Any = result.prompts[rows].reset_index(drop=True)
    cells: Any = result.cells[result.cells["prompt"].isin(list(prompts["prompt"]))].reset_index(drop=True)
    bridges = tuple(bridge for bridge, taken in zip(result.bridges, rows) if taken)
    return BridgeEntities(cells, prompts, result.failed, bridges)


def _figures(rates: Mapping[str, tuple[np.ndarray, np.ndarray]], groups: np.ndarray, seed: int) -> dict[str, Interval]:
    """Each adapter's rate and chance, and the first's against the others, by their names in the table."""
    figures: dict[str, Interval] = {}
    for name, (rate, chance) in rates.items():
        figures[name] = proportion_interval(rate, groups)
        if (known := np.isfinite(chance)).any():
            figures[f"{name} by chance"] = mean_interval(chance[known], groups[known], seed=seed)
            figures[f"{name} / chance"] = _ratio(rate[known], chance[known], groups[known], seed)
    (first, (rate, _)), *others = rates.items()
    for other, (less, _) in others:
        figures[f"{first} / {other}"] = _ratio(rate, less, groups, seed)
        figures[f"{first} - {other}"] = paired_difference(rate, less, groups, seed=seed)
    return figures


def _ratio(rate: np.ndarray, other: np.ndarray, groups: np.ndarray, seed: int) -> Interval:
    # Descriptions seldom hold a name by chance: some draws hold none, and their ratio is infinite.
    with np.errstate(invalid="ignore"):
        return ratio_interval(rate, other, groups, seed=seed)


def _rate(
    result: BridgeEntities, measure: str, groups: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rate and chance of each prompt: in all its cells, or at the site that is best for prompts of other folds."""
    sites = result.cells["site"].to_numpy()
    if measure == ANY_CELL:
        return result.hits(np.ones(len(sites), dtype=bool))
    by_site = {site: result.hits(sites == site) for site in dict.fromkeys(sites)}
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    fold = {name: i % min(folds, len(names)) for i, name in enumerate(names)}
    row_folds = np.array([fold[name] for name in groups])
    rate, chance = np.zeros(len(groups)), np.zeros(len(groups))
    for number in set(row_folds):
        inside = row_folds == number
        best = max(by_site, key=lambda site: by_site[site][0][~inside].mean())
        rate[inside], chance[inside] = (x[inside] for x in by_site[best])
    return rate, chance
