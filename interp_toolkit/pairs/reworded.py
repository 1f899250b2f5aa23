"""Topic vectors in many wordings and at several tokens of a prompt."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.chat import has_chat_template
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.pairs import checks
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.pairs.topics import check_titles
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.sites import PlaceLike, parse_place
from interp_toolkit.spans import Span, find_spans
from interp_toolkit.torch_defaults import plain_defaults

TopicToken = Literal["title", "content", "last"]
"""The title's last token, the last token of the prompt's own text, or the last of all, behind the chat template."""

# Topics read and stored at a time.
_SHARD = 256


@plain_defaults()
def reworded_topic_pairs(
    model: Any,
    titles: Iterable[str],
    site: PlaceLike,
    *,
    wordings: Sequence[str] = WORDINGS,
    per_topic: int = 2,
    tokens: Sequence[TopicToken] = ("title", "last"),
    plain_share: float = 0.2,
    labels: Sequence[Sequence[str]] | None = None,
    splits: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: bool = False,
) -> VectorLabelPairs:
    """Make pairs of topics that prompts speak of in many wordings, read at several tokens.

    An adapter that has seen one wording reads others badly, since what a wording adds to every vector is most of the
    difference. Each topic is put into a few drawn wordings; what was read is stored in the cache folder. Vectors are
    centred by the mean over those of the training topics.

    Args:
        model: the hooked model.
        titles: topics.
        site: where to read, at one site or at a stack.
        wordings: texts with ``{title}`` in them.
        per_topic: wordings drawn for each topic, without repetition.
        tokens: which tokens of each prompt are read.
        plain_share: share of the prompts that are read as plain text and not as user turns, where the model has a chat
            template.
        labels: for each topic its labels; by default the title.
        splits: ``"train"`` or ``"val"`` for each topic; by default ``val_fraction`` of them is drawn by ``seed``.
        val_fraction: share of the topics that is held out.
        seed: of all draws.
        progress: whether to show a bar, in topics.

    Returns:
        the pairs, topic by topic; all of a topic are on one side.

    Raises:
        InterpToolkitError: an empty title, a wording without a place for a title, more wordings for each topic than
            there are, no training topic, or a site that the model does not have.

    Example:
        >>> pairs = reworded_topic_pairs(model, ["Baseball", "Poland", ...], SiteStack([4, 10, 16, 23]))
    """
    titles = list(titles)
    check_titles(titles)
    if bad := [wording for wording in wordings if "{title}" not in wording]:
        raise InterpToolkitError(f"expected {{title}} in each wording, got {bad[0]!r}")
    if not 1 <= per_topic <= len(wordings):
        raise InterpToolkitError(f"expected per_topic of 1 to {len(wordings)}, the number of wordings, got {per_topic}")
    texts: Sequence[str | Sequence[str]] = titles if labels is None else list(labels)
    if len(texts) != len(titles):
        raise InterpToolkitError(f"expected labels for each title, got {len(titles)} titles and {len(texts)} lists")
    sides = checks.draw_splits(len(titles), val_fraction, seed) if splits is None else splits
    if len(sides) != len(titles) or "train" not in sides:
        raise InterpToolkitError(f"expected a split for each of {len(titles)} titles, at least one of them 'train'")
    model, place, rng = as_hooked_model(model), parse_place(site), random.Random(seed)
    templated, key = has_chat_template(model.tokenizer), cache_key(model)
    drawn = [
        (i, wording, templated and rng.random() >= plain_share)
        for i in range(len(titles))
        for wording in rng.sample(list(wordings), per_topic)
    ]
    vectors: list[Tensor] = []
    topic_of: list[int] = []
    with tqdm(total=len(titles), desc="topics in wordings", unit="title", disable=not progress) as bar:
        for start in range(0, len(drawn), _SHARD * per_topic):
            shard = drawn[start : start + _SHARD * per_topic]
            for chat in (True, False):
                prompts = [(i, wording.replace("{title}", titles[i])) for i, wording, x in shard if x == chat]
                spans, failed = find_spans(model.tokenizer, [text for _, text in prompts], "content", chat)
                if failed:
                    number, reason = next(iter(failed.items()))
                    raise InterpToolkitError(f"the prompt {prompts[number][1]!r:.80} cannot be read: {reason}")
                topics = [prompts[span.number][0] for span in spans]
                positions = [
                    topic_positions(model.tokenizer, span, titles[i], tokens) for span, i in zip(spans, topics)
                ]
                vectors.append(token_vectors(model, [span.ids for span in spans], place, positions, key))
                topic_of += [i for i, at in zip(topics, positions) for _ in at]
            bar.update(len({i for i, _, _ in shard}))
    order = sorted(range(len(topic_of)), key=topic_of.__getitem__)
    joined = torch.cat(vectors)[torch.tensor(order)]
    sorted_topics = [topic_of[i] for i in order]
    row_splits = [sides[i] for i in sorted_topics]
    mean = joined[torch.tensor([side == "train" for side in row_splits])].mean(0)
    facts = model_facts(model)
    origin = dict(
        model=facts.model_id,
        revision=facts.revision,
        source="topics in many wordings",
        wordings=str(len(wordings)),
        tokens=" ".join(tokens),
        chat=str(templated) if not templated or plain_share == 0 else "mixed",
    )
    row_labels = [texts[i] for i in sorted_topics]
    return VectorLabelPairs.from_tensors(
        joined - mean, row_labels, splits=row_splits, site=place, mean=mean, origin=origin
    )


def topic_positions(tokenizer: Any, span: Span, title: str, tokens: Sequence[TopicToken]) -> list[int]:
    """Positions of the tokens that are read in a prompt; one that is several of them is read once.

    Args:
        tokenizer: of the model.
        span: the prompt, see `interp_toolkit.spans.find_spans`.
        title: the topic, whose name is in the prompt.
        tokens: which are read.
    """
    end = span.content[1] - 1
    of_title = span.end_of(tokenizer, title)
    by_name = dict(title=end if of_title is None else of_title, content=end, last=len(span.ids) - 1)
    return list(dict.fromkeys(by_name[name] for name in tokens))
