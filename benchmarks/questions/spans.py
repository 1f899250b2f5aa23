"""What an answer gains by resting on several tokens of a text rather than on its last one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from benchmarks.questions.measure import known_answers
from benchmarks.questions.questions import YES_NO, Answered, Question
from benchmarks.questions.training import Reader, answer_pairs, train
from interp_toolkit import Adapter
from interp_toolkit.evaluation.answers import ADAPTER, PROBE, SHUFFLED, answer_table
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.statistics import mean_interval

SPAN = 8
LAST, MEAN, SPANS = "the last token", "mean of eight tokens", "eight tokens, each in its slot"
# Texts of each question, as many of each answer.
_TRAIN, _TEST, _EPOCHS = 480, 120, 2


def measure_spans(
    context: EvalContext,
    questions: Sequence[Question],
    adapter: Adapter,
    folder: Path,
    path: Path,
    max_steps: int | None,
) -> None:
    """Train an adapter further on last tokens and on spans of eight, equally, and measure the answers of both.

    The control is the mean of the eight vectors in one slot: what it gives needs no span.

    Args:
        context: with the model.
        questions: of which those are measured that are trained on and name their answers: to yes or no, an adapter
            trained on last tokens answers badly (see `measure`), which is no ground to compare on.
        adapter: where both trainings begin.
        folder: of both runs.
        path: of the results file; one with the same settings is left as it is.
        max_steps: of a trial.
    """
    place = adapter.require_contract().require_site()
    readers = {span: Reader(context.model, place, span) for span in (1, SPAN)}
    long = readers[SPAN].long_enough
    chosen = [
        replace(one, train=tuple(long(_first(one, one.train, _TRAIN))), test=tuple(long(_first(one, one.test, _TEST))))
        for one in questions
        if one.trained and one.choices != YES_NO
    ]
    chosen = [one for one in chosen if len({x.right for x in one.test}) > 1]
    settings = context.facts | dict(
        n=sum(len(one.test) for one in chosen),
        trained_on=sum(len(one.train) for one in chosen),
        epochs=_EPOCHS,
        span=SPAN,
        digest=adapter.digest,
        questions=hashlib.sha256(repr([asdict(one) for one in chosen]).encode()).hexdigest()[:16],
    )
    if finished_result(path, settings):
        print(f"spans: done before, see {path}")
        return
    trained = {
        span: train(
            context.model, answer_pairs(chosen, reader, adapter), adapter, _EPOCHS, folder / f"span-{span}", max_steps
        )
        for span, reader in readers.items()
    }
    rows: list[dict[str, Any]] = []
    for one in tqdm(chosen, desc="measuring", unit="question", disable=not context.progress):
        rows += _rows(context, one, readers, trained)
    tables = dict(answers=rows, families=_families(rows))
    write_result(path, make_result(settings, context.versions, tables))
    print(pd.DataFrame(tables["families"]).to_string(index=False))


def _first(question: Question, texts: Sequence[Answered], count: int) -> list[Answered]:
    """The first texts of each answer, which stand in drawn order."""
    taken: Counter[int] = Counter()
    out = []
    for one in texts:
        taken[one.right] += 1
        if taken[one.right] <= count // len(question.choices):
            out.append(one)
    return out


def _rows(
    context: EvalContext, question: Question, readers: dict[int, Reader], trained: dict[int, Adapter]
) -> list[dict[str, Any]]:
    """The answers about the last token, about the mean of eight, and about all eight; and a probe of the first two."""
    wording = question.wordings[0]
    sides = {
        (span, side): known_answers(question, rows, wording, reader, trained[span])
        for span, reader in readers.items()
        for side, rows in (("train", question.train), ("test", question.test))
    }
    # Without texts: the control of a model that reads them is measured beside the other questions.
    sides = {key: replace(known, texts=()) for key, known in sides.items()}
    means = {side: replace(sides[SPAN, side], vectors=sides[SPAN, side].vectors.mean(1)) for side in ("train", "test")}
    tables = {
        LAST: answer_table(context.model, trained[1], sides[1, "test"], train=sides[1, "train"], seed=SEED),
        MEAN: answer_table(context.model, trained[1], means["test"], train=means["train"], seed=SEED),
        SPANS: answer_table(context.model, trained[SPAN], sides[SPAN, "test"], seed=SEED),
    }
    return [
        dict(family=question.family, question=question.name, read=read) | row
        for read, table in tables.items()
        for row in table.to_dict("records")
        if row["by"] in (ADAPTER, PROBE, SHUFFLED)
    ]


def _families(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the questions of each family and of all, with what eight slots add to one, question by question."""
    frame = pd.DataFrame(rows).pivot(index=["family", "question"], columns=["by", "read"], values="value")
    for other in (LAST, MEAN):
        frame[ADAPTER, f"{SPANS}, less {other}"] = frame[ADAPTER, SPANS] - frame[ADAPTER, other]
    out = []
    for family, part in [*frame.groupby(level="family", sort=False), ("all", frame)]:
        for by, read in frame.columns:
            if len(values := part[by, read].dropna()):
                interval = mean_interval(values.to_numpy(), seed=SEED).to_dict()
                out.append(dict(family=family, by=by, read=read) | interval)
    return out
