"""Detection scoring: does its label separate texts in which a feature is active from others?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.deprecation import renamed_arguments, renamed_fields
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Ask
from interp_toolkit.sae.labellers import INACTIVE
from interp_toolkit.scoring.label_sources import check_rows

QUESTION = (
    "Text: {text}\n\nIs this text, or any word in it, an instance of the following? {label}\n"
    "Answer with yes or no alone."
)
COLUMNS = ("source", "feature", "number", "label", "auroc", "active", "inactive", "unjudged", "reason")
# Some embedding models refuse an empty text: this is embedded in its place.
_EMPTY = "-"
# Pairs whose embeddings are multiplied at once.
_PAIRS = 2**14

Judge = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""From pairs of a label and a text to how well each text shows its label, on any scale; NaN where it cannot tell."""


@renamed_fields(silent="inactive")
@dataclass(frozen=True)
class Examples:
    """Texts of a feature.

    Attributes:
        active: texts in which it is active.
        inactive: texts in which it is not.
    """

    active: tuple[str, ...]
    inactive: tuple[str, ...]


@renamed_arguments(silent="inactive")
def read_examples(
    features: Sequence[int],
    active: Callable[[int], pd.DataFrame],
    inactive: Callable[[int], pd.DataFrame],
) -> dict[int, Examples]:
    """Read the texts of features from their top examples.

    Args:
        features: numbers.
        active: from a feature to the examples in which it is active, with a column ``text``.
        inactive: likewise to those in which it is not.

    Returns:
        by feature its texts.

    Example:
        >>> read_examples(features, lambda f: examples.get(f, 20), lambda f: examples.inactive(f, 20))
    """
    return {int(f): Examples(tuple(active(f)["text"]), tuple(inactive(f)["text"])) for f in features}


def detection_scores(rows: pd.DataFrame, examples: Mapping[int, Examples], judge: Judge) -> pd.DataFrame:
    """Score labels by how well they tell texts in which their feature is active from others.

    The score is the area under the ROC curve (AUROC): how often a text in which the feature is active is judged to
    show the label more than one in which it is not; equals count half, so 0.5 is chance.

    Args:
        rows: see `label_rows`; as many labels for every source and feature.
        examples: texts of each feature; those that the label was made from favour it, so take others where there are
            any.
        judge: for example `embedding_judge` or `llm_judge`.

    Returns:
        one row per label, in their order: ``source``, ``feature``, ``number``, ``label``, ``auroc``, ``active``,
        ``inactive`` (texts judged), ``unjudged`` (texts that the judge could not tell, which are left out), ``reason``
        (why there is no score; else empty). See `score_table`.

    Raises:
        InterpToolkitError: numbers of labels that differ, a feature without examples in the mapping, another number of
            judgements than of pairs, or scikit-learn is missing.

    Example:
        >>> score_table(detection_scores(rows, examples, embedding_judge(Embedder())), "auroc")
    """
    labels = check_rows(rows)
    if missing := sorted({row.feature for row in labels} - set(examples)):
        raise InterpToolkitError(f"expected examples of each feature, and feature {missing[0]} has none")
    judged: dict[tuple[str, str], float] = {}
    for row in labels:
        texts = examples[row.feature]
        if texts.active and texts.inactive and row.label:
            judged |= dict.fromkeys(((row.label, text) for text in (*texts.active, *texts.inactive)), float("nan"))
    if judged:
        judgements = judge(list(judged))
        if len(judgements) != len(judged):
            raise InterpToolkitError(f"expected a judgement of each of {len(judged)} pairs, got {len(judgements)}")
        judged = dict(zip(judged, map(float, judgements)))
    scores = [row._asdict() | _score(examples[row.feature], row.label, judged) for row in labels]
    return pd.DataFrame(scores, columns=list(COLUMNS))


def embedding_judge(embed: Callable[[list[str]], Tensor]) -> Judge:
    """A judge by the cosine between the embeddings of label and text.

    Args:
        embed: from texts to their embeddings, [texts, width]; for example `Embedder`.
    """

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        number = {text: i for i, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
        units = torch.nn.functional.normalize(embed([text.strip() or _EMPTY for text in number]).float(), dim=-1)
        rows = torch.tensor([[number[label], number[text]] for label, text in pairs]).view(-1, 2)
        return torch.cat([(units[part[:, 0]] * units[part[:, 1]]).sum(1) for part in rows.split(_PAIRS)]).tolist()

    return judge


def llm_judge(ask: Ask, question: str = QUESTION) -> Judge:
    """A judge by a chat model's yes or no: 1 and 0, and NaN for an answer that is neither.

    Args:
        ask: for example `ask_server` or `ask_model`.
        question: with ``{text}`` and then ``{label}`` in it.

    Raises:
        InterpToolkitError: a question without them, when the judge is called.
    """

    def judge(pairs: Sequence[tuple[str, str]]) -> list[float]:
        # Not by str.format: labels and texts may hold braces.
        before, between, after = _split(question)
        answers = ask([f"{before}{text}{between}{label}{after}" for label, text in pairs])
        return [_yes_or_no(answer.text) for answer in answers]

    return judge


def _split(question: str) -> tuple[str, str, str]:
    before, text, rest = question.partition("{text}")
    between, label, after = rest.partition("{label}")
    if not text or not label:
        raise InterpToolkitError(f"expected a question with {{text}} and then {{label}} in it, got {question!r}")
    return before, between, after


def _yes_or_no(answer: str) -> float:
    first = answer.strip().casefold()
    return 1.0 if first.startswith("yes") else 0.0 if first.startswith("no") else float("nan")


def _auroc(active: np.ndarray, inactive: np.ndarray) -> float:
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError:
        raise InterpToolkitError("detection scoring takes scikit-learn: pip install 'interp-toolkit[eval]'") from None
    is_active = np.repeat([True, False], [len(active), len(inactive)])
    return float(roc_auc_score(is_active, np.concatenate([active, inactive])))


def _score(examples: Examples, label: str, judged: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    active, inactive = (
        np.array([judged.get((label, text), np.nan) for text in texts], dtype=float)
        for texts in (examples.active, examples.inactive)
    )
    unjudged = int(np.isnan(active).sum() + np.isnan(inactive).sum())
    active, inactive = active[~np.isnan(active)], inactive[~np.isnan(inactive)]
    auroc, reason = float("nan"), ""
    if not examples.active:
        reason = INACTIVE
    elif not examples.inactive:
        reason = "there is no text in which the feature is inactive"
    elif not label:
        # An empty label tells nothing apart.
        auroc, reason, unjudged = 0.5, "the label is empty", 0
    elif not len(active) or not len(inactive):
        reason = "the judge could not tell any text of one side"
    else:
        auroc = _auroc(active, inactive)
    return dict(auroc=auroc, active=len(active), inactive=len(inactive), unjudged=unjudged, reason=reason)
