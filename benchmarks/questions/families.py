"""The questions of the benchmark, made from the data that are at hand."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data import DATA, KINDS, PASSAGES, PHRASES, RELATIONS
from benchmarks.questions.questions import YES_NO, Question, Sizes, Text, question
from benchmarks.questions.wordings import GENRES, KIND_QUESTIONS, LANGUAGES, POSITIONS, RELATED, WHICH
from interp_toolkit.json_lines import read_json, read_json_lines
from interp_toolkit.pairs.phrases import split_words
from interp_toolkit.pairs.wordings import WORDINGS

# Words of a passage that are read: its genre is asked at the last of them.
_WORDS = 40
# Most choices that a relation has: its most frequent objects.
_OBJECTS = 12
# One subject of so many is measured.
_HELD_OUT = 4
_SIDES = {"train": "train", "val": "val", "eval": "val"}


def all_questions(data: Path, sizes: Sizes, seed: int) -> list[Question]:
    """All questions, with their texts of training and those that are measured.

    Args:
        data: folder of the passages; all else comes with the repository.
        sizes: how many texts each has.
        seed: of all draws.
    """
    passages = list(_rows(data / PASSAGES))
    return [
        *_kinds(list(_rows(DATA / KINDS)), sizes, seed),
        *_genres(passages, sizes, seed),
        *_languages(list(_rows(DATA / PHRASES)), sizes, seed),
        *_relations(read_json(DATA / RELATIONS, "relations"), sizes, seed),
        *_positions(passages, sizes, seed),
    ]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    return (row for _, row in read_json_lines(path, "data", "a JSON object"))


def _kinds(rows: Sequence[Mapping[str, str]], sizes: Sizes, seed: int) -> list[Question]:
    """Whether a topic is a person, a place and so on, at the last token of a user's turn about it."""
    rng = random.Random(seed)
    texts = [(row, Text(rng.choice(WORDINGS).replace("{title}", row["title"]), True)) for row in rows]
    return _by_class("kind", KIND_QUESTIONS, texts, lambda row: row["kind"], sizes, seed)


def _genres(rows: Sequence[Mapping[str, str]], sizes: Sizes, seed: int) -> list[Question]:
    """What a passage is from, at the last of its first words."""
    texts = [(row, Text(_beginning(row["text"], _WORDS), False)) for row in rows]
    usable = [(row, text) for row, text in texts if text.text]
    return _by_class("genre", GENRES, usable, lambda row: row["genre"], sizes, seed)


def _languages(rows: Sequence[Mapping[str, str]], sizes: Sizes, seed: int) -> list[Question]:
    """In which language a phrase is, at its last token."""
    texts = [(row, Text(row["text"], False)) for row in rows]
    return _by_class("language", LANGUAGES, texts, lambda row: row["language"], sizes, seed)


def _by_class(
    family: str,
    wordings: Mapping[str, Sequence[str]],
    texts: Sequence[tuple[Mapping[str, str], Text]],
    class_of: Callable[[Mapping[str, str]], str],
    sizes: Sizes,
    seed: int,
) -> list[Question]:
    """Yes or no for each class, and which of all; classes whose name ends in * are kept from training."""
    by_class: dict[str, dict[str, list[Text]]] = {side: defaultdict(list) for side in ("train", "val")}
    for row, text in texts:
        by_class[_SIDES[row["split"]]][class_of(row)].append(text)
    out = []
    for starred, of_class in wordings.items():
        name = starred.rstrip("*")
        sides = {
            side: {0: classes[name], 1: [text for other, rows in classes.items() if other != name for text in rows]}
            for side, classes in by_class.items()
        }
        settings = dict(trained=name == starred)
        out.append(question(family, name, of_class, YES_NO, sides, sizes, seed, **settings))
    if family in WHICH:
        names = [name for name in wordings if not name.endswith("*")]
        sides = {
            side: {number: classes[name] for number, name in enumerate(names)} for side, classes in by_class.items()
        }
        out.append(question(family, "which", WHICH[family], names, sides, sizes, seed))
    return out


def _relations(relations: Mapping[str, Any], sizes: Sizes, seed: int) -> list[Question]:
    """What a relation connects a subject with, at the last token of a user's turn about the subject."""
    out = []
    for starred, wordings in RELATED.items():
        name = starred.rstrip("*")
        samples = relations[name]["samples"]
        counts = Counter(row["object"] for row in samples)
        # Of equally frequent ones the first in the alphabet.
        objects = sorted(sorted(counts), key=lambda x: -counts[x])[:_OBJECTS]
        sides: dict[str, dict[int, list[Text]]] = {side: defaultdict(list) for side in ("train", "val")}
        for row in samples:
            if row["object"] in objects:
                measured = name != starred or _number(row["subject"]) % _HELD_OUT == 0
                text = Text(f"Tell me about {row['subject']}.", True)
                sides["val" if measured else "train"][objects.index(row["object"])].append(text)
        short = name.split("/")[1].replace("_", " ")
        out.append(question("relation", short, wordings, objects, sides, sizes, seed, trained=name == starred))
    return out


def _positions(rows: Sequence[Mapping[str, str]], sizes: Sizes, seed: int) -> list[Question]:
    """How far into a text a token is, at a word drawn at random."""
    rng = random.Random(seed)
    out = []
    for name, (choices, bounds, wordings) in POSITIONS.items():
        sides: dict[str, dict[int, list[Text]]] = {side: defaultdict(list) for side in ("train", "val")}
        for row in rows:
            right = rng.randrange(len(choices))
            wanted = rng.randint(*bounds[right])
            text = _beginning(row["text"], wanted)
            if len(split_words(text)) == wanted:
                sides[_SIDES[row["split"]]][right].append(Text(text, False))
        out.append(question("position", name, wordings, choices, sides, sizes, seed))
    return out


def _beginning(text: str, count: int) -> str:
    words = split_words(text)[:count]
    return text[words[0].start : words[-1].end] if words else ""


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
