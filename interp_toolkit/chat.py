"""Chat templates and plain text: from what a user says to the text, and the ids, that the model reads."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.tensor_type import Tensor, is_tensor

Message = dict[str, Any]
Prompt = str | Sequence[Message] | Sequence[int] | Sequence[np.integer] | np.ndarray | Tensor
"""What a person says, a list of chat messages, or token ids as they are."""

# Not in any text, and not split or joined by a template.
_PROBE = "interp-toolkit-probe"

DATE = "26 Jul 2024"
"""The day that a template prints where it asks for today's: else a prompt would read differently tomorrow.

It is the day that Llama's templates fall back on.
"""
_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%-m": "7", "%B": "July", "%b": "Jul", "%h": "Jul", "%d": "26", "%-d": "26",
    "%e": "26", "%j": "208", "%A": "Friday", "%a": "Fri", "%u": "5", "%w": "5", "%F": "2024-07-26", "%D": "07/26/24",
    "%x": "07/26/24", "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%T": "00:00:00", "%X": "00:00:00",
    "%R": "00:00", "%Z": "", "%z": "",
}  # fmt: skip
# transformers passes no functions to templates, so the date is given by a macro in front of the template.
_PINNED = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace({directive!r}, {text!r})" for directive, text in _DATE.items())
    + " }}{% endmacro +%}"
)


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer knows how a conversation is written."""
    return bool(getattr(tokenizer, "chat_template", None))


def uses_chat(tokenizer: Any, chat: bool | None) -> bool:
    """Whether texts are rendered as user turns: as ``chat`` says, by default where there is a chat template.

    Raises:
        InterpToolkitError: ``chat`` is True and there is no chat template.
    """
    known = has_chat_template(tokenizer)
    if chat and not known:
        raise InterpToolkitError("the model's tokenizer has no chat template; give plain text with chat=False")
    return known if chat is None else chat


def render(tokenizer: Any, messages: Sequence[Message], generation_prompt: bool = True) -> str:
    """The text of a conversation, by default up to the point where the assistant begins to speak.

    A template that wants a message's content as a list of parts gets it so. One that prints today's date prints `DATE`.

    Args:
        tokenizer: with a chat template.
        messages: dicts of ``role`` and ``content``.
        generation_prompt: whether the beginning of the assistant's turn follows.

    Raises:
        InterpToolkitError: the tokenizer has no chat template, the template refuses these messages, or leaves out or
            changes what one of them says.
    """
    if not has_chat_template(tokenizer):
        raise InterpToolkitError(
            "the model's tokenizer has no chat template to write messages with; give plain text with chat=False"
        )
    conversation = _in_parts(messages) if _wants_parts(tokenizer, messages) else list(messages)
    try:
        text = _apply(tokenizer, conversation, generation_prompt)
    except Exception as error:  # jinja2 raises what the template's author chose
        raise InterpToolkitError(
            f"the chat template refuses these messages: {first_line(error)}; where it asks for a system turn, give "
            f"messages that begin with one ({{'role': 'system', 'content': ...}}), or give plain text with chat=False"
        ) from error
    for message in messages:
        for part in _texts(message):
            if part not in text:
                raise InterpToolkitError(
                    f"the chat template leaves out or changes what the {message.get('role', 'unknown role')!s} says: "
                    f"{part!r:.80} does not stand in the rendered text; give token ids, or plain text with chat=False"
                )
    return text


def _apply(tokenizer: Any, messages: Sequence[Message], generation_prompt: bool) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _PINNED + template
    return tokenizer.apply_chat_template(
        list(messages), chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
    )


_parts: weakref.WeakKeyDictionary[Any, dict[Any, bool]] = weakref.WeakKeyDictionary()


def _wants_parts(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Whether the template drops (or refuses) a content that is a text, and writes one that is a list of parts."""
    if not all(isinstance(message.get("content"), str) for message in messages):
        return False
    key = (str(tokenizer.chat_template), tuple(str(message.get("role")) for message in messages))
    known = _parts.setdefault(tokenizer, {})
    if key not in known:
        probes = [{**message, "content": f"{_PROBE}-{i}-"} for i, message in enumerate(messages)]
        known[key] = not _stand(tokenizer, probes, probes) and _stand(tokenizer, _in_parts(probes), probes)
    return known[key]


def _stand(tokenizer: Any, messages: Sequence[Message], probes: Sequence[Message]) -> bool:
    try:
        text = _apply(tokenizer, messages, False)
    except Exception:  # as in `render`, which says so where no way serves
        return False
    return all(probe["content"] in text for probe in probes)


def _in_parts(messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _texts(message: Message) -> list[str]:
    """What must stand in the rendering: the texts of a message, without an assistant's thoughts."""
    content = message.get("content")
    pieces = content if isinstance(content, list) else [{"text": content}]
    texts = [str(part["text"]) for part in pieces if isinstance(part, dict) and isinstance(part.get("text"), str)]
    thinks = message.get("role") == "assistant"
    return [(text.rsplit("</think>", 1)[-1] if thinks else text).strip() for text in texts]


def end_of_turn(tokenizer: Any) -> str:
    """The text of the token with which the assistant ends its turn: what the template writes after its words.

    Without a template it is the end-of-sequence token.

    Raises:
        InterpToolkitError: there is neither.
    """
    if has_chat_template(tokenizer):
        after = encode(tokenizer, _after_answer(tokenizer))
        if after and after[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder):
            return tokenizer.convert_ids_to_tokens(after[0])
    if tokenizer.eos_token:
        return tokenizer.eos_token
    raise InterpToolkitError("the tokenizer has no end-of-sequence token; give the soft prompt a stop token")


def _after_answer(tokenizer: Any) -> str:
    """What the template writes behind an assistant's words; some templates ask for a system turn."""
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
    for messages in (talk, [{"role": "system", "content": "x"}, *talk]):
        try:
            return render(tokenizer, messages, generation_prompt=False).rsplit(_PROBE, 1)[-1]
        except InterpToolkitError:
            continue
    return ""


def stop_ids(model: Any) -> tuple[int, ...]:
    """Every token id at which the model may end its turn: those it declares, and the template's own."""
    tokenizer = model.tokenizer
    declared = getattr(getattr(getattr(model, "original_model", None), "generation_config", None), "eos_token_id", None)
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if has_chat_template(tokenizer):
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
    import pandas as pd  # only where it is used: it is slow to import

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
    rows: Any = prompts.tolist() if isinstance(prompts, np.ndarray) or is_tensor(prompts) else prompts
    rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows]
    single = rows and isinstance(rows[0], (Mapping, int, np.integer))
    if single and isinstance(prompts, (pd.Series, pd.Index)):
        raise InterpToolkitError(f"expected a text or another prompt in each row of the column, got {rows[0]!r:.80}")
    return [rows] if single else rows


def missing_reason(prompt: Any) -> str | None:
    """Why there is nothing to read in a prompt: it is empty, or missing as in a data frame; None where there is."""
    import pandas as pd

    if isinstance(prompt, str):
        return None if prompt.strip() else "is empty"
    if prompt is None or prompt is pd.NA or prompt is pd.NaT or (isinstance(prompt, float) and prompt != prompt):
        return f"is missing ({prompt!r})"
    return None


def not_text_reason(value: Any) -> str | None:
    """Why a value is no text to read: it is missing, empty, or of another kind; None where it is one."""
    return missing_reason(value) or (None if isinstance(value, str) else f"is no text but {value!r:.80}")


def prompt_ids(tokenizer: Any, prompts: Iterable[Prompt], chat: bool | None = None) -> list[list[int]]:
    """Token ids of prompts: texts as user turns with the generation prompt (or as they are), messages, or ids.

    A text that is read as it is begins with the beginning-of-sequence token, where the tokenizer has one, once.

    Args:
        tokenizer: of the model.
        prompts: texts, lists of messages, or lists of ids.
        chat: whether texts are user turns; by default where the tokenizer has a chat template.

    Raises:
        InterpToolkitError: a prompt is empty, missing or of another kind (the text names it by its number), ``chat`` is
            True and there is no chat template, or the template does not take the messages (see `render`).
    """
    prompts = list(prompts)
    texts: dict[int, str] = {}
    ids: list[list[int]] = [[] for _ in prompts]
    for i, prompt in enumerate(prompts):
        if reason := missing_reason(prompt):
            raise InterpToolkitError(f"prompt {i} {reason}; expected some text, or leave it out")
        if isinstance(prompt, str):
            turn = uses_chat(tokenizer, chat)
            texts[i] = render(tokenizer, [{"role": "user", "content": prompt}]) if turn else prompt
            continue
        items: Any = prompt.tolist() if isinstance(prompt, np.ndarray) or is_tensor(prompt) else prompt
        if isinstance(items, Sequence) and len(items) and isinstance(items[0], Mapping):
            texts[i] = render(tokenizer, items)
        elif isinstance(items, Sequence) and len(items) and all(map(_is_id, items)):
            ids[i] = [int(token) for token in items]
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
            plain = isinstance(prompts[i], str) and not uses_chat(tokenizer, chat)
            ids[i] = [bos, *row] if plain and bos is not None and row[:1] != [bos] else row
    return ids


_starts: weakref.WeakKeyDictionary[Any, dict[str, list[int]]] = weakref.WeakKeyDictionary()


def turn_start(tokenizer: Any) -> list[int]:
    """Token ids that the chat template begins every prompt of one user turn with; none where there is no template.

    Args:
        tokenizer: of the model.
    """
    if not has_chat_template(tokenizer):
        return []
    known, template = _starts.setdefault(tokenizer, {}), str(tokenizer.chat_template)
    if template not in known:
        try:
            one, other = prompt_ids(tokenizer, ["0", "Z"], chat=True)
        except InterpToolkitError:  # it asks for a system turn, and begins with whatever that says
            one, other = [], []
        known[template] = one[: common_length(one, other)]
    return known[template]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(one, other)) if x != y), min(len(one), len(other)))


def _is_id(token: Any) -> bool:
    return isinstance(token, (int, np.integer)) and not isinstance(token, bool) and bool(token >= 0)
