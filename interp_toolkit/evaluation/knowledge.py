"""What a model says of a topic when it is asked outright, beside what an adapter says of the topic's vector."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.protocols import description_ranks
from interp_toolkit.runtime.answers import MAX_NEW_TOKENS, plain_answers
from interp_toolkit.statistics import mean_interval
from interp_toolkit.torch_defaults import plain_defaults

QUESTION = "What is {title}? Answer in one sentence, without using its name."
ADAPTER, PROMPTED, GAP = "adapter", "prompted", "gap"


@dataclass(frozen=True)
class PromptedDescription:
    """What the model said of a title when it was asked.

    Attributes:
        text: as it was written; small models often name the title although they were asked not to.
        redacted: the same without the title's name, see `redact`.
    """

    text: str
    redacted: str

    @property
    def names_title(self) -> bool:
        """Whether a name had to be taken out."""
        return self.redacted != _tidy(self.text)


@dataclass(frozen=True, eq=False)
class KnowledgeRanks:
    """How well the titles of one model are found by what was said of them.

    Attributes:
        model: its name.
        parameters: how many numbers it has.
        adapter: rank of each title by the adapter's description of its vector.
        prompted: rank of each title by the redacted description that the model gave when asked.
    """

    model: str
    parameters: int
    adapter: Tensor
    prompted: Tensor


@plain_defaults()
def prompted_descriptions(
    model: Any,
    titles: Sequence[str],
    *,
    question: str = QUESTION,
    max_new_tokens: int = MAX_NEW_TOKENS,
    chat: bool | None = None,
    progress: bool = False,
) -> list[PromptedDescription]:
    """What the model says of each title when asked to describe it without naming it, greedily.

    A control for what the model knows (arXiv 2602.10352, section 4). The exact name is taken out afterwards, since a
    text that names the title finds it, whatever else it says.

    Args:
        model: the hooked model.
        titles: topics.
        question: what the user says, with ``{title}`` in it.
        max_new_tokens: longest answer, in tokens.
        chat: whether the question is a user's turn; by default where the model has a chat template. A base model goes
            on with the question as plain text; one such as ``"{title} is"`` suits it better.
        progress: whether to show a bar, in titles.

    Raises:
        InterpToolkitError: an empty title, a question without ``{title}``, or ``chat=True`` without a chat template.

    Example:
        >>> prompted_descriptions(model, ["Baseball"])[0].redacted
    """
    if "{title}" not in question:
        raise InterpToolkitError(f"expected a question with {{title}} in it, got {question!r}")
    if empty := [i for i, title in enumerate(titles) if not title.strip()]:
        raise InterpToolkitError(f"title {empty[0]} is empty; leave it out")
    # Not str.format: a title may hold braces, and so may a question.
    prompts = [question.replace("{title}", title) for title in titles]
    texts = plain_answers(model, prompts, max_new_tokens=max_new_tokens, chat=chat, progress=progress)
    return [PromptedDescription(text, redact(text, title)) for text, title in zip(texts, titles)]


def redact(text: str, title: str) -> str:
    """A text without a title's name: the whole of it, and what stands before, in and behind its parentheses.

    Case does not matter, and a name within a longer word is left.

    Example:
        >>> redact("mercury is the first planet, and not mercurial.", "Mercury (planet)")
        'is the first , and not mercurial.'
    """
    title = _tidy(title)
    parts = [part.strip() for part in re.split(r"[()]", title)]
    names = {title, *(part for part in parts if any(map(str.isalnum, part)))}
    # The longest first, so that no part is taken out of a name before the whole of it is found.
    patterns = [re.escape(name) for name in sorted(names, key=lambda x: (-len(x), x))]
    named = rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)"
    return _tidy(re.sub(named, " ", _tidy(text), flags=re.IGNORECASE))


@plain_defaults()
def knowledge_ranks(
    model: str,
    parameters: int,
    described: Sequence[str],
    prompted: Sequence[PromptedDescription],
    embed: Callable[[list[str]], Tensor],
    index: Float[Tensor, "entries width"],
    answers: Int[Tensor, " titles"],
) -> KnowledgeRanks:
    """Ranks of the same titles by both kinds of description, in the same index; see `description_ranks`.

    Args:
        model: its name.
        parameters: how many numbers it has.
        described: the adapter's description of each title's vector, one a title.
        prompted: of the same titles, see `prompted_descriptions`.
        embed: from texts to their embeddings, [texts, width].
        index: embeddings of all entries, from the same embedder.
        answers: number of each title in the index.

    Raises:
        InterpToolkitError: counts that differ, or an answer that is no entry.
    """
    adapter, asked = (
        description_ranks([[text] for text in texts], embed, index, answers)[:, 0] if len(texts) else answers[:0]
        for texts in (described, [told.redacted for told in prompted])
    )
    return KnowledgeRanks(model, parameters, adapter, asked)


def knowledge_gap(found: Sequence[KnowledgeRanks], at: Sequence[int] = (1, 5, 10, 100), seed: int = 0) -> pd.DataFrame:
    """What an adapter's descriptions find, what the model's prompted ones find, and the gap, for any list of models.

    The gap is paired by title: adapter less prompted. Drawn over ``parameters`` it is the scaling curve.

    Args:
        found: one a model, see `knowledge_ranks`.
        at: depths k of recall@k.
        seed: of the bootstrap.

    Returns:
        one row a model, source and measure: columns ``model``, ``parameters``, ``source`` (``adapter``, ``prompted``,
        ``gap``), ``measure`` (``recall@k``, ``mrr``), ``value``, ``low``, ``high`` (95%
        over titles, by Wilson for recall and by the bootstrap for the rest), ``n``, ``seed``.

    Raises:
        InterpToolkitError: no model, or one without a title or with counts that differ.

    Example:
        >>> table = knowledge_gap([small, large])
        >>> table[(table.source == "gap") & (table.measure == "recall@10")]
    """
    if not found:
        raise InterpToolkitError("expected the ranks of at least one model, got none")
    rows = []
    for one in found:
        if len(one.adapter) != len(one.prompted) or not len(one.adapter):
            raise InterpToolkitError(
                f"expected ranks of the same titles by both kinds of description, got {len(one.adapter)} and "
                f"{len(one.prompted)} of {one.model}"
            )
        adapter, prompted = _measures(one.adapter, at), _measures(one.prompted, at)
        gap = {name: adapter[name].double() - prompted[name].double() for name in adapter}
        for source, values in {ADAPTER: adapter, PROMPTED: prompted, GAP: gap}.items():
            for measure, each in values.items():
                of = dict(model=one.model, parameters=one.parameters, source=source, measure=measure)
                rows.append(of | mean_interval(each, seed=seed).to_dict())
    return pd.DataFrame(rows).drop(columns="clusters")


def _measures(ranks: Tensor, at: Sequence[int]) -> dict[str, Tensor]:
    """What `recall_table` takes the means of, by title."""
    return {f"recall@{k}": ranks <= k for k in at} | {"mrr": 1 / ranks.double()}


def _tidy(text: str) -> str:
    """One way to write accents, and one space between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())
