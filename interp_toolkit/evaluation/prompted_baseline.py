"""The prompted baseline: what a model says about a topic when asked, beside the description of the topic's vector."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import JsonCache
from interp_toolkit.chat import encode, prompt_ids, uses_chat
from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import description_ranks
from interp_toolkit.models import require_context
from interp_toolkit.results import read_result
from interp_toolkit.runtime.answers import MAX_NEW_TOKENS, plain_answers
from interp_toolkit.statistics import mean_interval, proportion_interval
from interp_toolkit.torch_defaults import plain_defaults

QUESTION = "What is {title}? Answer in one sentence, without using its name."
ADAPTER, PROMPTED, GAP = "adapter", "prompted", "gap"
# Titles asked about at a time and cached together: what an interruption can lose.
_SHARD = 256
_EXAMPLES = 12


@dataclass(frozen=True)
class PromptedDescription:
    """A model's answer to a question about a title.

    Attributes:
        text: as the model wrote it; small models often name the title although the question forbids it.
        redacted: the same without the title's name, see `redact`.
    """

    text: str
    redacted: str

    @property
    def names_title(self) -> bool:
        """Whether the text named the title."""
        return self.redacted != _tidy(self.text)


@dataclass(frozen=True, eq=False)
class BaselineRanks:
    """Ranks of titles by the descriptions of one model.

    Attributes:
        model: its name.
        parameters: its number of parameters.
        adapter: rank of each title by the adapter's description of its vector.
        prompted: rank of each title by the model's redacted answer.
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
    """Ask the model to describe each title without naming it, greedily.

    A control for what the model knows (arXiv 2602.10352, section 4). The exact name is removed afterwards, since a
    text that names the title finds it, whatever else it says.

    Args:
        model: the hooked model.
        titles: topics.
        question: what the user says, with ``{title}`` in it.
        max_new_tokens: longest answer, in tokens.
        chat: whether the question is a user's turn; by default where the model has a chat template. A base model
            continues the question as plain text; a question such as ``"{title} is"`` suits it better.
        progress: whether to show a bar, in titles.

    Raises:
        InterpToolkitError: an empty title, one too long for the model's context, a question without ``{title}``, or
            ``chat=True`` without a chat template.

    Example:
        >>> prompted_descriptions(model, ["Baseball"])[0].redacted
    """
    if "{title}" not in question:
        raise InterpToolkitError(f"expected a question with {{title}} in it, got {question!r}")
    if empty := [i for i, title in enumerate(titles) if not title.strip()]:
        raise InterpToolkitError(f"title {empty[0]} is empty; leave it out")
    prompts = [_prompt(question, title) for title in titles]
    texts = plain_answers(model, prompts, max_new_tokens=max_new_tokens, chat=chat, progress=progress)
    return [PromptedDescription(text, redact(text, title)) for text, title in zip(texts, titles)]


def redact(text: str, title: str) -> str:
    """Remove a title's name from a text: the whole title, and what stands before, in and behind its parentheses.

    Case does not matter, and a name within a longer word stays.

    Example:
        >>> redact("mercury is the first planet, and not mercurial.", "Mercury (planet)")
        'is the first , and not mercurial.'
    """
    title = _tidy(title)
    pieces = [piece.strip() for piece in re.split(r"[()]", title)]
    names = {title, *(piece for piece in pieces if any(map(str.isalnum, piece)))}
    # The longest first, so that no piece is removed from a name before the whole name is found.
    patterns = [re.escape(name) for name in sorted(names, key=lambda x: (-len(x), x))]
    named = rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)"
    return _tidy(re.sub(named, " ", _tidy(text), flags=re.IGNORECASE))


@plain_defaults()
def baseline_ranks(
    model: str,
    parameters: int,
    described: Sequence[str],
    prompted: Sequence[PromptedDescription],
    embed: Callable[[list[str]], Tensor],
    index: Float[Tensor, "entries width"],
    answers: Int[Tensor, " titles"],
) -> BaselineRanks:
    """Rank the same titles by both kinds of description, in the same index; see `description_ranks`.

    Args:
        model: its name.
        parameters: its number of parameters.
        described: the adapter's description of each title's vector, one per title.
        prompted: of the same titles, see `prompted_descriptions`.
        embed: from texts to their embeddings, [texts, width].
        index: embeddings of all entries, from the same embedder.
        answers: number of each title in the index.

    Raises:
        InterpToolkitError: counts that differ, or an answer that is no entry.
    """
    adapter_ranks, prompted_ranks = (
        description_ranks([[text] for text in texts], embed, index, answers)[:, 0] if len(texts) else answers[:0]
        for texts in (described, [one.redacted for one in prompted])
    )
    return BaselineRanks(model, parameters, adapter_ranks, prompted_ranks)


@renamed_arguments(found="ranks")
def baseline_gap(ranks: Sequence[BaselineRanks], at: Sequence[int] = (1, 5, 10, 100), seed: int = 0) -> pd.DataFrame:
    """Compare retrieval by an adapter's descriptions with retrieval by prompted ones, for any list of models.

    The gap is paired by title: adapter less prompted. Drawn over ``parameters`` it is the scaling curve.

    Args:
        ranks: one per model, see `baseline_ranks`.
        at: depths k of recall@k.
        seed: of the bootstrap.

    Returns:
        one row per model, source and measure: columns ``model``, ``parameters``, ``source`` (``adapter``, ``prompted``,
        ``gap``), ``measure`` (``recall@k``, ``mrr``), ``value``, ``low``, ``high`` (95%
        over titles, by Wilson for recall and by the bootstrap for the rest), ``n``, ``seed``.

    Raises:
        InterpToolkitError: no model, or a model that has no titles or counts that differ.

    Example:
        >>> table = baseline_gap([small, large])
        >>> table[(table.source == "gap") & (table.measure == "recall@10")]
    """
    if not ranks:
        raise InterpToolkitError("expected the ranks of at least one model, got none")
    rows = []
    for one in ranks:
        if len(one.adapter) != len(one.prompted) or not len(one.adapter):
            raise InterpToolkitError(
                f"expected ranks of the same titles by both kinds of description, got {len(one.adapter)} and "
                f"{len(one.prompted)} of {one.model}"
            )
        adapter, prompted = _measures(one.adapter, at), _measures(one.prompted, at)
        gap = {name: adapter[name].double() - prompted[name].double() for name in adapter}
        for source, values in {ADAPTER: adapter, PROMPTED: prompted, GAP: gap}.items():
            for measure, by_title in values.items():
                row = dict(model=one.model, parameters=one.parameters, source=source, measure=measure)
                rows.append(row | mean_interval(by_title, seed=seed).to_dict())
    return pd.DataFrame(rows).drop(columns="clusters")


def _measures(ranks: Tensor, at: Sequence[int]) -> dict[str, Tensor]:
    """The measures of `recall_table`, by title."""
    return {f"recall@{k}": ranks <= k for k in at} | {"mrr": 1 / ranks.double()}


def _tidy(text: str) -> str:
    """Compose accents, and put one space between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _prompt(question: str, title: str) -> str:
    # Not str.format: a title may hold braces, and so may a question.
    return question.replace("{title}", title)


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    return context.facts | dict(
        task="prompted_baseline",
        adapter=adapter.digest,
        parameters=_parameters(context),
        n=len(context.titles.held_out),
        question=QUESTION,
        max_new_tokens=MAX_NEW_TOKENS,
        protocol=GREEDY,
    )


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Look up one greedy description of each held-out title, the adapter's and the model's answer when asked.

    Returns:
        ``tables``: ``knowledge`` (see `baseline_gap`) and ``named`` (the share of answers from which the title's name
        was removed); ``failed`` rows; and ``examples``.
    """
    held_out = HeldOut.read(context, adapter)
    answers, failed = _cached_descriptions(context, held_out.titles)
    rows = [i for i, title in enumerate(held_out.titles) if title in answers]
    titles = [held_out.titles[i] for i in rows]
    prompted = [answers[title] for title in titles]
    texts = context.describe_greedily(adapter, held_out.vectors)
    described = [texts[i] for i in rows]
    ranks = baseline_ranks(
        context.facts["model"],
        _parameters(context),
        described,
        prompted,
        context.embed,
        context.index,
        context.answers(titles),
    )
    named = proportion_interval([one.names_title for one in prompted])
    return dict(
        tables=dict(knowledge=baseline_gap([ranks], seed=SEED), named=[dict(measure="title named") | named.to_dict()]),
        failed=held_out.failed + failed,
        examples=[
            dict(title=title, adapter=text) | asdict(one)
            for title, text, one in zip(titles[:_EXAMPLES], described, prompted)
        ],
    )


def _parameters(context: EvalContext) -> int:
    return sum(parameter.numel() for parameter in context.model.parameters())


def _cached_descriptions(
    context: EvalContext, titles: Sequence[str]
) -> tuple[dict[str, PromptedDescription], list[dict[str, str]]]:
    """Prompted descriptions by title, cached shard by shard, and the titles that cannot be asked about."""
    reasons = {title: reason for title in titles if (reason := _reason(context.model, title))}
    # Prompts of one length are decoded together, so a shard should have few lengths.
    order = sorted(
        (title for title in titles if title not in reasons),
        key=lambda title: (len(encode(context.model.tokenizer, title)), title),
    )
    cache, key = JsonCache("prompted"), [*context.key(sys.modules[__name__]), QUESTION, MAX_NEW_TOKENS]
    described: dict[str, PromptedDescription] = {}
    shards = [order[i : i + _SHARD] for i in range(0, len(order), _SHARD)]
    for shard in tqdm(shards, desc="asking", unit="shard", disable=not context.progress):
        rows = cache.get(
            [*key, shard], lambda shard=shard: [asdict(x) for x in prompted_descriptions(context.model, shard)]
        )
        described |= {title: PromptedDescription(**row) for title, row in zip(shard, rows)}
    return described, [dict(title=title, reason=reason) for title, reason in reasons.items()]


def _reason(model: Any, title: str) -> str | None:
    """Why a model cannot be asked about a title, None where it can."""
    if not title.strip():
        return "the title is empty"
    (ids,) = prompt_ids(model.tokenizer, [_prompt(QUESTION, title)], uses_chat(model.tokenizer, None))
    try:
        require_context(model, len(ids) + MAX_NEW_TOKENS - 1, "the question with its answer")
    except InterpToolkitError as error:
        return str(error)
    return None


def scaling_table(results: Sequence[str | Path]) -> pd.DataFrame:
    """Join the tables of several models' results, by size: the scaling curve, with ``parameters`` along it.

    Args:
        results: results files of this evaluation, one per model.

    Returns:
        as `baseline_gap`.

    Raises:
        InterpToolkitError: no file.
        FileFormatError: a file that holds something else.

    Example:
        >>> table = scaling_table(sorted(folder.glob("prompted_baseline*.json")))
        >>> table[table.measure == "recall@10"].pivot(index="parameters", columns="source", values="value")
    """
    if not results:
        raise InterpToolkitError("expected at least one result of a prompted baseline, got none")
    tables = [_gap_of_result(Path(path)) for path in results]
    return pd.concat(tables, ignore_index=True).sort_values("parameters", kind="stable", ignore_index=True)


def _gap_of_result(path: Path) -> pd.DataFrame:
    result = read_result(path)
    try:
        table = pd.DataFrame(result["tables"]["knowledge"])
        return table.assign(parameters=pd.to_numeric(table["parameters"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"expected a result of a prompted baseline at {path}: {error!r}") from error


EVALUATION = Evaluation(_settings, _measure)
