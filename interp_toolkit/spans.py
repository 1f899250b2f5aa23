"""Spans: which tokens of a prompt are its own, which the template's, and which are to be read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from interp_toolkit.chat import common_length, not_text_reason, prompt_ids
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.positions import Positions, parse_positions, token_positions

Where = Literal["content"] | Positions
"""Which tokens of a prompt: its own without the template's, so many of these at their end, or as `Positions`."""

# What tokenizers give for bytes that are no whole character: one for all of them, or one for each.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Span:
    """A prompt that is to be read.

    Attributes:
        number: among all prompts.
        text: of it.
        ids: the template's included.
        content: from where to where its own tokens go.
        positions: which are read.
    """

    number: int
    text: str
    ids: list[int]
    content: tuple[int, int]
    positions: frozenset[int]

    def end_of(self, tokenizer: Any, subject: str) -> int | None:
        """Position of the last token of a part of the text, None if it is not there."""
        at = self.text.lower().rfind(subject.lower()) if subject.strip() else -1
        if at < 0:
            return None
        start, end = self.content
        wanted = self.text[: at + len(subject)].lstrip()

        def count(position: int) -> int:
            written = count_characters(tokenizer, self.ids[start : position + 1])
            # A text's own replacement character at the end is never seen to be whole.
            return written.begun if wanted.endswith(_REPLACEMENT) else written.whole

        # By halves, since each look decodes all tokens before it.
        position = bisect_left(range(start, end), len(wanted), key=count) + start
        return position if position < end else None


class Characters(NamedTuple):
    """How many characters of a text its first tokens write.

    Attributes:
        whole: with all their tokens.
        begun: these, and one of which tokens are missing.
    """

    whole: int
    begun: int


def count_characters(tokenizer: Any, ids: Sequence[int]) -> Characters:
    """Count the characters that a text's first tokens write, without spaces before them; more tokens never write fewer.

    Args:
        tokenizer: of the model.
        ids: from the text's first token on.
    """
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False).lstrip()
    whole = len(text.rstrip(_REPLACEMENT))
    return Characters(whole, whole + (whole < len(text)))


def find_spans(
    tokenizer: Any, prompts: Sequence[str], positions: Where, chat: bool
) -> tuple[list[Span], dict[int, str]]:
    """Find the prompts that can be read, and the reasons why others cannot.

    Args:
        tokenizer: of the model.
        prompts: texts.
        positions: which of their tokens, see `Where`.
        chat: whether the prompts are user turns in the chat template.

    Returns:
        the tokens of every readable prompt, and by number of the prompt the reason for every other.

    Raises:
        InterpToolkitError: positions of another kind.
    """
    if isinstance(positions, str) and positions not in ("content", "all", "last"):
        raise InterpToolkitError(
            f"expected positions 'content', 'all', 'last', a number or a list of numbers, got {positions!r}"
        )
    if not isinstance(positions, str):
        parse_positions(positions)  # a mistake in them is not one prompt's
    failed = {}
    for i, text in enumerate(prompts):
        if reason := not_text_reason(text):
            failed[i] = f"the prompt {reason}"
    usable = [i for i in range(len(prompts)) if i not in failed]
    ids = prompt_ids(tokenizer, [prompts[i] for i in usable], chat)
    spans = []
    for i, row, content in zip(usable, ids, contents(tokenizer, ids, chat)):
        wanted = _positions(positions, len(row), content)
        if isinstance(wanted, str):
            failed[i] = wanted
        else:
            spans.append(Span(i, prompts[i], row, content, frozenset(wanted)))
    return spans, failed


def contents(
    tokenizer: Any, ids: Sequence[Sequence[int]], chat: bool, wording: Callable[[str], str] = str
) -> list[tuple[int, int]]:
    """Find where the tokens of each prompt's own text begin and end, without those of the chat template.

    Args:
        tokenizer: of the model.
        ids: of the prompts' tokens.
        chat: whether the prompts are user turns in the chat template.
        wording: from a text to the prompt around it, whose other words are no part of the text either.

    Returns:
        first position and the position behind the last, per prompt.
    """
    probes = prompt_ids(tokenizer, [wording("0"), wording("Z")], chat)
    spans = []
    for row in ids:
        start = min(common_length(row, probe) for probe in probes)
        end = len(row) - min(common_length(row[::-1], probe[::-1]) for probe in probes)
        spans.append((start, max(end, start + 1)))
    return spans


def _positions(positions: Where, length: int, content: tuple[int, int]) -> Sequence[int] | str:
    """The asked positions from the first token, or the reason why there are none."""
    start, end = content
    if isinstance(positions, str) and positions == "content":
        return range(start, end)
    if isinstance(positions, (int, np.integer)):
        if positions < 1:
            raise InterpToolkitError(f"expected a number of tokens of at least 1, got {positions}")
        return range(max(start, end - int(positions)), end)
    chosen = parse_positions(positions)
    numbers = chosen if isinstance(chosen, list) and not isinstance(chosen[0], bool) else []
    if beyond := [position for position in numbers if not -length <= position < length]:
        return f"position {beyond[0]} does not exist: the prompt has {length} tokens"
    try:
        return token_positions(chosen, length, "the prompt")
    except InterpToolkitError as error:
        return str(error)
