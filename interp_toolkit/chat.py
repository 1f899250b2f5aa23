"""Chat templates: from what a user says to the text, and the ids, that the model reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError

Prompt = str | Sequence[dict[str, str]] | Sequence[int] | Sequence[np.integer] | np.ndarray | Tensor
"""What a person says, a list of chat messages, or token ids as they are."""

# Not in any text, and not split or joined by a template.
_PROBE = "interp-toolkit-probe"


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer knows how a conversation is written."""
    return bool(getattr(tokenizer, "chat_template", None))


def render(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """The text of a conversation up to the point where the assistant begins to speak.

    Raises:
        InterpToolkitError: the tokenizer has no chat template, or the template refuses these messages.
    """
    if not has_chat_template(tokenizer):
        raise InterpToolkitError("the model's tokenizer has no chat template; give plain text with chat=False")
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2 raises what the template's author chose
        raise InterpToolkitError(f"the chat template refuses these messages: {error}") from error


def end_of_turn(tokenizer: Any) -> str:
    """The text of the token with which the assistant ends its turn: what the template writes after its words.

    Without a template it is the end-of-sequence token.

    Raises:
        InterpToolkitError: there is neither.
    """
    if has_chat_template(tokenizer):
        talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
        text = tokenizer.apply_chat_template(talk, tokenize=False)
        after = encode(tokenizer, text.split(_PROBE)[-1])
        if after and after[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder):
            return tokenizer.convert_ids_to_tokens(after[0])
    if tokenizer.eos_token:
        return tokenizer.eos_token
    raise InterpToolkitError("the tokenizer has no end-of-sequence token; give the soft prompt a stop token")


def stop_ids(model: Any) -> tuple[int, ...]:
    """Every token id at which the model may end its turn: those it declares, and the template's own."""
    tokenizer = model.tokenizer
    declared = getattr(getattr(getattr(model, "original_model", None), "generation_config", None), "eos_token_id", None)
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    ids.add(tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)))
    return tuple(sorted(ids))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, with nothing put before or after it."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def list_prompts(prompts: Prompt | Iterable[Prompt]) -> list[Any]:
    """A single prompt as a list of one; many in their order, whatever their index.

    Raises:
        InterpToolkitError: a data frame, one message alone, or what else is no prompt.
    """
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, (pd.DataFrame, Mapping, bytes)) or not isinstance(prompts, Iterable):
        hint = "a column of the data frame" if isinstance(prompts, pd.DataFrame) else "a list of them"
        raise InterpToolkitError(
            f"expected a text, a list of messages, a list of token ids, or several of these, got "
            f"{type(prompts).__name__}; pass {hint}"
        )
    if getattr(prompts, "ndim", 1) == 2 and len(prompts) > 1:  # type: ignore[arg-type]
        raise InterpToolkitError(
            f"expected token ids of one prompt, or a list of such without padding, got an array of shape "
            f"{tuple(prompts.shape)}; padding would be read as text"  # type: ignore[attr-defined]
        )
    rows: Any = prompts.tolist() if isinstance(prompts, (np.ndarray, Tensor)) else prompts
    rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows]
    single = rows and isinstance(rows[0], (Mapping, int, np.integer))
    if single and isinstance(prompts, (pd.Series, pd.Index)):
        raise InterpToolkitError(f"expected a text or another prompt in each row of the column, got {rows[0]!r:.80}")
    return [rows] if single else rows


def missing_reason(prompt: Any) -> str | None:
    """Why there is nothing to read in a prompt: it is empty, or missing as in a data frame; None where there is."""
    if isinstance(prompt, str):
        return None if prompt.strip() else "is empty"
    if prompt is None or prompt is pd.NA or prompt is pd.NaT or (isinstance(prompt, float) and prompt != prompt):
        return f"is missing ({prompt!r})"
    return None


def prompt_ids(tokenizer: Any, prompts: Iterable[Prompt], chat: bool = True) -> list[list[int]]:
    """Token ids of prompts: texts as user turns with the generation prompt (or as they are), messages, or ids.

    Raises:
        InterpToolkitError: a prompt is empty, missing or of another kind; the text names it by its number.
    """
    prompts = list(prompts)
    texts: dict[int, str] = {}
    ids: list[list[int]] = [[] for _ in prompts]
    for i, prompt in enumerate(prompts):
        if reason := missing_reason(prompt):
            raise InterpToolkitError(f"prompt {i} {reason}; expected some text, or leave it out")
        if isinstance(prompt, str):
            texts[i] = render(tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt
            continue
        parts: Any = prompt.tolist() if isinstance(prompt, (np.ndarray, Tensor)) else prompt
        if isinstance(parts, Sequence) and len(parts) and isinstance(parts[0], Mapping):
            texts[i] = render(tokenizer, parts)
        elif isinstance(parts, Sequence) and len(parts) and all(map(_is_id, parts)):
            ids[i] = [int(token) for token in parts]
        else:
            raise InterpToolkitError(
                f"prompt {i} is empty or of an unknown kind; expected a text, a list of messages "
                f"({{'role': ..., 'content': ...}}) or a list of token ids, got {prompt!r:.80}"
            )
    if texts:
        encoded = tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"]
        for i, row in zip(texts, encoded):
            # A plain text gets the beginning-of-sequence token that the model expects; a template writes its own.
            bos = tokenizer.bos_token_id
            plain = isinstance(prompts[i], str) and not chat
            ids[i] = [bos, *row] if plain and bos is not None and row[:1] != [bos] else row
    return ids


def _is_id(token: Any) -> bool:
    return isinstance(token, (int, np.integer)) and not isinstance(token, bool) and bool(token >= 0)
