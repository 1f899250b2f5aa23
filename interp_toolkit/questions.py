"""`ask`: questions about hidden states, answered freely or by choices whose probabilities are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import Activations, Positions
from interp_toolkit.adapters import Adapter
from interp_toolkit.centering import Means, OnMismatch
from interp_toolkit.chat import Prompt
from interp_toolkit.describing import Prepared, describe, on_still_model
from interp_toolkit.engines import DEFAULT_MODEL, Engine, as_engine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import prepare
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import PlaceLike
from interp_toolkit.torch_defaults import plain_defaults

COLUMNS = ("source", "site", "position", "token", "question", "answer", "log_prob", "evidence")
CHOICE_COLUMNS = ("probability", "null_probability", "log_odds", "contrast")
_GREEDY = Sampling()


@plain_defaults()
def ask(
    inputs: Prompt | Iterable[Prompt] | Float[Tensor, "*n d_model"] | np.ndarray | Activations,
    question: str | Sequence[str],
    choices: Sequence[str] | None = None,
    *,
    model: Any = DEFAULT_MODEL,
    adapter: Adapter | str | Path | None = None,
    against: Float[Tensor, "m width"] | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    sampling: Sampling = _GREEDY,
    centered: bool = True,
    center: Means | None = None,
    on_mismatch: OnMismatch = "error",
    chat: bool | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Ask a model about its own hidden states.

    The soft token of a vector stands in the question's prompt where a text would. With choices, each is scored: one
    that the model favours whatever it is given differs from one that the vector speaks for in what it has of the null
    vector and of other vectors. An adapter that was trained on pairs with questions puts them as in training; others
    never saw a question.

    Args:
        inputs: as `self_explain` takes them, and so all arguments that are not named here.
        question: one or several, as one would ask of a text: ``"Is this about a person?"``.
        choices: at least two answers to compare, such as ``["yes", "no"]``; None for free answers.
        model: as of `self_explain`; not a server of ``interp-toolkit serve``.
        adapter: as of `self_explain`.
        against: other vectors, as the adapter takes them, whose answers are what a choice's ``contrast`` is above; by
            default the other inputs of this call.
        sites: where to read prompts.
        positions: which tokens of a prompt.
        sampling: of free answers; choices are not sampled.
        centered: whether vectors are centered already.
        center: means by site.
        on_mismatch: what to do at a site that the adapter was not trained on.
        chat: whether texts are user turns.
        progress: whether to show bars.

    Returns:
        one row per vector, question and answer, with the columns ``source``, ``site``, ``position``, ``token``,
        ``question``, ``answer``, ``log_prob`` (mean log-probability of the answer's tokens, in nats) and ``evidence``
        (that less the same given the null vector). With choices also ``probability`` among them, ``null_probability``
        (given the null vector), ``log_odds`` of the choice against all others together, and ``contrast``: these
        log-odds less their mean over other vectors, NaN where there are none.

    Raises:
        InterpToolkitError: as `self_explain`; no question, fewer than two choices or one twice, or vectors of another
            width in ``against``.

    Example:
        >>> ask(["Tell me about Marie Curie.", "Tell me about Paris."], "Is this about a person?", ["yes", "no"])
    """
    questions = [question] if isinstance(question, str) or not isinstance(question, Iterable) else list(question)
    if not questions or not all(isinstance(text, str) and text.strip() for text in questions):
        raise InterpToolkitError(f"expected a question or several, got {question!r:.80}")
    answers = None if choices is None else _checked(choices)
    engine = as_engine(model)
    with on_still_model(engine):
        prepared = prepare(
            engine,
            inputs,
            adapter=adapter,
            sites=sites,
            positions=positions,
            centered=centered,
            center=center,
            on_mismatch=on_mismatch,
            chat=chat,
            progress=progress,
        )
        if answers is None:
            if against is not None:
                raise InterpToolkitError("against would have no effect: free answers are not compared; leave it out")
            rows = [_free_answers(engine, prepared, text, sampling, progress) for text in questions]
        else:
            if sampling != _GREEDY:
                raise InterpToolkitError("sampling would have no effect: choices are not sampled; leave it out")
            others = _checked_others(prepared, against)
            rows = [_choices(engine, prepared, text, answers, others) for text in questions]
    return pd.concat(rows, ignore_index=True)


def _checked(choices: Sequence[str]) -> list[str]:
    texts = [] if isinstance(choices, str) else [str(choice).strip() for choice in choices]
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise InterpToolkitError(f"expected at least two different choices, got {choices!r:.80}")
    return texts


def _checked_others(prepared: Prepared, against: Tensor | None) -> Tensor | None:
    width = prepared.adapter.config.width
    if against is not None and (against.ndim != 2 or against.shape[1] != width or not len(against)):
        raise InterpToolkitError(
            f"expected other vectors of shape (m, {width}) in against, got {tuple(against.shape)}; pass them as the "
            f"adapter takes them"
        )
    return against


def _tokenizer(engine: Engine) -> Any:
    tokenizer = getattr(engine, "tokenizer", None)
    if tokenizer is None:
        raise InterpToolkitError(
            f"expected an engine with a tokenizer, in whose tokens questions are put, got {type(engine).__name__} "
            f"without; give it the attribute"
        )
    return tokenizer


def _free_answers(
    engine: Engine, prepared: Prepared, question: str, sampling: Sampling, progress: bool
) -> pd.DataFrame:
    soft_prompt = prepared.adapter.require_contract().require_soft_prompt().about(question, _tokenizer(engine))
    # Neither threshold nor confidence was calibrated for answers.
    asking = replace(prepared, adapter=prepared.adapter.with_soft_prompt(soft_prompt), as_in_training=False)
    frame = describe(engine, asking, sampling, progress=progress).to_df()
    return frame.rename(columns={"description": "answer"}).assign(question=question).reindex(columns=list(COLUMNS))


@torch.no_grad()
def _choices(
    engine: Engine, prepared: Prepared, question: str, choices: Sequence[str], others: Tensor | None
) -> pd.DataFrame:
    adapter, vectors = prepared.adapter, prepared.vectors
    soft_prompt = adapter.require_contract().require_soft_prompt().about(question, _tokenizer(engine))
    targets = soft_prompt.targets(_tokenizer(engine), choices)
    values = vectors.values if others is None else torch.cat([vectors.values, others.detach().float().cpu()])
    null = adapter.null()  # where the adapter is; it may have no parameters
    # The null vector first.
    soft_tokens = torch.cat([null[None], adapter(values.to(null.device))]).to(engine.device)
    index = [row for row in range(len(soft_tokens)) for _ in choices]
    means = engine.score(soft_prompt, soft_tokens, targets * len(soft_tokens), index).mean()
    log_probs = means.double().cpu().view(-1, len(choices)).numpy()
    odds = choice_log_odds(log_probs * [len(target) for target in targets])
    probability = 1 / (1 + np.exp(-odds))
    n = len(vectors)
    contrast = odds[1 : n + 1] - _means_of_others(odds[1:], n, others is not None)
    columns = ("source", "site", "position", "token")
    places = zip(vectors.sources, vectors.sites, vectors.positions, vectors.tokens)
    rows = []
    for row, place in enumerate(places, start=1):
        for number, choice in enumerate(choices):
            rows.append(
                dict(zip(columns, place))
                | dict(question=question, answer=choice, log_prob=log_probs[row, number])
                | dict(evidence=log_probs[row, number] - log_probs[0, number])
                | dict(probability=probability[row, number], null_probability=probability[0, number])
                | dict(log_odds=odds[row, number], contrast=contrast[row - 1, number])
            )
    return pd.DataFrame(rows, columns=[*COLUMNS, *CHOICE_COLUMNS])


def choice_log_odds(log_probs: np.ndarray) -> np.ndarray:
    """Log-odds of each choice against all others together, [rows, choices].

    Args:
        log_probs: of each whole choice, in nats, [rows, choices].
    """
    odds = np.empty_like(log_probs)
    for number in range(log_probs.shape[1]):
        rest = np.delete(log_probs, number, axis=1)
        odds[:, number] = log_probs[:, number] - np.logaddexp.reduce(rest, axis=1)
    return odds


def _means_of_others(odds: np.ndarray, count: int, separate: bool) -> np.ndarray:
    """For each of the first ``count`` rows the mean of the others: of those behind them, or of all but itself."""
    if separate:
        return np.broadcast_to(odds[count:].mean(0), odds[:count].shape)
    if count < 2:
        return np.full_like(odds, np.nan)
    return (odds.sum(0) - odds) / (count - 1)
