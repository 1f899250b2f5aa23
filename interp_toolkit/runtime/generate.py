"""Batched decoding from soft tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.chat import stop_ids
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import KV
from interp_toolkit.quotes import closing_quote, described
from interp_toolkit.runtime.evidence import evidence_behind, with_null
from interp_toolkit.runtime.next_tokens import next_tokens
from interp_toolkit.runtime.prefix import PromptRun, on_still_model
from interp_toolkit.runtime.texts import Generation, TextEnds, Until, WrittenText
from interp_toolkit.torch_defaults import plain_defaults

__all__ = ["Generation", "Until", "closing_quote", "described", "generate"]

# Rows decoded together: products with fewer rows are slow, and more rows make the cache of keys and values large.
_ROWS = 384
# Finished rows are taken out of a batch once they are more than this share of it: taking out copies the cache.
_FINISHED_SHARE = 0.2


@plain_defaults()
@torch.no_grad()
@on_still_model
def generate(
    run: PromptRun,
    soft_tokens: Tensor,
    *,
    null: Tensor | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    row_ids: Sequence[bytes] | None = None,
    max_new_tokens: int = 24,
    until: Until = "quote",
    progress: bool = False,
) -> list[list[Generation]]:
    """What the model writes behind the soft prompt, for each soft token.

    The prompt runs once a soft token, however many samples are drawn. The draws of a sample depend on the seed, the id
    of its row and its number alone, not on what else is in the batch; so its text changes with the batch only where a
    draw lies within rounding of the border between two tokens.

    Args:
        run: the soft prompt on its model.
        soft_tokens: [n, d_model], or [n, tokens, d_model] where each vector has several.
        null: the null vector's soft token, to measure each text's evidence by, for which the prompt is not read again.
        samples: texts a soft token.
        temperature: 0 for the most probable token each time.
        top_p: sample among the most probable tokens that together have this probability.
        seed: of the sampling.
        row_ids: what each row is, whatever its soft token's rounding, such as the prompt and position it was read at;
            by default the soft token itself.
        max_new_tokens: longest text, in tokens.
        until: what ends a text before its longest length: ``"quote"`` for a closing quote or one of the model's stop
            tokens, ``"stop"`` for a stop token only, ``"length"`` for neither.
        progress: whether to show a bar.

    Returns:
        for each soft token its samples.

    Raises:
        InterpToolkitError: several samples at temperature 0, or a setting out of its range.
    """
    require_settings(samples, max_new_tokens, temperature, top_p)
    # The last token is written, and read no more.
    run.require_room(max_new_tokens - 1, f"max_new_tokens={max_new_tokens}")
    row_ids = checked_row_ids(soft_tokens, row_ids)
    ends = TextEnds.from_prompt(run.model.tokenizer, stop_ids(run.model), run.soft_prompt.stop, until)
    out: list[list[Generation]] = []
    bar = tqdm(total=len(soft_tokens), desc="describing", unit="vector", disable=not progress)
    for vectors in soft_tokens.split(max(1, _ROWS // samples)) if len(soft_tokens) else ():
        draws_of = row_ids[len(out) : len(out) + len(vectors)]
        draws = _uniforms(draws_of, samples, seed, max_new_tokens) if temperature else None
        prompts = vectors if null is None else with_null(null, vectors)
        hidden, past = run.read(prompts, keep=True)
        assert past is not None
        states, first = hidden[:, -1], len(prompts) - len(vectors)
        # Row of the prompt that each text goes on from.
        rows = torch.arange(first, len(prompts), device=run.backend.device).repeat_interleave(samples)
        texts = _decode(
            run, states[rows.to(states.device)], past.take(rows), temperature, top_p, draws, max_new_tokens, ends
        )
        if null is not None:
            ids = [text.token_ids for text in texts]
            measured = evidence_behind(run, prompts, states, past, ids, (rows - first).tolist())
            texts = [
                replace(text, log_prob=log_prob, evidence=value)
                for text, log_prob, value in zip(texts, *measured.tolist())
            ]
        out += [texts[i : i + samples] for i in range(0, len(texts), samples)]
        bar.update(len(vectors))
    bar.close()
    return out


def require_settings(samples: int, max_new_tokens: int, temperature: float, top_p: float) -> None:
    """Refuse settings of `generate` that are out of their range.

    Args:
        samples: texts a soft token.
        max_new_tokens: longest text, in tokens.
        temperature: of the sampling.
        top_p: likewise.

    Raises:
        InterpToolkitError: the text names the range.
    """
    if samples < 1 or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise InterpToolkitError(
            f"expected samples and max_new_tokens of at least 1, temperature of at least 0 and 0 < top_p <= 1, got "
            f"samples={samples}, max_new_tokens={max_new_tokens}, temperature={temperature}, top_p={top_p}"
        )
    if samples > 1 and temperature == 0:
        raise InterpToolkitError(
            f"at temperature 0 all {samples} samples would be the same text; set temperature above 0, such as 0.7"
        )


def checked_row_ids(soft_tokens: Tensor, row_ids: Sequence[bytes] | None) -> Sequence[bytes]:
    """What each row is, by which its draws are made: as they were passed, else the soft tokens themselves.

    Raises:
        InterpToolkitError: another count than that of the soft tokens.
    """
    if row_ids is None:
        return [vector.tobytes() for vector in soft_tokens.detach().float().cpu().numpy()]
    if len(row_ids) != len(soft_tokens):
        raise InterpToolkitError(f"expected a row id for each of {len(soft_tokens)} soft tokens, got {len(row_ids)}")
    return row_ids


def _decode(
    run: PromptRun,
    states: Tensor,
    past: KV,
    temperature: float,
    top_p: float,
    draws: Tensor | None,
    max_new_tokens: int,
    ends: TextEnds,
) -> list[Generation]:
    """Texts behind prompts whose final states and keys and values are given, a row each."""
    backend = run.backend
    texts = [WrittenText(ends) for _ in range(len(states))]
    alive = np.arange(len(states))  # which text each row of the batch is
    for step in range(max_new_tokens):
        draws_of_step = None if draws is None else draws[torch.from_numpy(alive), step].to(states.device)
        tokens, log_probs = next_tokens(backend, states, temperature, top_p, draws_of_step)
        running = np.ones(len(alive), dtype=bool)
        for row, (text, token, log_prob) in enumerate(zip(alive, tokens.tolist(), log_probs.tolist())):
            running[row] = texts[text].add(token, log_prob)
        if not running.any() or step == max_new_tokens - 1:
            break
        if 1 - running.mean() > _FINISHED_SHARE:
            rows = torch.from_numpy(running.nonzero()[0]).to(tokens.device)
            alive, tokens, past = alive[running], tokens[rows], past.take(rows)
        hidden, grown = backend.hidden(tokens[:, None], past, keep=True, reserve=max_new_tokens)
        assert grown is not None
        past, states = grown, hidden[:, -1]
    return [text.generation() for text in texts]


def _uniforms(row_ids: Sequence[bytes], samples: int, seed: int, steps: int) -> Tensor:
    """Numbers in [0, 1), float64 [texts, steps], drawn by the seed, the row's id and the sample's number."""
    rows = []
    for row_id in row_ids:
        content = int.from_bytes(hashlib.blake2b(row_id, digest_size=8).digest(), "little")
        rows += [np.random.default_rng((content, seed, sample)).random(steps) for sample in range(samples)]
    return torch.from_numpy(np.stack(rows))
