"""The vectors that the adapter for any token is calibrated and measured on: topics in wordings, and tokens of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from interp_toolkit.chat import prompt_ids
from interp_toolkit.pairs.context import tokens_in_words
from interp_toolkit.pairs.phrases import Word, split_words
from interp_toolkit.pairs.reworded import topic_positions
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.sites import Place
from interp_toolkit.spans import contents, find_spans

TITLE, LAST = "title's last", "last"
# Tokens that are drawn from a text, words that a text shows around a token, and of a text in all.
_PER_TEXT, _NEAR, _LONGEST_TEXT = 4, 10, 60


@dataclass(frozen=True)
class TextToken:
    """A token of a text that is read, the word that it ends, and the content words around it."""

    word: str
    near: tuple[str, ...]


def read_topics(model: Any, titles: Sequence[str], wordings: Sequence[str], place: Place) -> dict[str, Tensor]:
    """Raw vectors of titles in user turns, at the title's last token and at the last of all: [titles, width] each.

    Args:
        model: the hooked model.
        titles: topics.
        wordings: one for each title, with ``{title}`` in it.
        place: where to read.
    """
    prompts = [wording.replace("{title}", title) for wording, title in zip(wordings, titles)]
    spans, _ = find_spans(model.tokenizer, prompts, "content", True)
    # In a user's turn these are always two.
    positions = [topic_positions(model.tokenizer, span, titles[span.number], ("title", "last")) for span in spans]
    raw = token_vectors(model, [span.ids for span in spans], place, positions, cache_key(model))
    return {TITLE: raw[::2], LAST: raw[1::2]}


def read_text_tokens(model: Any, texts: Sequence[str], place: Place, chat: bool) -> tuple[list[TextToken], Tensor]:
    """Tokens that end content words, spread over the beginning of each text, with their raw vectors [tokens, width].

    Args:
        model: the hooked model.
        texts: those without words are passed over.
        place: where to read.
        chat: whether the texts are user turns.
    """
    beginnings = [beginning for beginning in map(_beginning, texts) if beginning]
    ids = prompt_ids(model.tokenizer, beginnings, chat)
    tokens, positions = [], []
    for beginning, row, content in zip(beginnings, ids, contents(model.tokenizer, ids, chat)):
        words = split_words(beginning)
        last = {token.index: token.position for token in tokens_in_words(model.tokenizer, row, content, words)}
        usable = [i for i in last if words[i].is_content]
        step = max(1, len(usable) // _PER_TEXT)
        chosen = usable[step - 1 :: step][:_PER_TEXT]
        positions.append([last[i] for i in chosen])
        tokens += [TextToken(words[i].text, _near(words, i)) for i in chosen]
    return tokens, token_vectors(model, ids, place, positions, cache_key(model))


def names(text: str, word: str) -> bool:
    """Whether a text has a word, in whatever case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.IGNORECASE) is not None


def _beginning(text: str) -> str:
    words = split_words(text)[:_LONGEST_TEXT]
    return text[words[0].start : words[-1].end] if words else ""


def _near(words: Sequence[Word], index: int) -> tuple[str, ...]:
    around = [*words[max(0, index - _NEAR) : index], *words[index + 1 : index + 1 + _NEAR]]
    this = words[index].text.lower()
    return tuple(word.text for word in around if word.is_content and word.text.lower() != this)
