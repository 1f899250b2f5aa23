"""Distinctive words: words that some examples have more often than text at large, and labels made of them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.files import sha256_of_json

_ITEM = re.compile(r"\n+|\w+(?:['\u2019]\w+)*|[^\w\s]")
# Words of text that the prior is worth: enough to hold down what was seen once or twice.
_PRIOR = 100.0
# Longest phrase, in words.
_PHRASE = 3
# Words that a label names at most.
_WORDS = 3
# A word is named beside the most distinctive one where it makes up this share of the activation.
_SHARE = 0.1
# A word of the surroundings is named from this many standard errors on; a phrase where this share of examples has it.
_DISTINCT = 3.0
_COMMON = 0.3


@dataclass(frozen=True)
class Item:
    """A word, a punctuation mark or a line break of an example.

    Attributes:
        text: as it is written.
        start: its first character in the example.
        end: behind its last.
        activation: the highest of its tokens.
    """

    text: str
    start: int
    end: int
    activation: float

    @property
    def key(self) -> str:
        """What it is counted as: without regard to case."""
        return _key(self.text)


@dataclass(frozen=True, eq=False)
class Background:
    """How often words and phrases stand in text at large.

    Attributes:
        words: counts by word.
        phrases: counts by phrase of two or three words.
    """

    words: Mapping[str, int]
    phrases: Mapping[str, int]

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Background:
        """Count words and phrases of some texts, such as random windows or neutral passages."""
        words: Counter[str] = Counter()
        phrases: Counter[str] = Counter()
        for text in texts:
            keys = [_key(item) for item in _ITEM.findall(text)]
            words.update(keys)
            for length in range(2, _PHRASE + 1):
                phrases.update(" ".join(keys[i : i + length]) for i in range(len(keys) - length + 1))
        return cls(words, phrases)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Background:
        """Deprecated name of `from_texts`."""
        warn_renamed("Background.of", "Background.from_texts")
        return cls.from_texts(texts)

    @cached_property
    def digest(self) -> str:
        """A hash of the counts: labels against other text at large are other labels."""
        return sha256_of_json({"words": self.words, "phrases": self.phrases})


def read_items(text: str, tokens: Sequence[str], activations: Sequence[float | int]) -> list[Item]:
    """Split an example into words with their activations.

    Args:
        text: of the example.
        tokens: its tokens one by one; with the space before a word or without it.
        activations: one per token.

    Returns:
        its words, punctuation marks and line breaks in order.
    """
    spans = token_spans(text, tokens)
    items = []
    for match in _ITEM.finditer(text):
        inside = [a for (start, end), a in zip(spans, activations) if start < match.end() and end > match.start()]
        items.append(Item(match[0], match.start(), match.end(), float(max(inside, default=0.0))))
    return items


def token_spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Where each token stands in its text, spaces around it left out; an empty span where it is not found.

    Tokens that are decoded one by one may lose their space, and parts of a character cannot be decoded at all: so each
    is looked for a little behind the one before it.
    """
    spans, at = [], 0
    for token in tokens:
        # Of a token of white space alone only a line break counts.
        piece = token.strip() or ("\n" if "\n" in token else "")
        start = text.find(piece, at, at + len(token) + 8) if piece else -1
        spans.append((start, start + len(piece)) if start >= 0 else (at, at))
        at = spans[-1][1]
    return spans


def read_phrases(text: str, items: Sequence[Item]) -> dict[str, str]:
    """Phrases of two or three words around the most active one: for each, as it is counted, how it is written."""
    if not items:
        return {}
    peak = max(range(len(items)), key=lambda i: items[i].activation)
    phrases = {}
    for length in range(2, _PHRASE + 1):
        for start in range(max(0, peak - length + 1), min(peak, len(items) - length) + 1):
            words = items[start : start + length]
            phrases[" ".join(item.key for item in words)] = text[words[0].start : words[-1].end]
    return phrases


def log_odds(inside: Mapping[str, float | int], outside: Mapping[str, int]) -> dict[str, float]:
    """How much more often each word occurs inside than outside, in standard errors.

    The log-odds ratio with an informative Dirichlet prior, here the counts of all text (Monroe, Colaresi and Quinn
    2008, "Fightin' Words", equations 16, 19 and 22). A word that is not outside counts as seen there once.

    Args:
        inside: counts, perhaps weighted.
        outside: counts of text at large.

    Example:
        >>> log_odds({"dog": 9, "the": 9}, {"dog": 3, "the": 900, "a": 800})
    """
    n, m = sum(inside.values()), sum(outside.values()) + sum(word not in outside for word in inside)
    scores = {}
    for word, count in inside.items():
        elsewhere = max(outside.get(word, 0), 1)
        prior = _PRIOR * (count + elsewhere) / (n + m)
        one, other = count + prior, elsewhere + prior
        gap = _logit(one, n + _PRIOR) - _logit(other, m + _PRIOR)
        scores[word] = gap / math.sqrt(1 / one + 1 / other)
    return scores


def readable(item: str) -> str:
    """A word as it is, a mark by its name.

    Example:
        >>> readable(","), readable("dog")
        ('comma', 'dog')
    """
    if item.strip("\n") == "":
        return "line break"
    if len(item) == 1 and not item.isalnum():
        return unicodedata.name(item, item).lower()
    return item


def word_labels(examples: pd.DataFrame, background: Background) -> tuple[str, ...]:
    """Up to three labels from the words of a feature's examples; none where no word is active. See `word_labeller`.

    Args:
        examples: columns ``text``, ``tokens``, ``activations``, best first.
        background: counts of text at large.
    """
    texts = list(examples["text"])
    read = [read_items(*row) for row in zip(texts, examples["tokens"], examples["activations"])]
    written: Counter[tuple[str, str]] = Counter((item.key, item.text) for items in read for item in items)
    surface = {key: text for (key, text), _ in reversed(written.most_common())}
    active = _active(read)
    if not active:
        return ()
    scores = log_odds(active, background.words)
    total = sum(active.values())
    best = sorted(active, key=lambda key: -scores[key])
    named = [key for i, key in enumerate(best) if i == 0 or active[key] >= _SHARE * total][:_WORDS]
    words = ", ".join(dict.fromkeys(readable(surface[key]) for key in named))
    labels = [words]
    if around := _around(read, set(active), background):
        labels.append(f"{words}, in texts about {', '.join(surface[key] for key in around)}")
    if phrase := _phrase(texts, read, background):
        labels.append(f"the phrase {phrase}")
    return tuple(dict.fromkeys(label.replace('"', "'") for label in labels))


def _active(read: Sequence[Sequence[Item]]) -> dict[str, float]:
    """The words on which a feature is active, weighted by their share of their example's highest activation."""
    weights: defaultdict[str, float] = defaultdict(float)
    for items in read:
        peak = max((item.activation for item in items), default=0.0)
        for item in items:
            if item.activation > 0:
                weights[item.key] += item.activation / peak
    return weights


def _around(read: Sequence[Sequence[Item]], active: set[str], background: Background) -> list[str]:
    """Words that occur around the active ones in several examples, and seldom elsewhere."""
    counts = Counter(key for items in read for key in {item.key for item in items} - active if len(key) > 2)
    scores = log_odds(counts, background.words)
    good = [
        key
        for key, count in counts.items()
        if count >= max(2, _COMMON * len(read)) and scores[key] >= _DISTINCT and key.isalpha()
    ]
    return sorted(good, key=lambda key: (-scores[key], key))[:_WORDS]


def _phrase(texts: Sequence[str], read: Sequence[Sequence[Item]], background: Background) -> str:
    """The most distinctive phrase around the most active word, where many examples have it; else an empty text."""
    counts: Counter[str] = Counter()
    surface: dict[str, str] = {}
    for text, items in zip(texts, read):
        phrases = read_phrases(text, items)
        counts.update(list(phrases))
        surface = phrases | surface
    common = {key: count for key, count in counts.items() if count >= max(2, _COMMON * len(texts)) and "\n" not in key}
    if not common:
        return ""
    scores = log_odds(counts, background.phrases)
    return surface[max(common, key=lambda key: (scores[key], len(key)))]


def _key(item: str) -> str:
    return "\n" if item.startswith("\n") else item.casefold()


def _logit(count: float, total: float) -> float:
    return math.log(count) - math.log(max(total - count, 1e-9))
