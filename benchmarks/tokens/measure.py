"""What adapters say of topics in wordings that none was trained on, and of the tokens of ordinary text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.tokens.training import passages
from interp_toolkit import Adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.evaluation import recall_table
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.pairs.context import tokens_in_words
from interp_toolkit.pairs.phrases import Word, split_words
from interp_toolkit.pairs.reworded import topic_positions
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.results import finished_result, intervals_by_measure, make_result, write_result
from interp_toolkit.spans import contents, find_spans
from interp_toolkit.statistics import paired_difference, proportion_interval

# Of training, and five that no adapter was trained on; these choose nothing.
TRAINED = ("Tell me about {title}.",)
UNTRAINED = (
    "What do you know about {title}?",
    "I have a question about {title}.",
    "Write a short poem on {title}.",
    "Where can I find out more about {title}?",
    "My teacher mentioned {title} this morning.",
)
_TITLES, _TEXTS, _PER_TEXT = 400, 250, 4
# The titles before these chose the weights of a shipped adapter.
_CHOOSING = 1000
# Words that a text shows around a token.
_NEAR = 10
_LONGEST_TEXT = 60


@dataclass(frozen=True)
class TextToken:
    """A token of a text that is read, the word that it ends, and the content words around it."""

    word: str
    near: tuple[str, ...]


def measure(context: EvalContext, data: Path, adapters: Mapping[str, Adapter], path: Path) -> None:
    """Measure adapters; a result with the same settings is left as it is.

    Args:
        context: titles, model and embedder.
        data: folder of the data.
        adapters: by name.
        path: of the results file.
    """
    first = _CHOOSING if context.limit is None else 0
    titles = context.titles.held_out[first : first + _TITLES]
    texts = passages(data, "eval", _TEXTS if context.limit is None else context.limit)
    settings = context.facts | dict(
        n=len(titles), texts=len(texts), digests={name: adapter.digest for name, adapter in adapters.items()}
    )
    if finished_result(path, settings):
        print(f"tokens: done before, see {path}")
        return
    wordings, tokens = [], []
    for name, adapter in adapters.items():
        for row in _wordings(context, adapter, titles):
            print(name, row["wording"], row["token"], row["recall@1"], row["recall@100"], flush=True)
            wordings.append(dict(adapter=name) | row)
        for row in _tokens(context, adapter, texts):
            print(name, row, flush=True)
            tokens.append(dict(adapter=name) | row)
    write_result(path, make_result(settings, context.versions, dict(wordings=wordings, tokens=tokens)))


def _wordings(context: EvalContext, adapter: Adapter, titles: Sequence[str]) -> list[dict[str, Any]]:
    """Recall of titles by one greedy description, at the title's last token and at the last of all."""
    contract, answers = adapter.require_contract(), context.answers(titles)
    key = cache_key(context.model)
    rows = []
    for wording in TRAINED + UNTRAINED:
        prompts = [wording.replace("{title}", title) for title in titles]
        spans, _ = find_spans(context.model.tokenizer, prompts, "content", True)
        # In a user's turn these are always two.
        positions = [
            topic_positions(context.model.tokenizer, span, titles[span.number], ("title", "last")) for span in spans
        ]
        raw = token_vectors(context.model, [span.ids for span in spans], contract.require_site(), positions, key)
        for number, token in enumerate(("title's last", "last")):
            texts = context.describe(adapter, contract.centre(raw[number::2]), 1).texts
            recall = intervals_by_measure(recall_table(context.ranks(texts, answers)[:, 0], seed=SEED))
            rows.append(dict(wording=wording, trained=wording in TRAINED, token=token, **recall))
    return rows


def _tokens(context: EvalContext, adapter: Adapter, texts: Sequence[str]) -> list[dict[str, Any]]:
    """How often the word of a token is named, and a word near it, beside descriptions of other tokens."""
    contract = adapter.require_contract()
    tokens, raw = _read_tokens(context.model, texts, contract)
    described = [text for (text,) in context.describe(adapter, contract.centre(raw), 1).texts]
    other = [*described[len(described) // 2 :], *described[: len(described) // 2]]
    rows = []
    for what, named in (
        ("its word", lambda token, text: _names(text, token.word)),
        ("a word near it", lambda token, text: any(_names(text, word) for word in token.near)),
    ):
        named_rows, shuffled = ([named(token, text) for token, text in zip(tokens, x)] for x in (described, other))
        rows.append(dict(what=what, by="its description") | proportion_interval(named_rows).to_dict())
        rows.append(dict(what=what, by="another's description") | proportion_interval(shuffled).to_dict())
        rows.append(dict(what=what, by="difference") | paired_difference(named_rows, shuffled, seed=SEED).to_dict())
    return rows


def _read_tokens(model: Any, texts: Sequence[str], contract: Any) -> tuple[list[TextToken], Tensor]:
    """Tokens that end content words, spread over each text, with their raw vectors."""
    beginnings = [_beginning(text) for text in texts]
    beginnings = [beginning for beginning in beginnings if beginning]
    ids = prompt_ids(model.tokenizer, beginnings, False)
    tokens, positions = [], []
    for beginning, row, content in zip(beginnings, ids, contents(model.tokenizer, ids, False)):
        words = split_words(beginning)
        last = {token.index: token.position for token in tokens_in_words(model.tokenizer, row, content, words)}
        usable = [i for i in last if words[i].is_content]
        step = max(1, len(usable) // _PER_TEXT)
        chosen = usable[step - 1 :: step][:_PER_TEXT]
        positions.append([last[i] for i in chosen])
        tokens += [TextToken(words[i].text, _near(words, i)) for i in chosen]
    return tokens, token_vectors(model, ids, contract.require_site(), positions, cache_key(model))


def _beginning(text: str) -> str:
    words = split_words(text)[:_LONGEST_TEXT]
    return text[words[0].start : words[-1].end] if words else ""


def _near(words: Sequence[Word], index: int) -> tuple[str, ...]:
    around = [*words[max(0, index - _NEAR) : index], *words[index + 1 : index + 1 + _NEAR]]
    this = words[index].text.lower()
    return tuple(word.text for word in around if word.is_content and word.text.lower() != this)


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.IGNORECASE) is not None
