"""Pairs from unlabelled text: the state of a token, labelled with the words that it stands for in its context."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.chat import not_text_reason, prompt_ids, uses_chat
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.pairs.checks import draw_splits
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.phrases import Word, phrase_ending, split_words
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.sites import PlaceLike, parse_place
from interp_toolkit.spans import contents, count_characters
from interp_toolkit.torch_defaults import plain_defaults

# Texts read and stored at a time: what an interruption can lose.
_SHARD = 64
# Longer ones are addresses, numbers or lines of symbols, and a label of such a length would teach nothing.
_LONGEST_WORD = 40
# Of the tokens drawn from a text, one in so many ends a function word: these are read too, but say less.
_FUNCTION_SHARE = 8


@dataclass(frozen=True)
class TokenInText:
    """A token that is read, and what it stands for.

    Attributes:
        position: from the first token, a chat template's included.
        index: number of the word that it is in or ends.
    """

    position: int
    index: int


@plain_defaults()
def context_pairs(
    model: Any,
    texts: Iterable[str],
    site: PlaceLike,
    *,
    per_text: int = 8,
    words: int = 4,
    following: int = 0,
    max_words: int = 60,
    chat: bool | None = False,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: bool = False,
) -> VectorLabelPairs:
    """Make pairs of tokens of ordinary text and the phrase that each ends in its context.

    A part of each text is read, up to ``max_words`` from a drawn word on. Tokens are drawn among those of its content
    words, and a few among those of function words ("the", "of"). A token within a word stands for the whole word, so
    that the label of its first half says how the word goes on. Texts are taken one shard at a time; what was read is
    stored in the cache folder, so an interrupted call goes on. Vectors are centred by the mean over the training
    tokens.

    Args:
        model: the hooked model.
        texts: of any length, from anywhere; a text without words is passed over.
        site: where to read, at one site or at a stack.
        per_text: tokens drawn from each text.
        words: greatest number of words of a phrase, the token's own included. It begins behind punctuation and behind
            function words.
        following: how many of the words behind the token's to add to the label, up to punctuation.
        max_words: greatest number of words that are read of a text.
        chat: whether the texts are user turns in the chat template; by default they are plain text. None for user turns
            where the model has a template.
        val_fraction: share of the texts whose tokens are held out.
        seed: of all draws.
        progress: whether to show a bar, in texts.

    Returns:
        the pairs; all tokens of a text are on one side.

    Raises:
        InterpToolkitError: what is no text, no text with words, settings below 1, or a site that the model does not
            have.

    Example:
        >>> pairs = context_pairs(model, (row["text"] for row in passages), SiteStack([4, 10, 16, 23]))
    """
    for name, value in (("per_text", per_text), ("words", words), ("max_words", max_words)):
        if value < 1:
            raise InterpToolkitError(f"expected {name} of at least 1, got {value}")
    if isinstance(texts, str):
        raise InterpToolkitError(f"expected texts, got one text, {texts!r:.60}; put it into a list")
    model, place = as_hooked_model(model), parse_place(site)
    in_chat = uses_chat(model.tokenizer, chat)
    rng, key = random.Random(seed), cache_key(model)
    vectors: list[Tensor] = []
    labels: list[str] = []
    text_of: list[int] = []
    number = 0
    source = iter(texts)
    with tqdm(desc="context pairs", unit="text", disable=not progress) as bar:
        while shard := [_part(text, i, rng, max_words) for i, text in enumerate(islice(source, _SHARD), number)]:
            excerpts = [part for part in shard if part]
            ids = prompt_ids(model.tokenizer, excerpts, in_chat) if excerpts else []
            drawn = []
            for part, row, content in zip(excerpts, ids, contents(model.tokenizer, ids, in_chat) if excerpts else ()):
                in_part = split_words(part)
                tokens = _draw(tokens_in_words(model.tokenizer, row, content, in_part), in_part, per_text, rng)
                drawn.append(tokens)
                labels += [_label(part, in_part, token.index, words, following) for token in tokens]
            positions = [[token.position for token in tokens] for tokens in drawn]
            vectors.append(token_vectors(model, ids, place, positions, key))
            numbers = [number + i for i, part in enumerate(shard) if part]
            text_of += [n for n, tokens in zip(numbers, drawn) for _ in tokens]
            number += len(shard)
            bar.update(len(shard))
    if not labels:
        raise InterpToolkitError(f"expected texts with words, got {number} texts without; give others")
    sides = draw_splits(number, val_fraction, seed)
    splits = [sides[n] for n in text_of]
    joined = torch.cat(vectors)
    mean = joined[torch.tensor([side == "train" for side in splits])].mean(0)
    facts = model_facts(model)
    origin = dict(
        model=facts.model_id, revision=facts.revision, source="tokens in context", chat=str(in_chat), words=str(words)
    )
    return VectorLabelPairs.from_tensors(joined - mean, labels, splits=splits, site=place, mean=mean, origin=origin)


def tokens_in_words(
    tokenizer: Any, ids: Sequence[int], content: tuple[int, int], words: Sequence[Word]
) -> list[TokenInText]:
    """The tokens of a text that are in a word or end one.

    Args:
        tokenizer: of the model.
        ids: of the prompt.
        content: where the text's own tokens begin and end, see `interp_toolkit.spans.contents`.
        words: of the text, which begins with the first of them.
    """
    tokens, index = [], 0
    for position in range(*content):
        end = count_characters(tokenizer, ids[content[0] : position + 1]).begun
        while index < len(words) and words[index].end < end:
            index += 1
        if index < len(words) and words[index].start < end:
            tokens.append(TokenInText(position, index))
    return tokens


def _part(text: Any, number: int, rng: random.Random, max_words: int) -> str:
    """A part of a text, from a drawn word on; empty where it has no words."""
    if reason := not_text_reason(text):
        raise InterpToolkitError(f"text {number} {reason}; leave it out")
    words = split_words(text)
    if not words:
        return ""
    first = rng.randrange(max(1, len(words) - max_words + 1))
    return text[words[first].start : words[min(first + max_words, len(words)) - 1].end]


def _draw(tokens: list[TokenInText], words: Sequence[Word], count: int, rng: random.Random) -> list[TokenInText]:
    """So many tokens of a text, in their order, most of them of content words."""
    tokens = [token for token in tokens if len(words[token.index].text) <= _LONGEST_WORD]
    rng.shuffle(tokens)
    content = [token for token in tokens if words[token.index].is_content]
    others = [token for token in tokens if not words[token.index].is_content]
    few = others[: count // _FUNCTION_SHARE]
    return sorted(content[: count - len(few)] + few, key=lambda token: token.position)


def _label(text: str, words: Sequence[Word], index: int, limit: int, following: int) -> str:
    label = phrase_ending(text, words, index, limit)
    for before, word in zip(words[index:], words[index + 1 : index + 1 + following]):
        if not text[before.end : word.start].isspace():
            break
        label += f" {word.text}"
    return label
