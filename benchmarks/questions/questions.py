"""Questions with texts whose right answers are known: what they are, and how they are put."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Text:
    """A text, read at its last token.

    Attributes:
        text: what the model reads.
        chat: whether it is a user's turn, whose last token is the chat template's; otherwise it is plain text.
    """

    text: str
    chat: bool


@dataclass(frozen=True)
class Answered:
    """A text with the number of the right choice."""

    text: Text
    right: int


@dataclass(frozen=True)
class Question:
    """A question about texts.

    Attributes:
        family: of like questions: ``"kind"``, ``"genre"``, ``"language"``, ``"relation"``, ``"position"``.
        name: within it.
        wordings: of which one is drawn for each example of training; the first is measured.
        unseen: a wording that no example of training has.
        choices: the answers.
        train: texts of training.
        test: texts that are measured, none of them of training.
        trained: whether it is trained on at all.
    """

    family: str
    name: str
    wordings: tuple[str, ...]
    unseen: str
    choices: tuple[str, ...]
    train: tuple[Answered, ...]
    test: tuple[Answered, ...]
    trained: bool = True


@dataclass(frozen=True)
class Sizes:
    """How many texts of each answer a question has.

    Attributes:
        train: most texts of each answer in training.
        test: most that are measured.
    """

    train: int = 400
    test: int = 60


def question(
    family: str,
    name: str,
    wordings: Sequence[str],
    choices: Sequence[str],
    texts: Mapping[str, Mapping[int, Sequence[Text]]],
    sizes: Sizes,
    seed: int,
    *,
    trained: bool = True,
) -> Question:
    """A question with as many texts of each answer as there are, up to a number.

    Args:
        family: of like questions.
        name: within it.
        wordings: the last is kept from training.
        choices: the answers.
        texts: ``"train"`` and ``"val"``, and for each number of a choice its texts.
        sizes: how many are taken.
        seed: of the draw.
        trained: whether it is trained on.
    """
    sides = {}
    for side, count in (("train", sizes.train), ("val", sizes.test)):
        drawn = []
        for right, of_answer in sorted(texts[side].items()):
            rows = sorted(of_answer, key=lambda text: text.text)
            random.Random(f"{seed} {name} {side} {right}").shuffle(rows)
            drawn += [Answered(text, right) for text in rows[:count]]
        sides[side] = tuple(drawn)
    *trained_wordings, unseen = wordings
    return Question(
        family, name, tuple(trained_wordings), unseen, tuple(choices), sides["train"], sides["val"], trained
    )
