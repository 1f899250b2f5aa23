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
from interp_toolkit.adapters import Adapter, soft_tokens_of
from interp_toolkit.centering import Means, OnMismatch
from interp_toolkit.chat import Prompt
from interp_toolkit.describing import Prepared, describe, on_still_model
from interp_toolkit.engines import DEFAULT_MODEL, Engine, as_engine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import prepare
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import PlaceLike
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.span_inputs import as_spans
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
    against: Float[Tensor, "m *width"] | None = None,
    together: bool = False,
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

    An answer may rest on several tokens of a text: their vectors fill slots one after the other, see
    `SoftPrompt.with_room`.

    Args:
        inputs: as `self_explain` takes them, and so all arguments that are not named here; or spans of vectors,
            [n, span, width].
        question: one or several, as one would ask of a text: ``"Is this about a person?"``.
        choices: at least two answers to compare, such as ``["yes", "no"]``; None for free answers.
        model: as of `self_explain`; not a server of ``interp-toolkit serve``.
        adapter: as of `self_explain`.
        against: other vectors, as the adapter takes them, whose answers are what a choice's ``contrast`` is above; by
            default the other inputs of this call.
        together: whether the tokens that are read of a prompt, at most 16, are one input; ``position`` and ``token``
            are then those of the last.
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
        InterpToolkitError: as `self_explain`; no question, fewer than two choices or one twice, vectors of another
            width in ``against``, or more than 16 tokens together.

    Example:
        >>> ask(["Tell me about Marie Curie.", "Tell me about Paris."], "Is this about a person?", ["yes", "no"])
    """
    questions = [question] if isinstance(question, str) or not isinstance(question, Iterable) else list(question)
    if not questions or not all(isinstance(text, str) and text.strip() for text in questions):
        raise InterpToolkitError(f"expected a question or several, got {question!r:.80}")
    answers = None if choices is None else _checked(choices)
    engine = as_engine(model)
    vectors, length = _one_by_one(inputs)
    with on_still_model(engine):
        prepared = prepare(
            engine,
            vectors,
            adapter=adapter,
            sites=sites,
            positions=positions,
            centered=centered,
            center=center,
            on_mismatch=on_mismatch,
            chat=chat,
            progress=progress,
        )
        spans = as_spans(prepared.vectors, length) if together or length else []
        by_length = [replace(prepared, vectors=part) for part in spans or [prepared.vectors]]
        if answers is None:
            if against is not None:
                raise InterpToolkitError("against would have no effect: free answers are not compared; leave it out")
            rows = [
                _in_order(by_length, [_free_answers(engine, part, text, sampling, progress) for part in by_length])
                for text in questions
            ]
        else:
            if sampling != _GREEDY:
                raise InterpToolkitError("sampling would have no effect: choices are not sampled; leave it out")
            others = _checked_others(prepared, against)
            rows = [_compared(engine, by_length, text, answers, others) for text in questions]
    return pd.concat(rows, ignore_index=True)


def _one_by_one(inputs: Any) -> tuple[Any, int | None]:
    """The inputs, spans of vectors one vector after the other, and how many of these are a span."""
    if isinstance(inputs, (Tensor, np.ndarray)) and inputs.ndim == 3:
        return inputs.reshape(-1, inputs.shape[-1]), int(inputs.shape[1])
    return inputs, None


def _in_order(by_length: Sequence[Prepared], frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of spans of several lengths, in the order of the spans."""
    if len(by_length) == 1:
        return frames[0]
    numbers = [np.repeat(part.vectors.numbers, len(x) // len(part.vectors)) for part, x in zip(by_length, frames)]
    order = np.argsort(np.concatenate(numbers), kind="stable")
    return pd.concat(frames, ignore_index=True).iloc[order].reset_index(drop=True)


def _checked(choices: Sequence[str]) -> list[str]:
    texts = [] if isinstance(choices, str) else [str(choice).strip() for choice in choices]
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise InterpToolkitError(f"expected at least two different choices, got {choices!r:.80}")
    return texts


def _checked_others(prepared: Prepared, against: Tensor | None) -> Tensor | None:
    width = prepared.adapter.config.width
    if against is not None and (against.ndim not in (2, 3) or against.shape[-1] != width or not len(against)):
        raise InterpToolkitError(
            f"expected other vectors of shape (m, {width}) in against, or spans of them, got {tuple(against.shape)}; "
            f"pass them as the adapter takes them"
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


def _soft_prompt(engine: Engine, adapter: Adapter, question: str, values: Tensor) -> SoftPrompt:
    """The prompt that puts a question about vectors, or about spans of them."""
    asking = adapter.require_contract().require_soft_prompt().about(question, _tokenizer(engine))
    return asking.with_room(values.shape[1] if values.ndim > 2 else 1)


def _free_answers(
    engine: Engine, prepared: Prepared, question: str, sampling: Sampling, progress: bool
) -> pd.DataFrame:
    soft_prompt = _soft_prompt(engine, prepared.adapter, question, prepared.vectors.values)
    # Neither threshold nor confidence was calibrated for answers.
    asking = replace(prepared, adapter=prepared.adapter.with_soft_prompt(soft_prompt), as_in_training=False)
    frame = describe(engine, asking, sampling, progress=progress).to_df()
    return frame.rename(columns={"description": "answer"}).assign(question=question).reindex(columns=list(COLUMNS))


def _compared(
    engine: Engine, by_length: Sequence[Prepared], question: str, choices: Sequence[str], others: Tensor | None
) -> pd.DataFrame:
    """Choices with their contrast: log-odds above those of other vectors, or of all vectors but the one itself."""
    frame = _in_order(by_length, [_choices(engine, part, question, choices) for part in by_length])
    odds = frame["log_odds"].to_numpy().reshape(-1, len(choices))
    if others is not None:
        log_probs, lengths = _log_probs(engine, by_length[0].adapter, question, choices, others.detach().float().cpu())
        mean = choice_log_odds(log_probs[1:] * lengths).mean(0)
    elif len(odds) > 1:
        mean = (odds.sum(0) - odds) / (len(odds) - 1)
    else:
        mean = np.nan
    return frame.assign(contrast=(odds - mean).ravel())


def _choices(engine: Engine, prepared: Prepared, question: str, choices: Sequence[str]) -> pd.DataFrame:
    vectors = prepared.vectors
    log_probs, lengths = _log_probs(engine, prepared.adapter, question, choices, vectors.values)
    odds = choice_log_odds(log_probs * lengths)
    probability = 1 / (1 + np.exp(-odds))
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
                | dict(log_odds=odds[row, number])
            )
    return pd.DataFrame(rows, columns=[*COLUMNS, *CHOICE_COLUMNS])


@torch.no_grad()
def _log_probs(
    engine: Engine, adapter: Adapter, question: str, choices: Sequence[str], values: Tensor
) -> tuple[np.ndarray, list[int]]:
    """Mean log-probabilities of the choices, the null vector's first, [1 + vectors, choices]; and their lengths."""
    soft_prompt = _soft_prompt(engine, adapter, question, values)
    targets = soft_prompt.targets(_tokenizer(engine), choices)
    device = adapter.null().device  # where the adapter is; it may have no parameters
    with_null = torch.cat([torch.zeros_like(values[:1]), values])
    soft_tokens = soft_tokens_of(adapter, with_null.to(device)).to(engine.device)
    index = [row for row in range(len(soft_tokens)) for _ in choices]
    means = engine.score(soft_prompt, soft_tokens, targets * len(soft_tokens), index).mean()
    return means.double().cpu().view(-1, len(choices)).numpy(), [len(target) for target in targets]


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
