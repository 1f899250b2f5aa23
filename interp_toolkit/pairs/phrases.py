"""Words of a text and the phrases that they end: labels for tokens of text that nobody has labelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:['\u2019\-.][^\W_]+)*")
_SPACE = re.compile(r"\s+")

FUNCTION_WORDS = frozenset(
    """
    a an the this that these those my your his her its our their some any each every no all both either neither such
    what which whose i you he she it we they me him them us who whom myself himself herself itself themselves and or
    but nor so yet for if because although though while when where whether than as until unless since of in on at by
    to from with without within into onto over under between among through during before after above below up down
    out off about against near per via is are was were be been being am do does did done have has had having will
    would shall should can could may might must not very too also just only even still there here then now more most
    less least much many few other another own same
    """.split()  # noqa: SIM905
)
"""Words that say how others hang together; a phrase does not begin with one."""


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: of it.
        start: where it begins, in characters.
        end: behind its last character.
    """

    text: str
    start: int
    end: int

    @property
    def is_content(self) -> bool:
        """Whether it says something by itself: no function word, and more than a letter."""
        return len(self.text) > 1 and self.text.lower() not in FUNCTION_WORDS


def split_words(text: str) -> list[Word]:
    """The words of a text, in order: letters and digits, with hyphens, dots and apostrophes between them.

    Example:
        >>> [word.text for word in split_words("The U.S. state, Rhode-Island's")]
        ['The', 'U.S', 'state', "Rhode-Island's"]
    """
    return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]


def phrase_ending(text: str, words: Sequence[Word], index: int, limit: int) -> str:
    """The phrase that a word ends: it and the words right before it, as far as no punctuation stands between.

    Args:
        text: the text.
        words: its words, see `split_words`.
        index: number of the word.
        limit: greatest number of words.

    Returns:
        the phrase, without function words at its beginning.

    Example:
        >>> text = "She saw the Eiffel Tower, at last."
        >>> phrase_ending(text, split_words(text), 4, 4)
        'saw the Eiffel Tower'
    """
    first = index
    while first and index - first + 1 < limit and text[words[first - 1].end : words[first].start].isspace():
        first -= 1
    while first < index and not words[first].is_content:
        first += 1
    return _SPACE.sub(" ", text[words[first].start : words[index].end])
