"""Texts as the model writes them, token by token, and where each of them ends."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interp_toolkit.chat import encode
from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.quotes import QUOTE, closing_quote, described

Until = Literal["quote", "stop", "length"]


@renamed_fields(ended="finish_reason")
@dataclass(frozen=True)
class Generation:
    """A text that the model wrote.

    Attributes:
        text: up to the closing quote or stop token, stripped.
        token_ids: of the tokens written, the closing one included and a stop token left out.
        log_probs: of each of them under the model (temperature 1), in nats.
        finish_reason: what ended it: the closing ``"quote"``, a ``"stop"`` token, or the greatest ``"length"``.
        log_prob: mean log-probability per token given its vector, as `evidence` measures it; NaN where it was not asked
            for, or without tokens.
        evidence: ``log_prob`` less the same given the null vector, in nats per token; NaN likewise.
    """

    text: str
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: Until
    log_prob: float = math.nan
    evidence: float = math.nan


@dataclass(frozen=True, eq=False)
class TextEnds:
    """Where texts end.

    Attributes:
        tokenizer: of the model.
        stops: ids of stop tokens.
        quotes: ids of all tokens that write a quote; none where quotes end nothing.
        stop_text: what ends a text in place of a token, such as a line break; empty where a token does.
    """

    tokenizer: Any
    stops: frozenset[int]
    quotes: frozenset[int]
    stop_text: str = ""

    @classmethod
    def from_prompt(cls, tokenizer: Any, stops: Iterable[int], stop: str, until: Until) -> TextEnds:
        """The ends of texts behind a soft prompt, see `generate`.

        Args:
            tokenizer: of the model.
            stops: ids at which the model may end its turn.
            stop: the soft prompt's, see `SoftPrompt.stop`.
            until: what ends a text.
        """
        if until != "quote":
            return cls(tokenizer, frozenset(() if until == "length" else stops), frozenset())
        ids = encode(tokenizer, stop)
        special = len(ids) == 1 and ids[0] in set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        all_stops = frozenset(stops) | frozenset(ids if special else ())
        return cls(tokenizer, all_stops, _quote_tokens(tokenizer), "" if special else stop)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, with the spaces before punctuation that some tokenizers would take away."""
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


class WrittenText:
    """One text, to which tokens are added until it ends.

    A quote that closes it by the text so far may be one of the description's own, as that of 12" records: the
    description's closing quote stands right before the stop. So the text goes on behind it, and is cut there afterwards
    if none does.
    """

    def __init__(self, ends: TextEnds) -> None:
        self._ends = ends
        self._ids: list[int] = []
        self._log_probs: list[float] = []
        self._stopped = False
        self._closed = 0  # with how many tokens a quote closed the text so far

    def add(self, token: int, log_prob: float) -> bool:
        """Add the next token, and say whether the text goes on; to a text that has ended nothing is added."""
        ends = self._ends
        if self._stopped or token in ends.stops:
            self._stopped = True
            return False
        self._ids.append(token)
        self._log_probs.append(log_prob)
        if token in ends.quotes and not self._closed and closing_quote(ends.decode(self._ids)) is not None:
            self._closed = len(self._ids)
        self._stopped = bool(ends.stop_text) and ends.stop_text in ends.decode(self._ids)
        return not self._stopped

    def generation(self) -> Generation:
        """What was written, up to where it ended."""
        ends, ids, stopped = self._ends, self._ids, self._stopped
        text = ends.decode(ids)
        if ends.stop_text and stopped:
            text = text.split(ends.stop_text)[0]
            ids = ids[:-1] if ends.decode(ids[:-1]) == text else ids
        finish_reason: Until = "quote" if self._closed else "stop" if stopped else "length"
        if self._closed and not (stopped and text.endswith(QUOTE)):
            # The model went on behind the closing quote.
            ids, stopped = ids[: self._closed], False
            text = ends.decode(ids)
        text = described(text, stopped) if ends.quotes else text.strip()
        return Generation(text, tuple(ids), tuple(self._log_probs[: len(ids)]), finish_reason)


_quotes: weakref.WeakKeyDictionary[Any, frozenset[int]] = weakref.WeakKeyDictionary()


def _quote_tokens(tokenizer: Any) -> frozenset[int]:
    """Every token that writes a double quote, alone or with other characters; looked up once per tokenizer."""
    if tokenizer not in _quotes:
        _quotes[tokenizer] = frozenset(i for token, i in tokenizer.get_vocab().items() if QUOTE in token)
    return _quotes[tokenizer]
