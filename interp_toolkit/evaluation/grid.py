"""The grid: descriptions of prompts' residual streams at every asked layer and token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_activations, stack_sites
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.twohop import continuations
from interp_toolkit.explain import self_explain
from interp_toolkit.models import model_facts
from interp_toolkit.sites import Place, Site, SiteLike, SiteStack, parse_place

Where = Literal["content", "all", "last"] | int | Sequence[int]
"""Which tokens of a prompt: its own without the template's, so many of these at their end, or as `Positions`."""
Means = Mapping[Site, Tensor]
"""What to take off at each site: [distances, d_model] by distance from a prompt's end, or [d_model]."""

_FAILED = ("prompt", "text", "reason")
CELLS = (
    "prompt", "site", "position", "from_end", "from_subject", "token", "sample", "description", "evidence"
)  # fmt: skip
# A description is a title, which takes a few tokens; more are spent on rambling.
_MAX_NEW_TOKENS = 16
# A mean over fewer prompts than this would hold too much of each.
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Grid:
    """Descriptions of prompts' residual streams at every asked layer and token.

    Attributes:
        cells: one row a description: ``prompt`` (its number), ``site``, ``position`` (from the prompt's first token,
            the template's included), ``from_end`` (from the last of its own tokens: 0, -1, ...; above 0 the template's
            behind it), ``from_subject`` (from the last token of its subject; missing without one), ``token``,
            ``sample``, ``description``, ``evidence`` (NaN for an empty description).
        prompts: one row a prompt that could be read: ``prompt``, ``text``, ``response`` (how the model goes on).
        failed: the others: ``prompt``, ``text``, ``reason``.
    """

    cells: pd.DataFrame
    prompts: pd.DataFrame
    failed: pd.DataFrame

    @classmethod
    def join(cls, parts: Sequence[Grid]) -> Grid:
        """Several grids as one of all their prompts, numbered in the order of the parts."""
        starts = np.cumsum([0, *(len(part.prompts) + len(part.failed) for part in parts)])

        def joined(name: str) -> pd.DataFrame:
            frames = [getattr(part, name) for part in parts]
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


@dataclass(frozen=True)
class _Prompt:
    """A prompt that is to be read.

    Attributes:
        number: among those given.
        text: of it.
        ids: the template's included.
        content: from where to where its own tokens go.
        positions: which are read.
    """

    number: int
    text: str
    ids: list[int]
    content: tuple[int, int]
    positions: frozenset[int]

    def end_of(self, tokenizer: Any, subject: str) -> int | None:
        """Position of the last token of a part of the text, None if it is not there."""
        at = self.text.lower().rfind(subject.lower()) if subject.strip() else -1
        if at < 0:
            return None
        start, end = self.content
        wanted = len(self.text[: at + len(subject)].lstrip())
        for position in range(start, end):
            if len(tokenizer.decode(self.ids[start : position + 1]).lstrip()) >= wanted:
                return position
        return None


def site_means(
    model: Any, prompts: Sequence[str], sites: SiteLike | Sequence[SiteLike], *, chat: bool = False
) -> dict[Site, Float[Tensor, "distances d_model"]]:
    """What residual streams hold whatever a prompt is about: their means over neutral or other prompts.

    Each token's mean is over tokens as far from their prompt's end, since the last token of a question differs from
    the first whatever the question. The more alike the prompts are in form (the same question about other things), the
    more is left of what one of them is about when its mean is taken off; none should be among those read afterwards.

    Args:
        model: the hooked model.
        prompts: at least two texts.
        sites: where to read.
        chat: whether texts go through the chat template.

    Returns:
        for each site a row a distance from the prompt's end, in tokens; the last row is the mean of all tokens that
        are at least so far, of which there are too few at each distance. The template's tokens before the text are
        left out. For `self_explain`, which takes a mean a site, use ``means[site].mean(0)``.

    Raises:
        InterpToolkitError: fewer than two prompts, an empty one, or a site that the model does not have.

    Example:
        >>> means = site_means(model, other_prompts, [19, 23, 27])
        >>> find_bridge_entities(model, prompts, bridges, adapter, sites=[19, 23, 27], means=means)
    """
    if len(prompts) < 2:
        raise InterpToolkitError(f"expected at least two prompts to take a mean over, got {len(prompts)}")
    ids = prompt_ids(model.tokenizer, prompts, chat)
    starts = [start for start, _ in _contents(model.tokenizer, ids, chat)]
    lengths = sorted((len(row) - start for row, start in zip(ids, starts)), reverse=True)
    rows = max(1, lengths[min(_FEWEST, len(lengths)) - 1])
    chosen = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str, int)) else sites)]
    read = read_activations(model, ids, chosen, "all")
    prompt, position = (read.table[name].to_numpy() for name in ("prompt", "position"))
    distance = np.array([len(row) for row in ids])[prompt] - 1 - position
    own = position >= np.array(starts)[prompt]
    means = {}
    for site in dict.fromkeys(chosen):
        here = torch.from_numpy(own & (read.table["site"] == str(site)).to_numpy())
        index = torch.from_numpy(distance.clip(max=rows - 1))[here]
        sums = torch.zeros(rows, read.vectors.shape[1]).index_add(0, index, read.vectors[here])
        means[site] = sums / index.bincount(minlength=rows)[:, None]
    return means


def describe_grid(
    model: Any,
    prompts: Sequence[str],
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
) -> Grid:
    """Descriptions of prompts' residual streams at every asked layer and token.

    A prompt that cannot be read does not lose the rest: it is told in `Grid.failed`.

    Args:
        model: the hooked model.
        prompts: texts.
        adapter: with its contract. One of several sites reads these together, and no others: they are one site.
        sites: where to read; by default where the adapter was trained.
        positions: ``"content"`` for the prompt's own tokens without the template's; a number for so many of these, the
            last; or as in `read_activations`: ``"all"``, ``"last"`` or a list, in which a shorter prompt fails.
        samples: descriptions a cell; one is greedy.
        seed: of the sampling.
        chat: whether prompts go through the chat template. By default they are read as text that goes on, which is how
            clozes are meant.
        means: what to take off at each site, by distance from the prompt's end (see `site_means`), or one vector for
            all tokens; or a list of these, one a prompt, where prompts are of several forms. By default the adapter's
            own mean at its own site; other sites must be given theirs.
        responses: how the model goes on behind each prompt; by default it is asked, greedily.
        subjects: for each prompt a part of it, to count positions from.
        progress: whether to show bars.

    Raises:
        ContractError: an adapter for another model or, if it is of several sites, for others.
        InterpToolkitError: no contract, a site without a mean, counts that differ, or settings out of their range.
    """
    contract = adapter.contract
    if contract is None:
        raise InterpToolkitError("the adapter has no contract, so it has not been trained; see train_adapter")
    contract.check_model(model_facts(model))
    same = means if isinstance(means, Mapping) else {}
    each = None if means is None or isinstance(means, Mapping) else means
    for name, given in (("means", each), ("responses", responses), ("subjects", subjects)):
        if given is not None and len(given) != len(prompts):
            raise InterpToolkitError(f"expected {name} for each of {len(prompts)} prompts, got {len(given)}")
    places = _places(sites, contract)
    own = [same] * len(prompts) if each is None else each
    taken = [{str(place): _mean(place, contract, mean) for place in places} for mean in own]
    asked, failed = _prepare(model.tokenizer, prompts, positions, chat)
    table, values = _read(model, asked, places, taken, contract, adapter.config.width)
    bad: Any
    for bad in table[~(values.isfinite().all(1) & values.any(1)).numpy()].itertuples():
        failed[bad.prompt] = f"the vector at {bad.site}, position {bad.position}, is zero or not finite"
    good = ~table["prompt"].isin(list(failed)).to_numpy(dtype=bool)
    told = self_explain(
        values[torch.from_numpy(good)],
        model=model,
        adapter=adapter,
        samples=samples,
        seed=seed,
        max_new_tokens=_MAX_NEW_TOKENS,
        progress=progress,
    )
    left = [prompt for prompt in asked if prompt.number not in failed]
    texts = [prompts[prompt.number] for prompt in left]
    ends: dict[int, int | None] = {}
    if subjects is not None:
        ends = {prompt.number: prompt.end_of(model.tokenizer, subjects[prompt.number]) for prompt in left}
    cells = table[good].loc[lambda x: x.index.repeat(samples)]
    behind = [None if (end := ends.get(i)) is None else p - end for i, p in zip(cells["prompt"], cells["position"])]
    if responses is None:
        going_on = continuations(model, texts, chat=chat, progress=progress) if left else []
    else:
        going_on = [responses[prompt.number] for prompt in left]
    return Grid(
        _cells(
            cells.assign(
                from_subject=behind,
                sample=[row.sample for row in told],
                description=[row.description for row in told],
                evidence=[row.evidence for row in told],
            )
        ),
        pd.DataFrame(dict(prompt=[prompt.number for prompt in left], text=texts, response=going_on)),
        pd.DataFrame([(i, prompts[i], failed[i]) for i in sorted(failed)], columns=pd.Index(_FAILED)),
    )


def _prepare(
    tokenizer: Any, prompts: Sequence[str], positions: Where, chat: bool
) -> tuple[list[_Prompt], dict[int, str]]:
    """The prompts that can be read, and the reasons why others cannot."""
    failed = {i: "the prompt is empty" for i, text in enumerate(prompts) if not text.strip()}
    asked = [i for i in range(len(prompts)) if i not in failed]
    ids = prompt_ids(tokenizer, [prompts[i] for i in asked], chat)
    found = []
    for i, own, content in zip(asked, ids, _contents(tokenizer, ids, chat)):
        wanted = _positions(positions, len(own), content)
        if isinstance(wanted, str):
            failed[i] = wanted
        else:
            found.append(_Prompt(i, prompts[i], own, content, frozenset(wanted)))
    return found, failed


def _places(sites: Any, contract: Contract) -> list[Place]:
    if sites is None:
        if contract.site is None:
            raise InterpToolkitError("the adapter's file does not name the site it was trained on; pass sites=...")
        return [contract.site]
    if isinstance(sites, SiteStack) or isinstance(contract.site, SiteStack):
        contract.check_site(stack := parse_place(sites))
        return [stack]
    chosen = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str, int)) else sites)]
    return list(dict.fromkeys(chosen))


def _mean(place: Place, contract: Contract, means: Mapping[Site, Tensor]) -> Tensor | None:
    """What is taken off at a place, a row a distance; None for the adapter's own mean."""
    if missing := [site for site in place.sites if site not in means]:
        if place == contract.site and len(missing) == len(place.sites):
            return None
        raise InterpToolkitError(
            f"no mean is known for {missing[0]}, and without one what all vectors share speaks loudest; pass "
            f"means=site_means(model, other_prompts, sites)"
        )
    return torch.cat([torch.atleast_2d(means[site].float().cpu()) for site in place.sites], dim=1)


def _contents(tokenizer: Any, ids: Sequence[Sequence[int]], chat: bool) -> list[tuple[int, int]]:
    """From where to where each prompt's own tokens go: all but what another prompt's ids begin and end with, too."""
    probes = prompt_ids(tokenizer, ["0", "Z"], chat)
    spans = []
    for row in ids:
        start = min(_alike(row, probe) for probe in probes)
        end = len(row) - min(_alike(row[::-1], probe[::-1]) for probe in probes)
        spans.append((start, max(end, start + 1)))
    return spans


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(one, other)) if x != y), min(len(one), len(other)))


def _positions(positions: Where, length: int, content: tuple[int, int]) -> Sequence[int] | str:
    """The asked positions from the first token, or the reason why there are none."""
    start, end = content
    if isinstance(positions, str):
        known = dict(content=range(start, end), all=range(length), last=range(length - 1, length))
        if positions not in known:
            raise InterpToolkitError(
                f"expected positions 'content', 'all', 'last', a number or a list of numbers, got {positions!r}"
            )
        return known[positions]
    if isinstance(positions, int):
        if positions < 1:
            raise InterpToolkitError(f"expected a number of tokens of at least 1, got {positions}")
        return range(max(start, end - positions), end)
    if beyond := [position for position in positions if not -length <= position < length]:
        return f"position {beyond[0]} does not exist: the prompt has {length} tokens"
    return [position % length for position in positions]


def _read(
    model: Any,
    prompts: Sequence[_Prompt],
    places: Sequence[Place],
    taken: Sequence[Mapping[str, Tensor | None]],
    contract: Contract,
    width: int,
) -> tuple[pd.DataFrame, Tensor]:
    """The asked cells, and their centred vectors."""
    if not prompts:
        return _cells({}), torch.zeros(0, width)
    sites = [site for place in places for site in place.sites]
    read = read_activations(model, [prompt.ids for prompt in prompts], sites, "all")
    if isinstance(places[0], SiteStack):
        read = stack_sites(read, places[0])
    rows: Any = read.table
    keep = torch.tensor([row.position in prompts[row.prompt].positions for row in rows.itertuples()])
    owners = [prompts[i] for i in rows["prompt"][keep.numpy()]]
    table: Any = rows[keep.numpy()].assign(
        prompt=[prompt.number for prompt in owners],
        from_end=lambda x: x["position"] - [prompt.content[1] - 1 for prompt in owners],
    )
    values = read.vectors[keep]
    distance = torch.tensor([len(prompt.ids) - 1 for prompt in owners]) - torch.tensor(table["position"].to_numpy())
    for (number, site), here in table.reset_index(drop=True).groupby(["prompt", "site"]).indices.items():
        mean = taken[number][site]
        own = values[here]
        values[here] = contract.centre(own) if mean is None else own - mean[distance[here].clamp(max=len(mean) - 1)]
    return table.reset_index(drop=True), values


def _cells(columns: Any) -> pd.DataFrame:
    """Columns as the cells of a `Grid`."""
    frame: Any = pd.DataFrame(columns).reindex(columns=list(CELLS)).reset_index(drop=True)
    numbers = dict.fromkeys(("prompt", "position", "from_end", "sample"), "int64")
    return frame.astype(numbers | dict(from_subject="Int64", evidence="float64"))
