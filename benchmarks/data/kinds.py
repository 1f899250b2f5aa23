"""What kind of thing a topic is: a person, a place, a plant and so on, by WordNet and Wikidata's descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]

# Files of WordNet's lexicographers, each of one kind of noun, and what their nouns are called here.
KINDS = {
    "person": "person",
    "location": "place",
    "animal": "animal",
    "plant": "plant",
    "time": "time",
    "event": "time",
    "artifact": "object",
    "substance": "substance",
    "food": "substance",
    "act": "activity",
    "cognition": "idea",
    "communication": "work",
    "body": "body part",
    "state": "condition",
}
# Nouns that begin Wikidata's descriptions and whose first sense in WordNet is another than what is meant there.
_MEANT = {
    **dict.fromkeys(("country", "republic", "nation", "capital", "island", "state", "seat"), "place"),
    **dict.fromkeys(("singer-songwriter", "filmmaker", "painter", "playwright", "guitarist"), "person"),
    **dict.fromkeys(("war", "battle", "conflict", "invasion", "century", "period"), "time"),
    **dict.fromkeys(("film", "series", "sitcom", "album", "novel", "opera"), "work"),
}
# Wikidata's descriptions are believed for these alone: of other kinds too many first senses are not meant.
_BELIEVED = ("person", "location", "time")
_END = re.compile(
    r" (?:of|in|from|who|that|for|by|with|which|based|located|between|on|at|to|where|used|and|or|during|made|released|"
    r"written|created|directed|is|was)\b|[,;]"
)


def kinds_of_titles(
    titles: Iterable[Mapping[str, Any]], nouns: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, str]]:
    """The titles whose kind is certain, with ``title``, ``kind`` and ``split``.

    A title with a gloss of WordNet has the kind of that very sense. Wikidata's description begins with a noun, whose
    first sense counts.

    Args:
        titles: with their descriptions.
        nouns: of WordNet, with the file of the lexicographers.
    """
    by_gloss, first = {}, {}
    for noun in nouns:
        for lemma in noun["lemmas"]:
            by_gloss[lemma.lower(), _gloss(noun["gloss"])] = noun["lex"]
            if noun["first_sense"]:
                first.setdefault(lemma.lower(), noun["lex"])
    for row in titles:
        kinds = {_kind(row["title"], description, by_gloss, first) for description in row["descriptions"]} - {None}
        # Descriptions that disagree are of different things.
        if len(kinds) == 1:
            yield dict(title=row["title"], kind=kinds.pop(), split=row["split"])


def _kind(title: str, description: Mapping[str, str], by_gloss: Mapping, first: Mapping) -> str | None:
    text, source = description["description"], description["source"]
    if source == "WordNet 3.0":
        return KINDS.get(by_gloss.get((re.sub(r" \(.*", "", title).lower(), _gloss(text)), ""))
    if not source.startswith("wikidata "):
        return None
    words = _END.split(re.sub(r"\(.*?\)", "", text))[0].lower().split()
    if not words:
        return None
    lexicographers = first.get(" ".join(words[-2:])) or first.get(words[-1], "")
    return _MEANT.get(words[-1]) or (KINDS[lexicographers] if lexicographers in _BELIEVED else None)


def _gloss(text: str) -> str:
    """A gloss without its examples."""
    return text.split(";")[0].strip()
