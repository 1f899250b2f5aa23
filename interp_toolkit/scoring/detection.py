"""Detection scoring: can contexts in which a feature is active be told from others by its label?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Ask
from interp_toolkit.scoring.label_sources import check_rows

QUESTION = (
    "Text: {text}\n\nIs this text, or any word in it, an instance of the following? {label}\n"
    "Answer with yes or no alone."
)
COLUMNS = ("source", "feature", "number", "label", "auroc", "active", "silent", "unjudged", "reason")
# An empty label says nothing; it is embedded as this, since some embedding models refuse an empty text.
_EMPTY = "-"
# Pairs whose embeddings are multiplied at once.
_PAIRS = 2**14

Judge = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Pairs of a label and a text, to how much each text shows its label, on any scale; NaN where there is no telling."""


@dataclass(frozen=True)
class Examples:
    """Contexts of a feature.

    Attributes:
        active: texts in which it is active.
        silent: texts in which it is not.
    """

    active: tuple[str, ...]
    silent: tuple[str, ...]


def read_examples(
    features: Sequence[int],
    active: Callable[[int], pd.DataFrame],
    silent: Callable[[int], pd.DataFrame],
) -> dict[int, Examples]:
    """Examples of features from their contexts.

    Args:
        features: numbers.
        active: from a feature to the contexts in which it is active, with a column ``text``.
        silent: likewise to those in which it is not.

    Example:
        >>> read_examples(features, lambda f: contexts.of(f, 20), lambda f: contexts.silent(f, 20))
    """
    return {int(f): Examples(tuple(active(f)["text"]), tuple(silent(f)["text"])) for f in features}


def detection_scores(rows: pd.DataFrame, examples: Mapping[int, Examples], judge: Judge) -> pd.DataFrame:
    """How well each label tells its feature's contexts from others.

    The score is the area under the ROC curve (AUROC): how often a context in which the feature is active is judged to
    show the label more than one in which it is not; equals count half, so 0.5 is chance.

    Args:
        rows: see `label_rows`; as many labels for every source and feature.
        examples: of each feature; contexts that the label was made from favour it, so take others where there are any.
        judge: for example `embedding_judge` or `asked_judge`.

    Returns:
        a row each, in their order: ``source``, ``feature``, ``number``, ``label``, ``auroc``, ``active``, ``silent``
        (texts judged), ``unjudged`` (texts that the judge could not tell, which are left out), ``reason`` (why there is
        no score; else empty). See `score_table`.

    Raises:
        InterpToolkitError: numbers of labels that differ, or a feature without examples in the mapping.

    Example:
        >>> score_table(detection_scores(rows, examples, embedding_judge(Embedder())), "auroc")
    """
    given = check_rows(rows)
    if missing := sorted({row.feature for row in given} - set(examples)):
        raise InterpToolkitError(f"expected examples of each feature, and feature {missing[0]} has none")
    asked: dict[tuple[str, str], float] = {}
    for row in given:
        own = examples[row.feature]
        if own.active and own.silent and row.label:
            asked |= dict.fromkeys(((row.label, text) for text in (*own.active, *own.silent)), float("nan"))
    if asked:
        told = judge(list(asked))
        if len(told) != len(asked):
            raise InterpToolkitError(f"expected a judgement of each of {len(asked)} pairs, got {len(told)}")
        asked = dict(zip(asked, map(float, told)))
    scored = [row._asdict() | _score(examples[row.feature], row.label, asked) for row in given]
    return pd.DataFrame(scored, columns=list(COLUMNS))


def embedding_judge(embed: Callable[[list[str]], Tensor]) -> Judge:
    """A judge by the cosine between the embeddings of label and text.

    Args:
        embed: from texts to their embeddings, [texts, width]; for example `Embedder`.
    """

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        number = {text: i for i, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
        found = torch.nn.functional.normalize(embed([text.strip() or _EMPTY for text in number]).float(), dim=-1)
        rows = torch.tensor([[number[label], number[text]] for label, text in pairs]).view(-1, 2)
        return torch.cat([(found[part[:, 0]] * found[part[:, 1]]).sum(1) for part in rows.split(_PAIRS)]).tolist()

    return judge


def asked_judge(ask: Ask, question: str = QUESTION) -> Judge:
    """A judge by a chat model's yes or no: 1 and 0, and NaN for an answer that is neither.

    Args:
        ask: for example `ask_server` or `ask_model`.
        question: with ``{text}`` and ``{label}`` in it.
    """

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        # Split first: a text may hold braces.
        before, between, after = _parts(question)
        answers = ask([f"{before}{text}{between}{label}{after}" for label, text in pairs])
        return [_yes_or_no(answer.text) for answer in answers]

    return judge


def _parts(question: str) -> tuple[str, str, str]:
    before, found, rest = question.partition("{text}")
    between, also, after = rest.partition("{label}")
    if not found or not also:
        raise InterpToolkitError(f"expected a question with {{text}} and then {{label}} in it, got {question!r}")
    return before, between, after


def _yes_or_no(answer: str) -> float:
    first = answer.strip().casefold()
    return 1.0 if first.startswith("yes") else 0.0 if first.startswith("no") else float("nan")


def _auroc(active: np.ndarray, silent: np.ndarray) -> float:
    """How often one of the first is above one of the second, equals counting half (Mann-Whitney U)."""
    ranks = rankdata(np.concatenate([active, silent]))[: len(active)]
    return float(ranks.sum() - len(active) * (len(active) + 1) / 2) / (len(active) * len(silent))


def _score(own: Examples, label: str, judged: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    active, silent = (
        np.array([judged.get((label, text), np.nan) for text in texts], dtype=float)
        for texts in (own.active, own.silent)
    )
    unjudged = int(np.isnan(active).sum() + np.isnan(silent).sum())
    active, silent = active[~np.isnan(active)], silent[~np.isnan(silent)]
    auroc, reason = float("nan"), ""
    if not own.active:
        reason = "the feature never fires"
    elif not own.silent:
        reason = "there is no context in which the feature is silent"
    elif not label:
        # A try that says nothing tells nothing.
        auroc, reason, unjudged = 0.5, "the label is empty", 0
    elif not len(active) or not len(silent):
        reason = "the judge could not tell any text of one side"
    else:
        auroc = _auroc(active, silent)
    return dict(auroc=auroc, active=len(active), silent=len(silent), unjudged=unjudged, reason=reason)
