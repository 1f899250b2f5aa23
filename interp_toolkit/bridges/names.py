"""Names of entities: whether a text names one, by any of its aliases."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interp_toolkit.errors import InterpToolkitError

# Letters that are no letter with an accent to Unicode, and the many forms of the apostrophe and the hyphen.
_FOLDED = str.maketrans(
    {"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ħ": "h", "Ħ": "H", "\u0131": "i", "ß": "ss"}
    | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th"}
    | dict.fromkeys("\u2018\u2019\u02bb\u02bc\u02b9\u2032\u0060\u00b4", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)
_LETTER = r"[^\W_]"
# An alias as short as this and all in capitals must be written so: "US" is not "us", "WHO" is not "who".
_SHORT_CAPITALS = 4
# And for one as short as this, case always counts: the symbol "He" is not "he".
_SHORT = 2
# The fewest letters that a name shares with a word derived from it: "Spain" and "Spanish".
_STEM = 3


@dataclass(frozen=True)
class Entity:
    """Something with a name and aliases.

    A text names it where one of the names stands between word borders: "US" is not in "Jerusalem", "C" not in "C++",
    "2" not in "2.5". A hyphen is a border ("Poland-based" names Poland), and so is the apostrophe of "Poland's".
    Accents do not count, on either side: "Sao Paulo" and "São Paulo" are one name, however Unicode composes them. Nor
    does case, but for names of one or two letters and capitals of up to four: "US" is not "us". Inside a name spaces
    and hyphens are the same, and a comma, or the dot that ends an abbreviation, may be missing: "Guinea Bissau",
    "Washington D.C", "King Jr". Whether a longer name holds the shorter one of something else (Guinea, Papua New
    Guinea) a text cannot tell: it counts.

    Attributes:
        name: as in tables.
        aliases: its further names.
        kind: what it is, such as ``"country"``; entities of one kind serve as each other's chance level.

    Raises:
        InterpToolkitError: an empty name or alias, or a text for the list of aliases.

    Example:
        >>> Entity("United States", ("US", "U.S.")).named_in("the U.S. and its neighbours")
        True
    """

    name: str
    aliases: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.aliases, str):
            raise InterpToolkitError(
                f"expected a tuple of aliases for {self.name!r}, got the text {self.aliases!r}; put it in a tuple"
            )
        for number, name in enumerate((self.name, *self.aliases)):
            if not _fold(name).replace("-", " ").strip():
                which = f"alias {number - 1} of {self.name!r}" if number else "the name of an entity"
                raise InterpToolkitError(f"{which} is empty, and would be in every text; leave it out")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All names as one expression, for texts without accents."""
        names = dict.fromkeys(" ".join(_fold(name).split()) for name in (self.name, *self.aliases))
        return re.compile("|".join(map(_expression, names)))

    def named_in(self, text: str) -> bool:
        """Whether a text names it."""
        return self.pattern.search(_fold(text)) is not None

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """The beginnings of the longer capitalised words of its name."""
        words = re.findall(rf"{_LETTER}+", _fold(self.name))
        return tuple(
            word[: max(_STEM, len(word) // 2)].casefold() for word in words if word[0].isupper() and len(word) > _STEM
        )

    def hinted_in(self, text: str) -> bool:
        """Whether a text names it, or has a capitalised word that begins as its name does: "Polish" hints at Poland.

        This errs to the side of hints ("Indonesia" at India), and misses those of another stem ("French" at France).
        """
        words = re.findall(rf"{_LETTER}+", _fold(text))
        begins = [word.casefold() for word in words if word[0].isupper()]
        return self.named_in(text) or any(word.startswith(self.stems) for word in begins)


def find_names(entities: Sequence[Entity], texts: Sequence[str]) -> np.ndarray:
    """Find which texts name which entities; each different text is searched once.

    Args:
        entities: to look for.
        texts: to look in.

    Returns:
        truths, [texts, entities].

    Example:
        >>> find_names([Entity("Poland"), Entity("Oman")], ["Poland's rivers", "Romance"]).tolist()
        [[True, False], [False, False]]
    """
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    folded = [_fold(text) for text in number]
    named = np.zeros((len(number), len(entities)), dtype=bool)
    for column, entity in enumerate(entities):
        search = entity.pattern.search
        named[:, column] = [search(text) is not None for text in folded]
    return named[[number[text] for text in texts]]


def _fold(text: str) -> str:
    """The text without its accents."""
    letters = unicodedata.normalize("NFD", text)
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").translate(_FOLDED)


def _expression(name: str) -> str:
    """One name between its borders."""
    inside = r"[\s-]+".join(_word(word) for word in re.split(r"[\s-]+", name.strip(" -")))
    before, behind = f"(?<!{_LETTER})", f"(?!{_LETTER})"
    if name[0].isdigit():
        before += r"(?<!\d[.,])"
    if name[-1].isalnum():
        behind += r"(?![+#])"
    if name[-1].isdigit():
        behind += r"(?![.,]\d)"
    cased = name.isalnum() and (len(name) <= _SHORT or (len(name) <= _SHORT_CAPITALS and name.isupper()))
    return f"{before}{inside if cased else f'(?i:{inside})'}{behind}"


def _word(word: str) -> str:
    """One word of a name, in which an abbreviation may be spaced and may lack its last dot."""
    body = word.rstrip(".,")
    if not any(map(str.isalnum, body)):
        return re.escape(word)
    # Possessive: where the dot is there, it is taken, so that "U.S." is not in "U.S.S.R.".
    ends = {".": r"\.?+", ",": ",?+"}
    return re.escape(body).replace(r"\.", r"\.\s?") + "".join(ends[mark] for mark in word[len(body) :])
