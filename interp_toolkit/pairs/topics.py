"""Contrastive topic vectors: the residual stream after a question about a topic, less what it always holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_activations
from interp_toolkit.cache import TensorCache
from interp_toolkit.chat import prompt_ids, uses_chat
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.pairs import checks
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.token_vectors import cache_key
from interp_toolkit.sites import PlaceLike, Site, SiteLike, parse_place, parse_sites
from interp_toolkit.torch_defaults import plain_defaults

PROMPT = "Tell me about {title}."
# Titles read and stored at a time: what an interruption can lose, and how often the bar moves.
_SHARD = 256


def topic_vectors(
    model: Any, titles: Iterable[str], site: PlaceLike, *, chat: bool | None = None, progress: bool = False
) -> Tensor:
    """Read raw residual streams at the last token of the prompt ``Tell me about {title}.``

    The prompt is a user's turn in the chat template, at whose end the model is about to answer. A base model, which has
    none, reads it as plain text, and its last token is the full stop.

    Args:
        model: the hooked model.
        titles: topics.
        site: where to read; the vectors of several stand side by side (see `topic_vectors_by_site` to have them apart).
        chat: whether the prompt is a user's turn; by default where the model has a chat template.
        progress: whether to show a bar.

    Returns:
        float32 [titles, d_model for each site], not centred.

    Raises:
        InterpToolkitError: an empty title, or a site that the model does not have.
    """
    sites: tuple[Site, ...] = parse_place(site).sites
    by_site = topic_vectors_by_site(model, titles, sites, chat=chat, progress=progress)
    vectors = [by_site[x] for x in sites]
    return torch.cat(vectors, dim=1) if len(vectors) > 1 else vectors[0]


@plain_defaults()
def topic_vectors_by_site(
    model: Any, titles: Iterable[str], sites: Sequence[SiteLike], *, chat: bool | None = None, progress: bool = False
) -> dict[Site, Tensor]:
    """Read `topic_vectors` at several sites, for which the model runs once.

    They are read in shards of titles that are stored in the cache folder, one file per shard and site, named for what
    is in it: the model's weights, the prompt as the model reads it, site and titles. So an interrupted call goes on,
    and titles added at the end leave all shards but the last unfilled one as they are. Under hooks or replaced
    forwards of your own nothing is taken from there or stored.

    Args:
        model: the hooked model.
        titles: topics.
        sites: where to read.
        chat: see `topic_vectors`.
        progress: whether to show a bar, in titles.

    Returns:
        For each site float32 [titles, d_model], not centred.

    Raises:
        InterpToolkitError: an empty title, no site, or a site that the model does not have.

    Example:
        >>> by_site = topic_vectors_by_site(model, ["Baseball", "Poland"], [11, 23])
        >>> by_site[Site.after(23)].shape
        torch.Size([2, 576])
    """
    wanted = list(dict.fromkeys(parse_sites(sites)))
    if not wanted:
        raise InterpToolkitError("expected at least one site, got none")
    check_titles(titles := _as_list(titles))
    model = as_hooked_model(model)
    width, rendered = model_facts(model).d_model, _rendered(model.tokenizer, chat)
    weights = cache_key(model)
    cache = TensorCache("topics")
    out = {site: torch.empty(len(titles), width) for site in wanted}
    with tqdm(total=len(titles), desc="topic vectors", unit="title", disable=not progress) as bar:
        for start in range(0, len(titles), _SHARD):
            shard = list(titles[start : start + _SHARD])
            keys = {site: [weights, str(site), rendered, shard] for site in wanted}
            entries = {site: cache.load(key) if weights else None for site, key in keys.items()}
            if missing := [site for site, entry in entries.items() if entry is None]:
                for site, vectors in _read(model, shard, missing, chat).items():
                    entries[site] = {"vectors": vectors}
                    if weights:
                        cache.save(keys[site], {"vectors": vectors})
            for site, entry in entries.items():
                assert entry is not None
                out[site][start : start + len(shard)] = entry["vectors"]
            bar.update(len(shard))
    return out


@plain_defaults()
def topic_pairs(
    model: Any,
    titles: Iterable[str],
    site: PlaceLike,
    *,
    labels: Sequence[Sequence[str]] | None = None,
    splits: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    chat: bool | None = None,
    progress: bool = False,
) -> VectorLabelPairs:
    """Make pairs of contrastive topic vectors and their labels, centred by the mean over the training topics.

    arXiv 2602.10352, section 3; without centring topic adapters lose almost everything. Several sites make one vector,
    for an adapter that reads them together. For a set of pairs at each of several sites, call `topic_vectors_by_site`
    first: this takes what it stored.

    Args:
        model: the hooked model.
        titles: topics.
        site: where to read, at one site or at several of the same token.
        labels: for each title its labels (see `read_topics`); by default the title.
        splits: ``"train"`` or ``"val"`` for each title; by default ``val_fraction`` of them is drawn by ``seed``.
        val_fraction: share of the titles that is held out.
        seed: of that draw.
        chat: see `topic_vectors`; an adapter that is trained on the pairs reads prompts in the same way.
        progress: whether to show a bar, in titles.

    Raises:
        InterpToolkitError: an empty title, no training topic, a site that the model does not have, or labels that
            `VectorLabelPairs.from_tensors` refuses.

    Example:
        >>> pairs = topic_pairs(model, ["Baseball", "Poland", ...], "blocks.23.hook_resid_post")
    """
    titles = _as_list(titles)
    texts: Sequence[str | Sequence[str]] = titles if labels is None else list(labels)
    if len(texts) != len(titles):
        raise InterpToolkitError(f"expected labels for each title, got {len(titles)} titles and {len(texts)} lists")
    # Mistakes in them are found before the model is run, which may take hours.
    check_titles(titles)
    checks.check_labels(checks.group_labels(texts), lambda row: f"topic {row} ({titles[row]!r})")
    sides = checks.draw_splits(len(titles), val_fraction, seed) if splits is None else splits
    if len(sides) != len(titles):
        raise InterpToolkitError(f"expected a split for each title, got {len(titles)} titles and {len(sides)} splits")
    checks.check_splits_and_weights(sides, [], lambda row: f"topic {row} ({titles[row]!r})")
    train = torch.tensor([side == "train" for side in sides])
    if not train.any():
        raise InterpToolkitError(f"expected at least one training topic among {len(titles)}, got none")
    model = as_hooked_model(model)
    facts = model_facts(model)
    vectors = topic_vectors(model, titles, site, chat=chat, progress=progress)
    mean = vectors[train].mean(0)
    vectors -= mean
    origin = dict(
        model=facts.model_id,
        revision=facts.revision,
        prompt=PROMPT,
        chat=str(uses_chat(model.tokenizer, chat)),
        source="contrastive topic vectors",
    )
    return VectorLabelPairs.from_tensors(vectors, texts, splits=sides, site=site, mean=mean, origin=origin)


def check_titles(titles: Sequence[str]) -> None:
    """Refuse titles that are no texts or are empty.

    Raises:
        InterpToolkitError: the text names the topic.
    """
    for row, title in enumerate(titles):
        if not isinstance(title, str):
            raise InterpToolkitError(f"expected a text for the title of topic {row}, got {title!r:.60}; leave it out")
        if not title.strip():
            raise InterpToolkitError(f"topic {row} has an empty title; leave it out")


def _as_list(titles: Iterable[str]) -> list[str]:
    """Titles by their position, whatever holds them: a column of a data frame goes by an index of its own."""
    if isinstance(titles, str):
        raise InterpToolkitError(f"expected a list of titles, got one text, {titles!r:.60}; put it into a list")
    return list(titles)


def _read(model: Any, titles: list[str], sites: list[Site], chat: bool | None) -> dict[Site, Tensor]:
    prompts = prompt_ids(model.tokenizer, [PROMPT.format(title=title) for title in titles], chat)
    vectors = read_activations(model, prompts, sites).vectors
    # Readings are ordered by prompt, then by site.
    return {site: vectors[number :: len(sites)].contiguous() for number, site in enumerate(sites)}


def _rendered(tokenizer: Any, chat: bool | None) -> list[int]:
    """The prompt as the model reads it: another template, another date in it or plain text make other vectors."""
    return prompt_ids(tokenizer, [PROMPT], chat)[0]
