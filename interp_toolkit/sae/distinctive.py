"""Distinctive words: what stands in some contexts more often than elsewhere, and labels made of that."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

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
# A word of the surroundings is named from this many standard errors on; a phrase where this share of contexts has it.
_DISTINCT = 3.0
_COMMON = 0.3


@dataclass(frozen=True)
class Item:
    """A word, a punctuation mark or a line break of a context.

    Attributes:
        text: as it is written.
        start: its first character in the context.
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
    def of(cls, texts: Iterable[str]) -> Background:
        """Counts over some texts, such as random windows or neutral passages."""
        words: Counter[str] = Counter()
        phrases: Counter[str] = Counter()
        for text in texts:
            keys = [_key(found) for found in _ITEM.findall(text)]
            words.update(keys)
            for length in range(2, _PHRASE + 1):
                phrases.update(" ".join(keys[i : i + length]) for i in range(len(keys) - length + 1))
        return cls(words, phrases)

    @property
    def digest(self) -> str:
        """A hash of the counts: labels against other text at large are other labels."""
        return sha256_of_json({"words": self.words, "phrases": self.phrases})


def read_items(text: str, tokens: Sequence[str], activations: Sequence[float | int]) -> list[Item]:
    """The words of a context with their activations.

    Args:
        text: of the context.
        tokens: its tokens one by one; with the space before a word or without it.
        activations: one a token.
    """
    spans = token_spans(text, tokens)
    items = []
    for found in _ITEM.finditer(text):
        own = [a for (start, end), a in zip(spans, activations) if start < found.end() and end > found.start()]
        items.append(Item(found[0], found.start(), found.end(), float(max(own, default=0.0))))
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
        found = text.find(piece, at, at + len(token) + 8) if piece else -1
        spans.append((found, found + len(piece)) if found >= 0 else (at, at))
        at = spans[-1][1]
    return spans


def read_phrases(text: str, items: Sequence[Item]) -> dict[str, str]:
    """Phrases of two or three words that hold the most active one; as they are counted, and as they are written."""
    if not items:
        return {}
    peak = max(range(len(items)), key=lambda i: items[i].activation)
    told = {}
    for length in range(2, _PHRASE + 1):
        for start in range(max(0, peak - length + 1), min(peak, len(items) - length) + 1):
            own = items[start : start + length]
            told[" ".join(item.key for item in own)] = text[own[0].start : own[-1].end]
    return told


def log_odds(inside: Mapping[str, float | int], outside: Mapping[str, int]) -> dict[str, float]:
    """How much more often each word stands inside than outside, in standard errors.

    The log-odds ratio with an informative Dirichlet prior, here the counts of all text (Monroe, Colaresi and Quinn
    2008, "Fightin' Words", equations 16, 19 and 22). A word that is not outside counts as seen there once.

    Args:
        inside: counts, perhaps weighted.
        outside: counts of text at large.

    Example:
        >>> log_odds({"dog": 9, "the": 9}, {"dog": 3, "the": 900, "a": 800})
    """
    n, m = sum(inside.values()), sum(outside.values()) + sum(word not in outside for word in inside)
    told = {}
    for word, count in inside.items():
        elsewhere = max(outside.get(word, 0), 1)
        prior = _PRIOR * (count + elsewhere) / (n + m)
        one, other = count + prior, elsewhere + prior
        gap = _logit(one, n + _PRIOR) - _logit(other, m + _PRIOR)
        told[word] = gap / math.sqrt(1 / one + 1 / other)
    return told


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


def word_labels(contexts: pd.DataFrame, background: Background) -> tuple[str, ...]:
    """Up to three labels from the words of a feature's contexts; none where no word is active. See `word_labeller`.

    Args:
        contexts: columns ``text``, ``tokens``, ``activations``, best first.
        background: counts of text at large.
    """
    texts = list(contexts["text"])
    read = [read_items(*own) for own in zip(texts, contexts["tokens"], contexts["activations"])]
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
    """The words on which a feature is active, each by its share of its context's highest activation."""
    told: defaultdict[str, float] = defaultdict(float)
    for items in read:
        peak = max((item.activation for item in items), default=0.0)
        for item in items:
            if item.activation > 0:
                told[item.key] += item.activation / peak
    return told


def _around(read: Sequence[Sequence[Item]], active: set[str], background: Background) -> list[str]:
    """Words that stand around the active ones in several contexts, and seldom elsewhere."""
    counts = Counter(key for items in read for key in {item.key for item in items} - active if len(key) > 2)
    scores = log_odds(counts, background.words)
    good = [
        key
        for key, count in counts.items()
        if count >= max(2, _COMMON * len(read)) and scores[key] >= _DISTINCT and key.isalpha()
    ]
    return sorted(good, key=lambda key: (-scores[key], key))[:_WORDS]


def _phrase(texts: Sequence[str], read: Sequence[Sequence[Item]], background: Background) -> str:
    """The most distinctive phrase around the most active word, where many contexts have it; else nothing."""
    counts: Counter[str] = Counter()
    surface: dict[str, str] = {}
    for text, items in zip(texts, read):
        found = read_phrases(text, items)
        counts.update(list(found))
        surface = found | surface
    common = {key: count for key, count in counts.items() if count >= max(2, _COMMON * len(texts)) and "\n" not in key}
    if not common:
        return ""
    scores = log_odds(counts, background.phrases)
    return surface[max(common, key=lambda key: (scores[key], len(key)))]


def _key(item: str) -> str:
    return "\n" if item.startswith("\n") else item.casefold()


def _logit(count: float, total: float) -> float:
    return math.log(count) - math.log(max(total - count, 1e-9))
