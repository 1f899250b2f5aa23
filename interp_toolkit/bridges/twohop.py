"""Two-hop questions: their files, samples of them, and which the model answers, hop by hop."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit.bridges.names import Entity
from interp_toolkit.chat import list_prompts, prompt_ids
from interp_toolkit.errors import FileFormatError
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.runtime import generate
from interp_toolkit.runtime.answers import as_soft_prompt

KEPT, SHORTCUT, FAILED = "kept", "shortcut", "failed"
HOP2_WRONG, TWOHOP_WRONG = "hop 2 wrong", "two-hop wrong"
HOPS = ("hop1", "hop2", "twohop")
# Longest continuation, in tokens: enough for an answer, too little for a talk.
MAX_NEW_TOKENS = 10
# Prompts decoded together: the embeddings of their tokens are held at once.
_ROWS = 256
# Kinds of bridges with fewer of them are taken together: there is no chance level among two or three.
_RARE, _OTHER = 5, "other"
_HEAD = re.compile(r"the (.+?) (?:of|that|who|where|which)\b")
# Up to two letters, or three small ones; but two that are names.
_CODE = re.compile(r"(?!US$|UK$)[A-Za-z]{1,2}|[a-z]{3}")
_SOURCES = (
    "two-hop rows can be composed from the relations of github.com/evandez/relations, or taken from MQuAKE "
    "(github.com/princeton-nlp/MQuAKE) with the clozes of CREME"
)


@dataclass(frozen=True)
class TwoHop:
    """A question in two steps, and a cloze for each of the steps.

    Attributes:
        id: its number in its file.
        type: questions of one type have the same relations and form; the part before the last ``->`` belongs to hop 1.
        bridge: the answer of the first step, which the question does not name; with its ``kind``.
        answer: of the second step, and so of the question.
        subject: the start of the first step; empty where the file has none.
        hop1: a cloze that the bridge completes: ``"Warsaw is the capital of"``.
        hop2: one that names the bridge and that the answer completes: ``"The currency of Poland is the"``.
        twohop: the question: ``"The currency of the country whose capital is Warsaw is the"``.
    """

    id: int
    type: str
    bridge: Entity
    answer: Entity
    subject: str
    hop1: str
    hop2: str
    twohop: str


def read_twohop(path: str | Path, aliases: Mapping[str, Sequence[str]] | None = None) -> list[TwoHop]:
    """Read two-hop questions from a file.

    Args:
        path: JSON Lines, perhaps gzipped, with ``type``, ``e1``, ``e2``, ``e3``, ``e2_aliases``, ``e3_aliases``,
            ``hop1_prompt``, ``hop2_prompt``, ``twohop_prompt``; or, as of MQuAKE with clozes, with ``bridge``,
            ``answer``, ``hop1_phrase``, ``hop2_cloze``, ``twohop_cloze``.
        aliases: further names of entities, by their lower-case name; see `read_aliases`.

    Raises:
        FileFormatError: missing, damaged, or a row that lacks a field; the text names the line.

    Example:
        >>> rows = read_twohop("composed_twohop.jsonl.gz")
        >>> rows[0].twohop, rows[0].bridge.name
        ('The currency of the country whose capital is Kabul is the', 'Afghanistan')
    """
    known = aliases or {}

    def entity(name: str, listed: Sequence[str] = (), kind: str = "") -> Entity:
        return Entity(name, tuple(dict.fromkeys([*listed, *known.get(name.lower(), ())])), kind)

    def parse(row: dict[str, Any], number: int) -> TwoHop:
        return (_composed if "twohop_prompt" in row else _mquake)(row, number, entity)

    rows = _parse_lines(Path(path), parse, f"two-hop questions; {_SOURCES}")
    bridges = Counter(kind for kind, _ in {(row.bridge.kind, row.bridge.name) for row in rows})
    return [
        replace(row, bridge=replace(row.bridge, kind=_OTHER)) if bridges[row.bridge.kind] < _RARE else row
        for row in rows
    ]


def read_aliases(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read further names of entities, by lower-case name; for several entities of one name those of the first.

    Codes of countries and languages are left out, since they are words too: "in" for India, "no" for Norwegian.

    Args:
        path: JSON Lines, perhaps gzipped, with ``label`` and ``aliases``.

    Raises:
        FileFormatError: missing, damaged, or a row that lacks a field; the text names the line.
    """
    rows = _parse_lines(Path(path), _aliases, "names of entities")
    return dict(reversed(rows))


def balanced_sample(rows: Sequence[TwoHop], n: int, seed: int = 0) -> list[TwoHop]:
    """Sample at most n rows, evenly over types and, within a type, over bridges; no question twice.

    The first n of a larger sample with the same seed are the sample of n.

    Args:
        rows: to sample from.
        n: size of the sample.
        seed: of the sampling.
    """
    shuffled = list({row.twohop: row for row in random.Random(seed).sample(rows, len(rows))}.values())
    by_type: dict[str, list[tuple[int, int, TwoHop]]] = defaultdict(list)
    taken: Counter[tuple[str, str]] = Counter()
    for order, row in enumerate(shuffled):
        by_type[row.type].append((taken[row.type, row.bridge.name], order, row))
        taken[row.type, row.bridge.name] += 1
    queues = [sorted(queue, key=lambda turn: turn[:2]) for queue in by_type.values()]
    return [turn[2] for turns in zip_longest(*queues) for turn in turns if turn is not None][:n]


def continuations(
    model: Any,
    prompts: Iterable[str],
    *,
    chat: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = False,
) -> list[str]:
    """Let the model continue each prompt, greedily.

    Args:
        model: the hooked model.
        prompts: texts, read as they are.
        chat: read them as user turns instead.
        max_new_tokens: longest continuation, in tokens.
        progress: whether to show a bar, in prompts.

    Raises:
        InterpToolkitError: an empty prompt.
    """
    rows = prompt_ids(model.tokenizer, list_prompts(prompts), chat)
    # A cache has no padding in it, so prompts that are decoded together have one length, and their first token.
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        alike[len(row), row[0]].append(i)
    out = [""] * len(rows)
    batches = [numbers[i : i + _ROWS] for numbers in alike.values() for i in range(0, len(numbers), _ROWS)]
    with tqdm(total=len(rows), desc="continuing", unit="prompt", disable=not progress) as bar:
        for batch in batches:
            run, embeddings = as_soft_prompt(model, [rows[i] for i in batch])
            for i, (text,) in zip(batch, generate(run, embeddings, max_new_tokens=max_new_tokens, until="stop")):
                out[i] = text.text
            bar.update(len(batch))
    return out


def answers_hops(model: Any, rows: Sequence[TwoHop], *, progress: bool = False) -> pd.DataFrame:
    """Test whether the model gets hop 1, hop 2 and the two-hop question of each row right.

    Each cloze is continued greedily, without the chat template; an answer is right where its first line names the
    entity (see `Entity`), so an empty one never is. Clozes that several rows share are continued once. A row is kept
    where all three are right. Where the question is right and hop 1 is wrong, the model cannot have used the bridge:
    such a ``shortcut`` is listed, not dropped (compare arXiv 2602.10352, bridge entities).

    Args:
        model: the hooked model.
        rows: two-hop questions.
        progress: whether to show a bar, in clozes.

    Returns:
        one row per question, in order: ``id``, ``type``, ``question``, ``bridge``, ``answer``; ``hop1``, ``hop2``,
        ``twohop`` (whether each is right); ``verdict`` (``kept``, ``shortcut``, ``hop 2 wrong``, ``two-hop wrong``,
        ``failed``); the continuations ``hop1_answer``, ``hop2_answer``, ``twohop_answer``; ``reason`` of a failure.

    Example:
        >>> verdicts = answers_hops(model, rows)
        >>> kept = [row for row, verdict in zip(rows, verdicts["verdict"]) if verdict == "kept"]
    """
    complete = [all(getattr(row, hop).strip() for hop in HOPS) for row in rows]
    unique = {getattr(row, hop) for row, is_complete in zip(rows, complete) if is_complete for hop in HOPS}
    clozes = sorted(unique, key=lambda cloze: (len(cloze), cloze))
    continued = dict(zip(clozes, continuations(model, clozes, progress=progress)))
    out = []
    for row, is_complete in zip(rows, complete):
        answers = {hop: continued[getattr(row, hop)] if is_complete else "" for hop in HOPS}
        right = {hop: (row.bridge if hop == "hop1" else row.answer).named_in(_answer(answers[hop])) for hop in HOPS}
        missing = [hop for hop in HOPS if not getattr(row, hop).strip()]
        out.append(
            dict(id=row.id, type=row.type, question=row.twohop, bridge=row.bridge.name, answer=row.answer.name)
            | right
            | dict(verdict=_verdict(**right) if is_complete else FAILED)
            | {f"{hop}_answer": answers[hop] for hop in HOPS}
            | dict(reason="" if is_complete else f"the cloze of {' and '.join(missing)} is empty")
        )
    columns = ["id", "type", "question", "bridge", "answer", *HOPS, "verdict", *(f"{hop}_answer" for hop in HOPS)]
    return pd.DataFrame(out, columns=[*columns, "reason"])


def _answer(text: str) -> str:
    """The first line of a continuation: later lines are no answer."""
    return (text.strip().splitlines() or [""])[0]


def _verdict(hop1: bool, hop2: bool, twohop: bool) -> str:
    if not twohop:
        return TWOHOP_WRONG
    if not hop1:
        return SHORTCUT
    return KEPT if hop2 else HOP2_WRONG


def _aliases(row: dict[str, Any], _: int) -> tuple[str, tuple[str, ...]]:
    return _text(row, "label").lower(), tuple(alias for alias in _texts(row, "aliases") if not _CODE.fullmatch(alias))


def _composed(row: dict[str, Any], number: int, entity: Callable[..., Entity]) -> TwoHop:
    kind = _text(row, "type")
    return TwoHop(
        id=number,
        type=kind,
        bridge=entity(_text(row, "e2"), _texts(row, "e2_aliases"), kind.split("->")[1]),
        answer=entity(_text(row, "e3"), _texts(row, "e3_aliases")),
        subject=_text(row, "e1"),
        hop1=_text(row, "hop1_prompt"),
        hop2=_text(row, "hop2_prompt"),
        twohop=_text(row, "twohop_prompt"),
    )


def _mquake(row: dict[str, Any], number: int, entity: Callable[..., Entity]) -> TwoHop:
    phrase, hop2, bridge = _text(row, "hop1_phrase"), _text(row, "hop2_cloze"), _text(row, "bridge")
    head = _HEAD.match(phrase)
    kind = head[1] if head else _OTHER
    return TwoHop(
        id=number,
        type=f"{kind}->{hop2.replace(bridge, '_')}",
        bridge=entity(bridge, (), kind),
        answer=entity(_text(row, "answer")),
        subject="",
        # The phrase for the bridge, as a cloze: "The author of Misery is".
        hop1=f"{phrase[:1].upper()}{phrase[1:]} is" if phrase.strip() else "",
        hop2=hop2,
        twohop=_text(row, "twohop_cloze"),
    )


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row[key], str):
        raise TypeError(f"expected a text for {key!r}, got {row[key]!r:.60}")
    return row[key]


def _texts(row: dict[str, Any], key: str) -> list[str]:
    if not isinstance(row[key], list) or not all(isinstance(text, str) for text in row[key]):
        raise TypeError(f"expected a list of texts for {key!r}, got {row[key]!r:.60}")
    return row[key]


def _parse_lines(path: Path, parse: Callable[[dict[str, Any], int], Any], what: str) -> list[Any]:
    path = path.expanduser()
    if not path.exists():
        raise FileFormatError(f"there is no file {path}; expected {what}")
    out = []
    for name, row in read_json_lines(path, what, f"a row of {what}"):
        try:
            out.append(parse(row, len(out)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise FileFormatError(f"{name}: expected a row of {what}: {error!r}") from error
    return out
