"""Grids: descriptions of prompts' residual streams at every chosen site and position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.activations import read_activations, stack_sites
from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges.twohop import MAX_NEW_TOKENS, continuations
from interp_toolkit.centering import Means, mean_by_distance, parse_means
from interp_toolkit.chat import list_prompts
from interp_toolkit.contract import Contract
from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import self_explain
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import Place, PlaceLike, SiteStack
from interp_toolkit.spans import Span, Where, find_spans
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

_FAILED = ("prompt", "text", "reason")
CELLS = (
    "prompt", "site", "position", "from_end", "from_subject", "token", "sample", "description", "evidence"
)  # fmt: skip
# A description is a title, which takes a few tokens.
_MAX_NEW_TOKENS = 16
# A chat answer repeats the question before it names anything; a cloze is answered at once.
_CHAT_RESPONSE = 40


@dataclass(frozen=True, eq=False)
class Grid:
    """Descriptions of prompts' residual streams at every chosen site and position.

    Attributes:
        cells: one row per description: ``prompt`` (its number), ``site``, ``position`` (from the prompt's first token,
            the template's included), ``from_end`` (from the last of its own tokens: 0, -1, ...; above 0 the template's
            behind it), ``from_subject`` (from the last token of its subject; missing without one), ``token``,
            ``sample``, ``description``, ``evidence`` (NaN for an empty description).
        prompts: one row per prompt that could be read: ``prompt``, ``text``, ``response`` (the model's continuation).
        failed: the others: ``prompt``, ``text``, ``reason``.
    """

    cells: pd.DataFrame
    prompts: pd.DataFrame
    failed: pd.DataFrame

    __repr__ = brief_repr

    @classmethod
    def join(cls, grids: Sequence[Grid]) -> Grid:
        """Join grids into one of all their prompts, numbered in order."""
        starts = np.cumsum([0, *(len(grid.prompts) + len(grid.failed) for grid in grids)])

        def joined(name: str) -> pd.DataFrame:
            frames = [getattr(grid, name) for grid in grids]
            moved = [frame.assign(prompt=frame["prompt"] + start) for frame, start in zip(frames, starts)]
            return pd.concat([frame for frame in moved if len(frame)] or moved[:1], ignore_index=True)

        return cls(joined("cells"), joined("prompts"), joined("failed"))

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        cells = self.cells.astype(object).where(self.cells.notna(), None)
        return dict(
            cells=cells.to_dict("list"), prompts=self.prompts.to_dict("list"), failed=self.failed.to_dict("list")
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Grid:
        """The inverse of `to_dict`."""
        return cls(_cells(data["cells"]), pd.DataFrame(data["prompts"]), pd.DataFrame(data["failed"]))


@renamed_arguments(means="center")
@plain_defaults()
def describe_grid(
    model: Any,
    prompts: Iterable[str],
    adapter: Adapter,
    *,
    sites: PlaceLike | None = None,
    positions: Where = "content",
    samples: int = 2,
    seed: int = 0,
    chat: bool = False,
    center: Means | Sequence[Means] | None = None,
    responses: Iterable[str] | None = None,
    subjects: Iterable[str] | None = None,
    progress: bool = False,
) -> Grid:
    """Describe prompts' residual streams at every chosen site and position.

    A prompt that cannot be read is listed in `Grid.failed`; the others are described.

    Args:
        model: the hooked model.
        prompts: texts.
        adapter: with its contract. One of several sites reads these together, and no others: they are one site.
        sites: where to read; by default where the adapter was trained.
        positions: ``"content"`` for the prompt's tokens without the template's; a number n for the last n of these; or
            as in `read_activations`: ``"all"``, ``"last"``, a slice, a mask or a list, in which a shorter
            prompt fails.
        samples: descriptions per cell; one is greedy.
        seed: of the sampling.
        chat: whether prompts go through the chat template. By default they are read as plain text to continue, as
            clozes are.
        center: what to subtract at each site, by distance from the prompt's end (see `site_means`), or one vector for
            all tokens; or a list of these, one per prompt, where prompts are of several forms. By default the adapter's
            own mean at its own site; other sites must be given theirs, and sites that are not read none.
        responses: the model's continuation of each prompt; by default generated, greedily (10 tokens, 40 in chat).
        subjects: for each prompt a part of its text, to count positions from.
        progress: whether to show bars.

    Raises:
        ContractError: an adapter for another model or, if it is of several sites, for others.
        InterpToolkitError: no contract, a site without a mean, counts that differ, or settings out of their range.
    """
    contract = adapter.require_contract(model_facts(model))
    prompts = list_prompts(prompts)
    shared = center if isinstance(center, Mapping) else {}
    listed = None if center is None or isinstance(center, Mapping) else list(center)
    responses = None if responses is None else list(responses)
    subjects = None if subjects is None else list(subjects)
    for name, values in (("center", listed), ("responses", responses), ("subjects", subjects)):
        if values is not None and len(values) != len(prompts):
            raise InterpToolkitError(f"expected {name} for each of {len(prompts)} prompts, got {len(values)}")
    places = contract.places(sites)
    sites_read = [site for place in places for site in place.sites]
    by_prompt = [shared] * len(prompts) if listed is None else listed
    # Prompts of one form share their means, and these are checked once.
    checked = {id(mean): parse_means(mean, sites_read, contract.d_model, by_distance=True) for mean in by_prompt}
    by_means = {
        key: {str(place): mean_by_distance(place, contract, mean) for place in places} for key, mean in checked.items()
    }
    centers = [by_means[id(mean)] for mean in by_prompt]
    spans, failed = find_spans(model.tokenizer, prompts, positions, chat)
    table, values = _centred_cells(model, spans, places, centers, contract, adapter.config.width)
    bad: Any
    for bad in table[~(values.isfinite().all(1) & values.any(1)).numpy()].itertuples():
        failed.setdefault(bad.prompt, f"the vector at {bad.site}, position {bad.position}, is zero or not finite")
    described = ~table["prompt"].isin(list(failed)).to_numpy(dtype=bool)
    descriptions = self_explain(
        values[torch.from_numpy(described)],
        model=model,
        adapter=adapter,
        progress=progress,
        sampling=Sampling(n=samples, seed=seed, max_new_tokens=_MAX_NEW_TOKENS),
    )
    left = [prompt for prompt in spans if prompt.number not in failed]
    texts = [prompts[prompt.number] for prompt in left]
    ends: dict[int, int | None] = {}
    if subjects is not None:
        ends = {prompt.number: prompt.end_of(model.tokenizer, subjects[prompt.number]) for prompt in left}
    cells = table[described].loc[lambda x: x.index.repeat(samples)]
    from_subject = [
        None if (end := ends.get(i)) is None else p - end for i, p in zip(cells["prompt"], cells["position"])
    ]
    if responses is not None:
        continued = [responses[prompt.number] for prompt in left]
    else:
        max_new_tokens = _CHAT_RESPONSE if chat else MAX_NEW_TOKENS
        continued = continuations(model, texts, chat=chat, max_new_tokens=max_new_tokens, progress=progress)
    return Grid(
        _cells(
            cells.assign(
                from_subject=from_subject,
                sample=[row.sample for row in descriptions],
                description=[row.description for row in descriptions],
                evidence=[row.evidence for row in descriptions],
            )
        ),
        pd.DataFrame(dict(prompt=[prompt.number for prompt in left], text=texts, response=continued)),
        pd.DataFrame([(i, prompts[i], failed[i]) for i in sorted(failed)], columns=pd.Index(_FAILED)),
    )


def _centred_cells(
    model: Any,
    prompts: Sequence[Span],
    places: Sequence[Place],
    centers: Sequence[Mapping[str, Tensor | None]],
    contract: Contract,
    width: int,
) -> tuple[pd.DataFrame, Tensor]:
    """The cells of a grid without descriptions, and their centred vectors."""
    if not prompts:
        return _cells({}), torch.zeros(0, width)
    sites = [site for place in places for site in place.sites]
    read = read_activations(model, [prompt.ids for prompt in prompts], sites, "all")
    if isinstance(places[0], SiteStack):
        read = stack_sites(read, places[0])
    rows: Any = read.table
    keep = torch.tensor([row.position in prompts[row.prompt].positions for row in rows.itertuples()])
    prompt_of_cell = [prompts[i] for i in rows["prompt"][keep.numpy()]]
    table: Any = rows[keep.numpy()].assign(
        prompt=[prompt.number for prompt in prompt_of_cell],
        from_end=lambda x: x["position"] - [prompt.content[1] - 1 for prompt in prompt_of_cell],
    )
    values = read.vectors[keep]
    distance = torch.tensor([len(prompt.ids) - 1 for prompt in prompt_of_cell]) - torch.tensor(
        table["position"].to_numpy()
    )
    for (number, site), here in table.reset_index(drop=True).groupby(["prompt", "site"]).indices.items():
        if (center := centers[number][site]) is not None:
            values[here] -= center[distance[here].clamp(max=len(center) - 1)]
    filled = torch.zeros(len(values), width)
    for place in places:
        here = torch.from_numpy((table["site"] == str(place)).to_numpy(copy=True))
        filled[here] = contract.filled(values[here], place)
    return table.reset_index(drop=True), filled


def _cells(columns: Any) -> pd.DataFrame:
    """Columns as the cells of a `Grid`."""
    frame: Any = pd.DataFrame(columns).reindex(columns=list(CELLS)).reset_index(drop=True)
    numbers = dict.fromkeys(("prompt", "position", "from_end", "sample"), "int64")
    return frame.astype(numbers | dict(from_subject="Int64", evidence="float64"))
