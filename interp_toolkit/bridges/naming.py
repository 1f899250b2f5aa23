"""Bridge entities: whether descriptions of a question's hidden states name the entity that it only implies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.names import Entity, find_names
from interp_toolkit.chat import list_prompts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.tables import brief_repr


@dataclass(frozen=True, eq=False)
class BridgeEntities:
    """A grid of descriptions, and where it names each prompt's bridge.

    Attributes:
        cells: as `Grid.cells`, with ``named``: whether the description names the bridge.
        prompts: one row per prompt: ``prompt``, ``text``, ``response``, ``bridge``, ``kind``, ``in_prompt``,
            ``in_response`` (whether these name the bridge or hint at it, see `Entity.hinted_in`), ``hidden`` (neither
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
        """The different bridges, one per name and kind."""
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
    def bridge_index(self) -> np.ndarray:
        """For each prompt the number of its bridge among `entities`."""
        number = {(entity.name, entity.kind): i for i, entity in enumerate(self.entities)}
        return np.array([number[bridge.name, bridge.kind] for bridge in self.bridges], dtype=int)

    @cached_property
    def strangers(self) -> np.ndarray:
        """For each prompt which of `entities` may be named by chance alone, [prompts, entities].

        These are of the bridge's kind, without the bridge itself under any name, and without entities that the prompt
        or the response names or hints at, since no bridge that counts is one of those.
        """
        texts = (self.prompts["text"] + "\n" + self.prompts["response"]).tolist()
        kinds = np.array([entity.kind for entity in self.entities])
        names = [entity.name for entity in self.entities]
        same = find_names(self.entities, names)
        same = same | same.T
        hinted = np.array([[entity.hinted_in(text) for entity in self.entities] for text in texts], dtype=bool)
        same_kind = kinds[self.bridge_index][:, None] == kinds
        return same_kind & ~same[self.bridge_index] & ~hinted.reshape(len(texts), len(names))

    def hits(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each prompt whether any of some cells names its bridge, and the `chance` of that.

        Args:
            cells: truths, which cells count.

        Returns:
            two arrays, float64 [prompts]; the second is NaN where a prompt has no `strangers`.
        """
        named = np.zeros((len(self.prompts), len(self.entities)), dtype=bool)
        np.logical_or.at(named, self.rows[cells], self.names[cells])
        return named[np.arange(len(named)), self.bridge_index].astype(float), self.chance(named)

    def chance(self, named: np.ndarray) -> np.ndarray:
        """For each prompt the share of other prompts' bridges that it names, NaN where it has no `strangers`.

        Each stranger counts as often as it is a prompt's bridge: an adapter that always names the commonest bridge
        gains by it, in the rate and in the chance level.

        Args:
            named: whether each prompt names each of `entities`, [prompts, entities].
        """
        weights = self.strangers * np.bincount(self.bridge_index, minlength=len(self.entities))
        with np.errstate(invalid="ignore"):
            return (named * weights).sum(1) / weights.sum(1)


def find_bridge_entities(
    model: Any, prompts: Iterable[str], bridges: Iterable[Entity], adapter: Adapter, **grid_settings: Any
) -> BridgeEntities:
    """Describe each prompt's residual stream at every site and position, and look for its bridge in the descriptions.

    In "The currency of the country whose capital is Warsaw is the" the bridge is Poland (arXiv 2602.10352, bridge
    entities). A bridge that the prompt or the model's response names, or hints at as "Polish" does at Poland, is
    not hidden, and counts in no rate. A decoded bridge can be read from the hidden states; whether the model uses it is
    another question.

    This is ``name_bridges(describe_grid(model, prompts, adapter, **grid_settings), bridges)``.

    Args:
        model: the hooked model.
        prompts: texts, two-hop questions or others.
        bridges: one per prompt; those of one kind are each other's chance level.
        adapter: with its contract; see `untrained_adapter` for one to compare with.
        grid_settings: see `describe_grid`.

    Raises:
        ContractError: an adapter for another model.
        InterpToolkitError: as `describe_grid`, or counts that differ.

    Example:
        >>> prompt = "The currency of the country whose capital is Warsaw is the"
        >>> result = find_bridge_entities(model, [prompt], [Entity("Poland", ("Polska",))], adapter)
        >>> result.cells[result.cells.named]
    """
    prompts, bridges = list_prompts(prompts), list(bridges)
    _check_bridges(bridges, len(prompts))
    return name_bridges(describe_grid(model, prompts, adapter, **grid_settings), bridges)


def name_bridges(grid: Grid, bridges: Iterable[Entity]) -> BridgeEntities:
    """Look for each prompt's bridge in a grid.

    Args:
        grid: see `describe_grid`.
        bridges: one for each prompt of `describe_grid`, failed ones included.

    Raises:
        InterpToolkitError: another count, or a bridge that is no `Entity`.
    """
    bridges = list(bridges)
    _check_bridges(bridges, len(grid.prompts) + len(grid.failed))
    described = tuple(bridges[i] for i in grid.prompts["prompt"])
    cells = grid.cells.assign(
        named=[bridges[i].named_in(text) for i, text in zip(grid.cells["prompt"], grid.cells["description"])]
    )
    in_prompt = [bridge.hinted_in(text) for bridge, text in zip(described, grid.prompts["text"])]
    in_response = [bridge.hinted_in(text) for bridge, text in zip(described, grid.prompts["response"])]
    hit = set(cells["prompt"][cells["named"]])
    prompts = grid.prompts.assign(
        bridge=[bridge.name for bridge in described],
        kind=[bridge.kind for bridge in described],
        in_prompt=in_prompt,
        in_response=in_response,
        hidden=[not (prompt or response) for prompt, response in zip(in_prompt, in_response)],
        hit=[i in hit for i in grid.prompts["prompt"]],
    )
    return BridgeEntities(cells, prompts, grid.failed, described)


def _check_bridges(bridges: Sequence[Entity], prompts: int) -> None:
    if len(bridges) != prompts:
        raise InterpToolkitError(f"expected a bridge for each of {prompts} prompts, got {len(bridges)}")
    for bridge in bridges:
        if not isinstance(bridge, Entity):
            raise InterpToolkitError(f"expected an Entity for each bridge, got {bridge!r}; pass Entity({bridge!r})")
