"""Answers about vectors beside controls: a linear probe, the text itself, other vectors, and no training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import encode
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.confidence import auroc
from interp_toolkit.evaluation.control_kinds import untrained_control
from interp_toolkit.evaluation.controls import SCALES
from interp_toolkit.models import backend_of
from interp_toolkit.questions import ask, choice_log_odds
from interp_toolkit.runtime import PromptRun, score
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import PromptTokens
from interp_toolkit.statistics import Interval, resampled_interval
from interp_toolkit.torch_defaults import plain_defaults

ADAPTER, SHUFFLED, UNTRAINED = "adapter", "shuffled vectors", "untrained direction"
TEXT, PROBE = "text shown", "linear probe"
COLUMNS = ("by", "value", "low", "high", "n", "seed")
# Inverse strengths of the probe's penalty, of which three-fold cross-validation on the training vectors chooses.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
_FOLDS = 3
# Fewer examples of an answer cannot be in every fold.
_FEWEST = 6


@dataclass(frozen=True, eq=False)
class KnownAnswers:
    """Vectors with the right answer to a question about each.

    Attributes:
        question: as one would ask of a text.
        choices: the answers it has, at least two.
        vectors: as the adapter takes them, [n, width], or spans of them, [n, span, width].
        right: number of the right choice of each vector.
        texts: what each vector was read from; empty where it was read from none.
    """

    question: str
    choices: Sequence[str]
    vectors: Tensor
    right: Sequence[int]
    texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        count = len(self.vectors)
        if len(self.right) != count or len(self.texts) not in (0, count):
            raise InterpToolkitError(
                f"expected an answer, and a text or none, for each of {count} vectors, got {len(self.right)} answers "
                f"and {len(self.texts)} texts"
            )
        if wrong := [i for i in self.right if not 0 <= i < len(self.choices)]:
            raise InterpToolkitError(
                f"expected numbers of {len(self.choices)} choices as right answers, got {wrong[0]}; they count from 0"
            )


@plain_defaults()
def answer_table(
    model: Any,
    adapter: Adapter,
    known: KnownAnswers,
    *,
    train: KnownAnswers | None = None,
    untrained_scale: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how well an adapter's answers tell vectors apart, beside controls.

    The measure is the area under the ROC curve (AUROC): how often the first choice has higher log-odds for a vector of
    which it is right than for another. Of more than two choices every pair of a vector and a choice counts, by its
    ``contrast`` (see `ask`), so that a choice that is likely for every vector gains nothing. 0.5 is chance.

    Args:
        model: the hooked model.
        adapter: with its contract.
        known: vectors with right answers.
        train: vectors that a linear probe is fitted to, with the same choices; without them there is none.
        untrained_scale: length of the untrained direction, see `best_answer_scale`; None to leave it out.
        seed: of the shuffling and of the bootstrap over vectors.

    Returns:
        columns ``by``, ``value`` (AUROC), ``low``, ``high`` (95%), ``n`` (vectors), ``seed``; one row by the
        ``adapter``, ``shuffled vectors`` (each vector's answers are those of another), the ``untrained direction``, the
        ``text shown`` (the same prompt with the text in the soft token's place), the ``linear probe``, and for each the
        paired difference ``adapter less ...``. A control that is not possible has no row.

    Raises:
        InterpToolkitError: as `ask`; vectors that all have one answer; or scikit-learn is missing.

    Example:
        >>> known = KnownAnswers("Is this about a person?", ["yes", "no"], vectors, [0, 1, ...], texts)
        >>> answer_table(model, adapter, known, train=known_of_training)
    """
    if len(set(known.right)) < 2:
        raise InterpToolkitError("expected vectors of at least two answers, got one answer for all; add others")
    answers = _log_odds(model, adapter, known)
    order = np.random.default_rng(seed).permutation(len(answers))
    scores: dict[str, np.ndarray] = {ADAPTER: answers, SHUFFLED: answers[order]}
    if untrained_scale is not None:
        control = untrained_control(adapter, known.vectors, untrained_scale)
        scores[UNTRAINED] = _log_odds(model, control.adapter, known, control.vectors)
    if known.texts:
        scores[TEXT] = text_log_odds(model, adapter, known.question, known.choices, known.texts)
    if train is not None and (probed := probe_log_odds(train, known.vectors)) is not None:
        scores[PROBE] = probed
    rows = []
    for by, values in scores.items():
        rows.append(dict(by=by) | _interval([values], known, seed).to_dict())
        if by != ADAPTER:
            rows.append(dict(by=f"{ADAPTER} less {by}") | _interval([answers, values], known, seed).to_dict())
    return pd.DataFrame(rows, columns=list(COLUMNS))


@plain_defaults()
def best_answer_scale(
    model: Any, adapter: Adapter, known: Sequence[KnownAnswers], scales: Sequence[float] = SCALES
) -> float:
    """Choose the length of the untrained direction that answers best: the highest mean AUROC over questions.

    Args:
        model: the hooked model.
        adapter: whose soft prompt is used.
        known: questions about vectors that are not measured afterwards.
        scales: lengths to try.
    """
    areas = []
    for scale in scales:
        controls = [untrained_control(adapter, one.vectors, scale) for one in known]
        odds = [_log_odds(model, control.adapter, one, control.vectors) for control, one in zip(controls, known)]
        areas.append(float(np.nanmean([_area(scores, one) for scores, one in zip(odds, known)])))
    return scales[areas.index(max(areas))]


@torch.no_grad()
@plain_defaults()
def text_log_odds(
    model: Any, adapter: Adapter, question: str, choices: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """Log-odds of the answers of a model that reads texts, in the adapter's own prompt, [texts, choices].

    Args:
        model: the hooked model.
        adapter: with its contract; a text's tokens stand where its soft tokens would.
        question: about each text.
        choices: answers to compare.
        texts: to read.

    Raises:
        InterpToolkitError: an empty text, or one too long for the model's context.
    """
    backend, tokenizer = backend_of(model), model.tokenizer
    soft_prompt = adapter.require_contract().require_soft_prompt().about(question, tokenizer)
    targets = soft_prompt.targets(tokenizer, choices)
    prompt = soft_prompt.tokens(tokenizer)
    before, behind = prompt.ids[: prompt.slots[0]], prompt.ids[prompt.slots[-1] + 1 :]
    by_length: dict[int, list[int]] = defaultdict(list)
    rows = [encode(tokenizer, text) for text in texts]
    for i, row in enumerate(rows):
        if not row:
            raise InterpToolkitError(f"text {i} is empty; leave it out")
        by_length[len(row)].append(i)
    odds = np.empty((len(texts), len(choices)))
    for length, numbers in by_length.items():
        # All of a length fill the same slots.
        slots = tuple(range(len(before), len(before) + length))
        tokens = PromptTokens((*before, *rows[numbers[0]], *behind), slots)
        run = PromptRun(model, soft_prompt, tokens=tokens)
        ids = [rows[i] for i in numbers]
        embeddings = read_activations(model, ids, Site.embedding(), range(length)).vectors.view(len(ids), length, -1)
        index = [i for i in range(len(ids)) for _ in choices]
        means = score(run, embeddings.to(backend.device), targets * len(ids), index).mean()
        log_probs = means.double().cpu().view(-1, len(choices)).numpy()
        odds[numbers] = choice_log_odds(log_probs * [len(target) for target in targets])
    return odds


def probe_log_odds(train: KnownAnswers, vectors: Tensor) -> np.ndarray | None:
    """Log-odds of answers by a linear probe, [vectors, choices]: logistic regression on standardised vectors.

    The vectors of a span stand side by side.

    Args:
        train: vectors with right answers, to fit it to.
        vectors: to answer about.

    Returns:
        None where a choice has fewer than six training vectors.

    Raises:
        InterpToolkitError: scikit-learn is missing.
    """
    counts = np.bincount(np.asarray(train.right), minlength=len(train.choices))
    if counts.min() < _FEWEST:
        return None
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise InterpToolkitError(
            "a linear probe needs scikit-learn: pip install 'interp-toolkit[eval]', or leave train out"
        ) from error
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(probe, {"logisticregression__C": list(_STRENGTHS)}, scoring="neg_log_loss", cv=folds)
    search.fit(train.vectors.detach().cpu().double().flatten(1).numpy(), np.asarray(train.right))
    log_probs = search.predict_log_proba(vectors.detach().cpu().double().flatten(1).numpy())
    return choice_log_odds(log_probs)


def _log_odds(model: Any, adapter: Adapter, known: KnownAnswers, vectors: Tensor | None = None) -> np.ndarray:
    """Log-odds of each choice, [vectors, choices]."""
    values = known.vectors if vectors is None else vectors
    frame = ask(values, known.question, known.choices, model=model, adapter=adapter)
    return frame["log_odds"].to_numpy(dtype=float).reshape(len(values), len(known.choices))


def _area(odds: np.ndarray, known: KnownAnswers) -> float:
    values, right = _flat(odds, known)
    return auroc(values.ravel(), right.ravel())


def _flat(odds: np.ndarray, known: KnownAnswers) -> tuple[np.ndarray, np.ndarray]:
    """What is ranked, and whether each is right, [vectors, choices that count]."""
    right = np.asarray(known.right)[:, None] == np.arange(len(known.choices))
    if len(known.choices) == 2:
        return odds[:, :1], right[:, :1]
    return odds - odds.mean(0), right


def _interval(several: Sequence[np.ndarray], known: KnownAnswers, seed: int) -> Interval:
    """The area of one kind of answers, or how much larger that of the first is than that of the second."""
    columns = [_flat(odds, known)[0] for odds in several]
    right = _flat(several[0], known)[1]

    def measure(rows: np.ndarray) -> float:
        areas = [auroc(values[rows].ravel(), right[rows].ravel()) for values in columns]
        return areas[0] - areas[1] if len(areas) > 1 else areas[0]

    return resampled_interval(measure, len(right), seed)
