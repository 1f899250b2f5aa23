"""A soft prompt made ready for a model: its ids, its slots, and the part before them run once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from interp_toolkit.models import KV, as_hooked_model, backend_of, require_context, require_rows
from interp_toolkit.models.kept_prefix import KeptPrefix
from interp_toolkit.runtime.injection import write_soft_tokens
from interp_toolkit.soft_prompt import PromptTokens, SoftPrompt

P = ParamSpec("P")
T = TypeVar("T")


def on_still_model(function: Callable[Concatenate[PromptRun, P], T]) -> Callable[Concatenate[PromptRun, P], T]:
    """Let a function of a `PromptRun` look at the model once, see `Backend.still`."""

    @functools.wraps(function)
    def call(run: PromptRun, *arguments: P.args, **named: P.kwargs) -> T:
        with run.backend.still():
            return function(run, *arguments, **named)

    return call


class PromptRun:
    """A soft prompt on a frozen model, for `score` and `generate`.

    The tokens before the first slot see no soft token, so their keys and values are the same for every vector: they
    are computed at the first use and kept as long as the model's weights stay and no hooks of the user's are on it.

    Attributes:
        model: the hooked model.
        soft_prompt: the prompt.
        tokens: its ids and slots in the model's vocabulary.
        recompute: whether passes that keep nothing save memory by computing blocks anew in the backward pass
            (gradient checkpointing).

    Raises:
        InterpToolkitError: the prompt does not fit the tokenizer or the model's context, holds a token without a row in
            the embedding, or its site does not exist in the model.
    """

    def __init__(
        self, model: Any, soft_prompt: SoftPrompt, recompute: bool = False, tokens: PromptTokens | None = None
    ) -> None:
        self.model = model = as_hooked_model(model)
        self.recompute = recompute
        self.backend = backend_of(model)
        self.backend.require(soft_prompt.site, to_write=True)
        self.soft_prompt = soft_prompt
        self.tokens = soft_prompt.tokens(model.tokenizer) if tokens is None else tokens
        require_rows(len(self.backend.embedding_weight), self.tokens.ids, "the soft prompt")
        self.require_room(0, "nothing")
        self._prefix = KeptPrefix(self.backend, self.tokens.prefix) if self.tokens.prefix else None
        self._about: dict[str, PromptRun] = {}

    def about(self, question: str) -> PromptRun:
        """The run that puts a question by the same prompt, see `SoftPrompt.about`; kept, as its beginning is.

        Args:
            question: empty for this run.
        """
        if not question:
            return self
        if question not in self._about:
            prompt = self.soft_prompt.about(question, self.model.tokenizer)
            self._about[question] = PromptRun(self.model, prompt, self.recompute)
        return self._about[question]

    def require_room(self, length: int, what: str) -> None:
        """Refuse what does not fit the model's context behind the prompt.

        Args:
            length: of the tokens that the model reads behind the prompt.
            what: is that long.

        Raises:
            InterpToolkitError: the text names both lengths.
        """
        whole = f"the soft prompt with {what}" if length else "the soft prompt"
        require_context(self.model, len(self.tokens.ids) + length, whole)

    @property
    def past(self) -> KV | None:
        """The tokens before the first slot, one row; None where there are none; see `Backend.prefix`."""
        return self._prefix.past if self._prefix else None

    def read(
        self, soft_tokens: Tensor, then: Tensor | None = None, keep: bool = False, reserve: int = 0
    ) -> tuple[Tensor, KV | None]:
        """Final hidden states of the prompt from the first slot on, and of the tokens ``then`` behind it.

        Args:
            soft_tokens: [batch, d_model], one a row, written at every slot of the row; or several a row,
                [batch, tokens, d_model], which the slots take in turn.
            then: ids [batch, length] that follow the prompt, padded on the right.
            keep: also give keys and values.
            reserve: how many further tokens to keep room for.

        Returns:
            hidden states [batch, tail + length, d_model], and the `KV` of everything so far or None.
        """
        batch = len(soft_tokens)
        ids = torch.tensor(self.tokens.tail, device=self.backend.device).expand(batch, -1)
        if then is not None:
            ids = torch.cat([ids, then], dim=1)
        edits = write_soft_tokens(self.backend, self.soft_prompt, self.tokens.tail_slots, soft_tokens)
        return self.backend.hidden(ids, self.past, edits, keep, reserve, self.recompute and not keep)
