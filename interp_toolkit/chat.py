"""Chat templates: from what a user says to the text, and the ids, that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp_toolkit.errors import InterpToolkitError

Prompt = str | Sequence[dict[str, str]] | Sequence[int]
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


def list_prompts(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """A single prompt as a list of one; a list of prompts as it is."""
    single = isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], (dict, int)))
    return [prompts] if single else prompts  # type: ignore[list-item, return-value]


def prompt_ids(tokenizer: Any, prompts: Sequence[Prompt], chat: bool = True) -> list[list[int]]:
    """Token ids of prompts: texts as user turns with the generation prompt (or as they are), messages, or ids.

    Raises:
        InterpToolkitError: a prompt is empty or of another kind; the text names it by its number.
    """
    texts: dict[int, str] = {}
    ids: list[list[int]] = [[] for _ in prompts]
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            if not prompt.strip():
                raise InterpToolkitError(f"prompt {i} is empty; expected some text")
            texts[i] = render(tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt
        elif len(prompt) and isinstance(prompt[0], dict):
            texts[i] = render(tokenizer, prompt)  # type: ignore[arg-type]
        elif len(prompt) and all(isinstance(token, int) for token in prompt):
            ids[i] = [int(token) for token in prompt]  # type: ignore[arg-type]
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
