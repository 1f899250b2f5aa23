"""Reading vectors inside a model: prompts, sites and positions in, vectors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.chat import Prompt, common_length, list_prompts, prompt_ids, turn_start, uses_chat
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import KV, Backend, StopForward, as_hooked_model, backend_of, require_context, require_rows
from interp_toolkit.models.batches import padded_batches, pass_size
from interp_toolkit.models.kept_prefix import KeptPrefix
from interp_toolkit.positions import Positions, parse_positions, token_positions
from interp_toolkit.sites import Place, PlaceLike, Site, SiteLike, SiteStack, parse_place, parse_sites
from interp_toolkit.spans import contents
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults


@dataclass(frozen=True)
class Activations:
    """Vectors read in a model, with where each was read.

    Attributes:
        vectors: one row a reading, float32 on the CPU, raw (not centred).
        table: one row a reading, in the same order: ``prompt`` (its number), ``site``, ``position`` (from the
            prompt's first token), ``token`` (its text). Ordered by prompt, then site as asked, then position as asked.
    """

    vectors: Float[Tensor, "n d_model"]
    table: pd.DataFrame

    __repr__ = brief_repr

    def __len__(self) -> int:
        return len(self.vectors)

    def at(self, site: PlaceLike) -> Float[Tensor, "prompts positions d_model"]:
        """The vectors of one site, as an array by prompt and position.

        Args:
            site: one of those that were read: a `Site`, a hook name, a layer number or a `SiteStack`.

        Returns:
            [prompts, positions, d_model], in the order of the table.

        Raises:
            InterpToolkitError: the site was not read, or prompts have different numbers of positions.

        Example:
            >>> acts = read_activations(model, ["foxes?", "Tell me about bees."], sites=[11, 23], positions=[-2, -1])
            >>> acts.at(23).shape
            torch.Size([2, 2, 576])
        """
        name = str(parse_place(site))
        rows = np.flatnonzero(self.table["site"] == name)
        if not len(rows):
            known = ", ".join(dict.fromkeys(self.table["site"]))
            raise InterpToolkitError(f"expected one of the sites that were read ({known}), got {name}")
        counts = self.table["prompt"].iloc[rows].value_counts()
        if counts.nunique() > 1:
            raise InterpToolkitError(
                f"expected as many positions of each prompt, got {counts.min()} to {counts.max()}; read the same "
                f"positions of all prompts, or select rows by activations.table"
            )
        return self.vectors[torch.from_numpy(rows)].view(len(counts), -1, self.vectors.shape[1])


@plain_defaults()
def read_activations(
    model: Any,
    prompts: Prompt | Iterable[Prompt],
    sites: SiteLike | Sequence[SiteLike] | np.ndarray | SiteStack,
    positions: Positions = "last",
    *,
    chat: bool | None = None,
    progress: bool = False,
) -> Activations:
    """Vectors of many prompts at chosen sites and positions.

    Prompts are run in batches of like length; what all of them begin with is run once, and kept where it is what the
    chat template puts in front (a system turn). A pass ends at the deepest of the sites, and nothing but the asked rows
    is kept of it. Under hooks or replaced forwards of your own, each prompt is run whole and without padding, so that
    what they do to a position is done to that position.

    Args:
        model: a hooked model.
        prompts: texts (read as user turns followed by the generation prompt, or as they are where the model has no chat
            template), lists of messages, or lists of ids. They are numbered in their order; of a data frame's column
            the index is not regarded.
        sites: `Site` values, hook names, or layer numbers (the stream after that block); of a `SiteStack` the vectors
            of a token stand side by side as one.
        positions: ``"last"``, ``"all"``, ``"content"`` for a text's own without the template's, a token position or
            several (negative ones from the end), a slice, or a mask with True or False for each of a prompt's tokens,
            the template's included.
        chat: whether texts go through the chat template; by default where the model has one.
        progress: whether to show a bar.

    Returns:
        `Activations`.

    Raises:
        InterpToolkitError: an empty prompt, one longer than the model's context, a layer or position that does not
            exist.

    Example:
        >>> acts = read_activations(model, ["Tell me about baseball."], sites=[11, 23], positions=[-1])
        >>> acts.vectors.shape
        torch.Size([2, 576])
    """
    model = as_hooked_model(model)
    prompts = list_prompts(prompts)
    tokens = prompt_ids(model.tokenizer, prompts, chat)
    chosen = parse_sites(sites)
    backend = _backend_for(model, tokens, chosen)
    wanted = wanted_positions(model.tokenizer, prompts, tokens, parse_positions(positions), chat)
    vectors = _read(backend, tokens, chosen, wanted, progress)
    read = Activations(vectors, readings_table(model.tokenizer, tokens, chosen, wanted))
    return stack_sites(read, sites) if isinstance(sites, SiteStack) else read


def wanted_positions(
    tokenizer: Any, prompts: Sequence[Prompt], tokens: list[list[int]], positions: Any, chat: bool | None
) -> list[list[int]]:
    """Which tokens of each prompt are read.

    Args:
        tokenizer: of the model.
        prompts: as of `read_activations`.
        tokens: ids of each.
        positions: of `parse_positions`.
        chat: as of `read_activations`.

    Raises:
        InterpToolkitError: a position that does not exist, or ``"content"`` of what is no text.
    """
    if positions != "content":
        return [token_positions(positions, len(row), f"prompt {i}") for i, row in enumerate(tokens)]
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InterpToolkitError(
                f"positions='content' reads a text's own tokens, and prompt {i} is {type(prompt).__name__}; pass "
                f"positions='all' or numbers"
            )
    return [list(range(*span)) for span in contents(tokenizer, tokens, uses_chat(tokenizer, chat))]


def stack_sites(read: Activations, stack: SiteStack) -> Activations:
    """Readings at the sites of a stack, asked for in its order, with those of one token side by side as one vector.

    Returns:
        `Activations` with vectors of width d_model for each site and the stack's name for ``site``.
    """
    first = read.table["site"] == str(stack.sites[0])
    table = read.table[first].reset_index(drop=True).assign(site=str(stack))
    counts = table.groupby("prompt", sort=False).size().tolist()
    return Activations(_side_by_side(read.vectors, counts, len(stack.sites)), table)


def read_token_vectors(
    model: Any, prompts: Sequence[Sequence[int]], place: Place, positions: Sequence[Sequence[int]]
) -> Tensor:
    """Vectors of chosen tokens of each prompt, without a table of them.

    Args:
        model: the hooked model.
        prompts: ids of each.
        place: where to read.
        positions: of the tokens of each prompt, from its first, at least one.

    Returns:
        float32 [tokens, d_model for each site], prompt by prompt.

    Raises:
        InterpToolkitError: as `read_activations` has it.
    """
    tokens = [list(row) for row in prompts]
    backend = _backend_for(model, tokens, list(place.sites))
    wanted = [token_positions(at, len(row), f"prompt {i}") for i, (row, at) in enumerate(zip(tokens, positions))]
    vectors = _read(backend, tokens, list(place.sites), wanted, progress=False)
    return _side_by_side(vectors, [len(at) for at in wanted], len(place.sites))


def _side_by_side(vectors: Tensor, counts: Sequence[int], sites: int) -> Tensor:
    """Vectors ordered by prompt, site and token, with those of a token side by side: [tokens, sites * d_model].

    Args:
        vectors: [tokens for each site, d_model].
        counts: tokens of each prompt.
        sites: at how many sites each was read.
    """
    count = torch.tensor(counts)
    of_prompt = torch.repeat_interleave(torch.arange(len(count)), count)
    before = count.cumsum(0) - count  # tokens of earlier prompts
    first = before[of_prompt] * (sites - 1) + torch.arange(len(of_prompt))
    rows = first[:, None] + torch.arange(sites) * count[of_prompt][:, None]
    return vectors[rows].flatten(1)


def _backend_for(model: Any, tokens: Sequence[Sequence[int]], sites: Sequence[Site]) -> Backend:
    """The model's backend, once prompts and sites have been seen to fit it."""
    backend = backend_of(model)
    if not tokens:
        raise InterpToolkitError("expected at least one prompt, got none")
    for i, row in enumerate(tokens):
        require_context(model, len(row), f"prompt {i}")
        require_rows(len(backend.embedding_weight), row, f"prompt {i}")
    if not sites:
        raise InterpToolkitError("expected at least one site, got none")
    for site in sites:
        backend.require(site)
    return backend


def readings_table(tokenizer: Any, tokens: list[list[int]], sites: list[Site], wanted: list[list[int]]) -> pd.DataFrame:
    """The table of `Activations`: a row for each reading, by prompt, site and position.

    Args:
        tokenizer: of the model.
        tokens: ids of each prompt.
        sites: where they are read, in order.
        wanted: positions in each prompt.
    """
    rows = [(i, site, p) for i, at in enumerate(wanted) for site in map(str, sites) for p in at]
    table = pd.DataFrame(rows, columns=["prompt", "site", "position"])
    ids = [tokens[i][p] for i, _, p in rows]
    text = {token: tokenizer.decode([token]) for token in set(ids)}
    return table.assign(token=[text[token] for token in ids])


@torch.no_grad()
def _read(
    backend: Backend, tokens: list[list[int]], sites: list[Site], wanted: list[list[int]], progress: bool
) -> Tensor:
    past = _past(backend, tokens, min(min(at) for at in wanted))
    shared = past.total if past else 0
    # Row of each prompt's first reading in the result; sites then positions within.
    counts = np.array([len(sites) * len(at) for at in wanted])
    starts = np.concatenate([[0], np.cumsum(counts)])
    out = torch.empty(int(starts[-1]), backend.d_model)
    at_once = pass_size(backend.device).tokens
    bar = tqdm(total=len(tokens), desc="reading", unit="prompt", disable=not progress)
    for batch in padded_batches(backend, [len(row) - shared for row in tokens], tokens=at_once):
        width = max(len(tokens[i]) - shared for i in batch)
        padded = torch.zeros(len(batch), width, dtype=torch.long)
        for row, i in enumerate(batch):
            padded[row, : len(tokens[i]) - shared] = torch.tensor(tokens[i][shared:])
        rows = torch.tensor([row for row, i in enumerate(batch) for _ in wanted[i]])
        columns = torch.tensor([p - shared for i in batch for p in wanted[i]])
        seen: dict[Site, Tensor] = {}

        def keep(site: Site, x: Tensor, rows: Tensor = rows, columns: Tensor = columns, seen: dict = seen) -> None:
            seen[site] = x[rows.to(x.device), columns.to(x.device)].float().cpu()
            if len(seen) == len(set(sites)):
                raise StopForward

        edits = {site: (lambda x, site=site: keep(site, x)) for site in sites}
        backend.visit(padded.to(backend.device), past, edits)
        lengths = [len(wanted[i]) for i in batch]
        for k, site in enumerate(sites):
            for i, part in zip(batch, seen[site].split(lengths)):
                at = int(starts[i]) + k * len(part)
                out[at : at + len(part)] = part
        bar.update(len(batch))
    bar.close()
    return out


def _past(backend: Backend, tokens: list[list[int]], first: int) -> KV | None:
    """What all rows begin with, before the first position that is read; kept where the template puts it there."""
    if backend.whole(max(map(len, tokens))):
        return None
    start = turn_start(backend.model.tokenizer)
    alone = len(tokens) == 1
    shared = len(start) if alone else min(_common_prefix(tokens), first)
    ids = tokens[0][:shared]
    if ids and ids == start and shared <= first:
        return backend.store.setdefault((KeptPrefix, tuple(ids)), KeptPrefix(backend, ids)).past
    # A row alone shares nothing with others, and one pass takes it all.
    return backend.prefix(torch.tensor([ids], device=backend.device)) if ids and not alone else None


def _common_prefix(rows: list[list[int]]) -> int:
    """Length of what all rows begin with, leaving at least one token to each."""
    return min(common_length(min(rows), max(rows)), min(map(len, rows)) - 1)


# A mean over fewer prompts than this would hold too much of each.
_FEWEST = 8


@plain_defaults()
def site_means(
    model: Any, prompts: Iterable[str], sites: SiteLike | Sequence[SiteLike] | np.ndarray, *, chat: bool = False
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
        >>> find_bridge_entities(model, prompts, bridges, adapter, sites=[19, 23, 27], center=means)
    """
    prompts = list_prompts(prompts)
    if len(prompts) < 2:
        raise InterpToolkitError(f"expected at least two prompts to take a mean over, got {len(prompts)}")
    ids = prompt_ids(model.tokenizer, prompts, chat)
    starts = [start for start, _ in contents(model.tokenizer, ids, chat)]
    lengths = sorted((len(row) - start for row, start in zip(ids, starts)), reverse=True)
    rows = max(1, lengths[min(_FEWEST, len(lengths)) - 1])
    chosen = parse_sites(sites)
    read = read_activations(model, ids, chosen, "all")
    prompt, position = (read.table[name].to_numpy() for name in ("prompt", "position"))
    distance = np.array([len(row) for row in ids])[prompt] - 1 - position
    in_content = position >= np.array(starts)[prompt]
    means = {}
    for site in dict.fromkeys(chosen):
        here = torch.from_numpy(in_content & (read.table["site"] == str(site)).to_numpy())
        index = torch.from_numpy(distance.clip(max=rows - 1))[here]
        sums = torch.zeros(rows, read.vectors.shape[1]).index_add(0, index, read.vectors[here])
        means[site] = sums / index.bincount(minlength=rows)[:, None]
    return means
