"""How well answers tell vectors apart, beside controls, and whether an adapter that answers still describes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.questions.questions import Answered, Question
from benchmarks.questions.training import Reader
from benchmarks.tokens.reading import LAST, read_topics
from interp_toolkit import Adapter
from interp_toolkit import questions as questions_module
from interp_toolkit.cache import JsonCache
from interp_toolkit.evaluation import answers as answers_module
from interp_toolkit.evaluation import recall_table
from interp_toolkit.evaluation.answers import ADAPTER, KnownAnswers, answer_table, best_answer_scale
from interp_toolkit.evaluation.context import SEED, EvalContext, tensor_digest
from interp_toolkit.results import finished_result, intervals_by_measure, make_result, write_result
from interp_toolkit.statistics import mean_interval

TRAINED_WORDING, UNSEEN_WORDING, UNSEEN_QUESTION = "trained", "unseen wording", "unseen question"
AS_SHIPPED = "adapter without questions"
# Examples of each question by which the length of the untrained direction is chosen, and titles that are described.
_CHOOSING, _TITLES = 40, 400
_SCALES = (1.0, 3.0, 6.0, 12.0, 25.0, 50.0)
_SHIPPED_WORDING = "Tell me about {title}."


def measure(
    context: EvalContext, questions: Sequence[Question], reader: Reader, adapter: Adapter, start: Adapter, path: Path
) -> None:
    """Measure an adapter's answers and write the result; one with the same settings is left as it is.

    Args:
        context: with model and titles.
        questions: with the texts that are measured.
        reader: of the texts.
        adapter: that was trained to answer.
        start: the adapter where its training began.
        path: of the results file.
    """
    titles = context.titles.held_out[:_TITLES]
    settings = context.facts | dict(
        n=sum(len(question.test) for question in questions),
        described=len(titles),
        digests=dict(adapter=adapter.digest, start=start.digest),
        questions=hashlib.sha256(repr([asdict(question) for question in questions]).encode()).hexdigest()[:16],
    )
    if finished_result(path, settings):
        print(f"questions: done before, see {path}")
        return
    scale = _scale(context, questions, reader, adapter)
    print(f"length of the untrained direction: {scale}", flush=True)
    rows: list[dict[str, Any]] = []
    for question in tqdm(questions, desc="measuring", unit="question", disable=not context.progress):
        rows += _question_rows(context, question, reader, adapter, start, scale)
    recall = [
        dict(adapter=name) | _recall(context, one, titles) for name, one in (("start", start), ("answers", adapter))
    ]
    tables = dict(answers=rows, families=family_rows(rows), describing=recall)
    write_result(path, make_result(settings | dict(scale=scale), context.versions, tables))
    print(pd.DataFrame(tables["families"]).to_string(index=False))


def known_answers(
    question: Question, rows: Sequence[Answered], wording: str, reader: Reader, adapter: Adapter
) -> KnownAnswers:
    """A question in one wording, with the vectors of some of its texts as an adapter takes them.

    Args:
        question: that is put.
        rows: its texts of training, or those that are measured.
        wording: how it is put.
        reader: of the texts.
        adapter: whose mean is subtracted.
    """
    texts = [one.text for one in rows]
    vectors = adapter.require_contract().centre(torch.stack(reader.read(texts)))
    return KnownAnswers(wording, question.choices, vectors, [one.right for one in rows], [one.text for one in texts])


def family_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean over the questions of each family, with an interval over questions.

    Args:
        rows: of all questions.
    """
    areas: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if not math.isnan(row["value"]):
            areas.setdefault((row["family"], row["wording"], row["by"]), []).append(row["value"])
    return [
        dict(zip(("family", "wording", "by"), key)) | mean_interval(values, seed=SEED).to_dict()
        for key, values in areas.items()
    ]


def _scale(context: EvalContext, questions: Sequence[Question], reader: Reader, adapter: Adapter) -> float:
    """The length of the untrained direction that answers training texts best."""
    chosen = []
    for question in questions:
        if question.trained:
            step = max(1, len(question.train) // _CHOOSING)
            one = known_answers(question, question.train[::step], question.wordings[0], reader, adapter)
            if len(set(one.right)) > 1:
                chosen.append(one)
    key = ["scale", *context.key(answers_module, questions_module), adapter.digest]
    key += [[one.question, tensor_digest(one.vectors)] for one in chosen] + list(_SCALES)
    return JsonCache("answers").get(key, lambda: best_answer_scale(context.model, adapter, chosen, _SCALES))


def _question_rows(
    context: EvalContext, question: Question, reader: Reader, adapter: Adapter, start: Adapter, scale: float
) -> list[dict[str, Any]]:
    """A question in a wording of training and in one that it never had; one never trained on in its first."""
    first, then = (TRAINED_WORDING, UNSEEN_WORDING) if question.trained else (UNSEEN_QUESTION, None)
    known = known_answers(question, question.test, question.wordings[0], reader, adapter)
    if len(set(known.right)) < 2:
        return []
    train = known_answers(question, question.train, question.wordings[0], reader, adapter) if question.train else None
    tables = [
        _table(context, adapter, known, train=train, untrained_scale=scale).assign(wording=first),
        # The start has another soft prompt text for questions alone; its vectors are the same.
        _table(context, start, replace(known, texts=())).assign(wording=first).replace({ADAPTER: AS_SHIPPED}),
    ]
    if then:
        tables.append(_table(context, adapter, replace(known, question=question.unseen)).assign(wording=then))
    joined = pd.concat(tables, ignore_index=True)
    # Shuffled vectors are those of the measured adapter.
    doubled = joined.duplicated(["wording", "by"])
    return joined[~doubled].assign(family=question.family, question=question.name).to_dict("records")


def _table(context: EvalContext, adapter: Adapter, known: KnownAnswers, **settings: Any) -> pd.DataFrame:
    """As `answer_table`, cached: what an interruption can lose is one question."""
    train = settings.get("train")
    key = [
        *context.key(answers_module, questions_module),
        adapter.digest,
        adapter.require_contract().require_soft_prompt().to_dict(),
        [known.question, *known.choices, tensor_digest(known.vectors), list(known.right), list(known.texts)],
        [settings.get("untrained_scale"), None if train is None else [tensor_digest(train.vectors), train.right]],
    ]
    rows = JsonCache("answers").get(
        key, lambda: answer_table(context.model, adapter, known, seed=SEED, **settings).to_dict("records")
    )
    return pd.DataFrame(rows)


def _recall(context: EvalContext, adapter: Adapter, titles: Sequence[str]) -> dict[str, Any]:
    """Recall of held-out titles by one greedy description, at the last token of a turn."""
    contract = adapter.require_contract()
    raw = read_topics(context.model, titles, [_SHIPPED_WORDING] * len(titles), contract.require_site())[LAST]
    texts = context.describe(adapter, contract.centre(raw), 1).texts
    return intervals_by_measure(recall_table(context.ranks(texts, context.answers(titles))[:, 0], seed=SEED))
