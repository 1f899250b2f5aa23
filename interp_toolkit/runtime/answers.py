"""What a model writes when it is asked in plain text: answers to many prompts, decoded together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_activations
from interp_toolkit.chat import common_length, list_prompts, prompt_ids, turn_start, uses_chat
from interp_toolkit.runtime.generate import generate
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import SLOT, PromptTokens, SoftPrompt

MAX_NEW_TOKENS = 64
# Prompts decoded together: the embeddings of their tokens are held at once.
_ROWS = 256


def plain_answers(
    model: Any,
    prompts: Iterable[str],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    chat: bool | None = None,
    progress: bool = False,
) -> list[str]:
    """What the model answers to prompts, each a user's turn of its own; greedy, up to a stop token.

    A base model, which has no chat template, goes on with each prompt as plain text.

    No soft token is in play. But text goes the way that soft prompts go: what every prompt begins with is their
    beginning, and each token behind that is a slot, where the token's own embedding is written.

    Args:
        model: the hooked model.
        prompts: what the user says.
        max_new_tokens: longest answer, in tokens.
        chat: whether prompts are user turns; by default where the model has a chat template.
        progress: whether to show a bar, in prompts.

    Raises:
        InterpToolkitError: an empty prompt, one too long for the model's context, or ``chat=True`` without a chat
            template.

    Example:
        >>> plain_answers(model, ["What is the capital of Poland?"])
    """
    settings = dict(max_new_tokens=max_new_tokens)
    return [answer for (answer,) in _answers(model, prompts, chat, progress, settings)]


def sampled_answers(
    model: Any,
    prompts: Iterable[str],
    *,
    samples: int,
    temperature: float = 0.7,
    top_p: float = 0.9,
    seed: int = 0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    chat: bool | None = None,
    progress: bool = False,
) -> list[list[str]]:
    """Several answers to each prompt, drawn at random; see `plain_answers`.

    The draws of an answer depend on its prompt, the seed and its number alone, not on what else is asked; the first
    answers are the same however many are drawn.

    Args:
        model: the hooked model.
        prompts: what the user says.
        samples: answers a prompt.
        temperature: above 0.
        top_p: sample among the most probable tokens that together have this probability.
        seed: of the sampling.
        max_new_tokens: longest answer, in tokens.
        chat: whether prompts are user turns; by default where the model has a chat template.
        progress: whether to show a bar, in prompts.

    Raises:
        InterpToolkitError: an empty prompt, one too long for the model's context, ``chat=True`` without a chat
            template, or a setting out of its range.

    Example:
        >>> sampled_answers(model, ["Write a sentence about rivers."], samples=3)
    """
    settings: dict[str, Any] = dict(
        samples=samples, temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens
    )
    return _answers(model, prompts, chat, progress, settings)


def as_soft_prompt(model: Any, rows: Sequence[Sequence[int]], chat: bool | None = None) -> tuple[PromptRun, Tensor]:
    """Prompts of one length as a soft prompt, and for each prompt what to write into its slots.

    The slots begin behind what every user's turn begins with, or sooner where a row begins otherwise: so what is
    written for a row, by which its samples are drawn, does not depend on the rows beside it. See `_alike`.

    Args:
        model: the hooked model.
        rows: ids, with the same first token.
        chat: whether they are user turns; by default where the model has a chat template.

    Returns:
        the run, and soft tokens [rows, slots, d_model].
    """
    length, opening = len(rows[0]), _opening(model.tokenizer, chat)
    shared = min(_shared(row, opening) for row in rows)
    # Nothing of this soft prompt is used but where soft tokens are written.
    slots = PromptTokens(tuple(rows[0]), tuple(range(shared, length)))
    run = PromptRun(model, SoftPrompt(SLOT, SLOT, stop=""), tokens=slots)
    # Read where they will be written, so that Gemma's factor is in them once.
    embeddings = read_activations(model, [list(row) for row in rows], Site.embedding(), range(shared, length)).vectors
    return run, embeddings.view(len(rows), length - shared, -1).to(run.backend.device)


def _answers(
    model: Any, prompts: Iterable[str], chat: bool | None, progress: bool, settings: dict[str, Any]
) -> list[list[str]]:
    rows = prompt_ids(model.tokenizer, list_prompts(prompts), chat)
    out: list[list[str]] = [[] for _ in rows]
    bar = tqdm(total=len(rows), desc="answering", unit="prompt", disable=not progress)
    for batch in _alike(rows, _opening(model.tokenizer, chat)):
        run, embeddings = as_soft_prompt(model, [rows[i] for i in batch], chat)
        row_ids = [repr(rows[i]).encode() for i in batch]
        for i, texts in zip(batch, generate(run, embeddings, row_ids=row_ids, until="stop", **settings)):
            out[i] = [text.text for text in texts]
        bar.update(len(batch))
    bar.close()
    return out


def _alike(rows: Sequence[Sequence[int]], opening: Sequence[int]) -> list[list[int]]:
    """Numbers of rows that can be decoded together: a cache has no padding in it, so they have one length.

    They also begin alike, as far as any of them begins as every user's turn does.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[(len(row), *row[: _shared(row, opening)])].append(i)
    return [group[start : start + _ROWS] for group in groups.values() for start in range(0, len(group), _ROWS)]


def _opening(tokenizer: Any, chat: bool | None) -> list[int]:
    """What every user's turn begins with."""
    return turn_start(tokenizer) if uses_chat(tokenizer, chat) else []


def _shared(row: Sequence[int], opening: Sequence[int]) -> int:
    """Length of the beginning that is read once; never the whole row, and at least a token of it."""
    return min(max(1, common_length(row, opening)), len(row) - 1)
