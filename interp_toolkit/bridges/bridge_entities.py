"""Bridge entities: whether descriptions of a question's hidden states name what it makes the model think of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.names import Entity, find_names
from interp_toolkit.centering import Means
from interp_toolkit.chat import list_prompts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sites import PlaceLike
from interp_toolkit.spans import Where
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults


@dataclass(frozen=True, eq=False)
class BridgeEntities:
    """A grid of descriptions, and where it names each prompt's bridge.

    Attributes:
        cells: as `Grid.cells`, with ``named``: whether the description names the bridge.
        prompts: one row a prompt: ``prompt``, ``text``, ``response``, ``bridge``, ``kind``, ``in_prompt``,
            ``in_response`` (whether they name the bridge or hint at it, see `Entity.hinted_in`), ``hidden`` (neither
            does), ``hit`` (whether any cell names it).
        failed: ``prompt``, ``text``, ``reason``.
        bridges: of ``prompts``, row by row.
    """

    cells: pd.DataFrame
    prompts: pd.DataFrame
    failed: pd.DataFrame
    bridges: tuple[Entity, ...]

    __repr__ = brief_repr

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
        response names or hints at, which no bridge that counts is either.
        """
        said = (self.prompts["text"] + "\n" + self.prompts["response"]).tolist()
        kinds = np.array([entity.kind for entity in self.entities])
        names = [entity.name for entity in self.entities]
        same = find_names(self.entities, names)
        same = same | same.T
        hinted = np.array([[entity.hinted_in(text) for entity in self.entities] for text in said], dtype=bool)
        return (kinds[self.own][:, None] == kinds) & ~same[self.own] & ~hinted.reshape(len(said), len(names))

    def hits(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each prompt whether any of some cells names its bridge, and its `chance` of that.

        Args:
            cells: truths, which cells count.

        Returns:
            float64 [prompts] each; the second NaN where a prompt has no strangers.
        """
        found = np.zeros((len(self.prompts), len(self.entities)), dtype=bool)
        np.logical_or.at(found, self.rows[cells], self.names[cells])
        return found[np.arange(len(found)), self.own].astype(float), self.chance(found)

    def chance(self, named: np.ndarray) -> np.ndarray:
        """For each prompt how much of the bridges of other prompts it names, NaN where it has no strangers.

        Each stranger counts as often as it is a prompt's bridge: who always says the commonest one gains by it, in the
        rate and in the chance level.

        Args:
            named: how much of each of `entities` each prompt names, [prompts, entities].
        """
        weights = self.strangers * np.bincount(self.own, minlength=len(self.entities))
        with np.errstate(invalid="ignore"):
            return (named * weights).sum(1) / weights.sum(1)


@plain_defaults()
def find_bridge_entities(
    model: Any,
    prompts: Iterable[str],
    bridges: Iterable[Entity],
    adapter: Adapter,
    *,
    sites: PlaceLike | None = None,
    positions: Where = "content",
    samples: int = 2,
    seed: int = 0,
    chat: bool = False,
    means: Means | Sequence[Means] | None = None,
    responses: Iterable[str] | None = None,
    subjects: Iterable[str] | None = None,
    progress: bool = False,
) -> BridgeEntities:
    """Read each prompt's residual stream at every asked layer and token, and look for its bridge in the descriptions.

    In "The currency of the country whose capital is Warsaw is the" the bridge is Poland (arXiv 2602.10352, bridge
    entities). A bridge that the prompt or the model's own response names, or hints at as "Polish" does at Poland, is
    not hidden, and counts in no rate. One that is decoded is there to be read; whether the model uses it is another
    question.

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
    prompts, bridges = list_prompts(prompts), list(bridges)
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


@plain_defaults()
def name_bridges(grid: Grid, bridges: Iterable[Entity]) -> BridgeEntities:
    """Look for each prompt's bridge in a grid that is there already.

    Args:
        grid: see `describe_grid`.
        bridges: one for each prompt that was given, failed ones included.
    """
    bridges = list(bridges)
    if len(bridges) != len(grid.prompts) + len(grid.failed):
        raise InterpToolkitError(
            f"expected a bridge for each of {len(grid.prompts) + len(grid.failed)} prompts, got {len(bridges)}"
        )
    for bridge in bridges:
        if not isinstance(bridge, Entity):
            raise InterpToolkitError(f"expected an Entity for each bridge, got {bridge!r}; pass Entity({bridge!r})")
    own = tuple(bridges[i] for i in grid.prompts["prompt"])
    cells = grid.cells.assign(
        named=[bridges[i].named_in(text) for i, text in zip(grid.cells["prompt"], grid.cells["description"])]
    )
    in_prompt = [bridge.hinted_in(text) for bridge, text in zip(own, grid.prompts["text"])]
    in_response = [bridge.hinted_in(text) for bridge, text in zip(own, grid.prompts["response"])]
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
    contract = adapter.require_contract()
    made = Adapter.create("scale", contract.d_model, init_scale=scale).requires_grad_(False).eval()
    site = max(contract.site.sites) if contract.site else None
    mean = contract.mean if site == contract.site else None
    made.contract = replace(contract, site=site, mean=mean, normalize=True, threshold=None)
    return made
