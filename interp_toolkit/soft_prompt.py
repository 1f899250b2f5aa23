"""Soft prompts: a question about a placeholder, and where in the model the placeholder is filled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from interp_toolkit.chat import encode, end_of_turn, has_chat_template, render
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.quotes import closed_label
from interp_toolkit.sites import Site

SLOT = "{slot}"
QUESTION = 'What is the meaning of "{slot}"?'
ANSWER = 'The meaning of "{slot}" is "'
# A model that was never taught to answer goes on as a text began, so it is shown how.
TEXT = (
    'The meaning of "puppy" is "a young dog"\n'
    'The meaning of "violin" is "a musical instrument with four strings"\n'
    'The meaning of "Tokyo" is "the capital of Japan"\n'
    'The meaning of "{slot}" is "'
)

# Where a question about a vector stands in the text that asks it.
QUESTION_SLOT = "{question}"
# The question comes first: what stands before the slot is read once for all vectors that it is put to.
FREE_QUESTION = '{question}\n\n"{slot}"'
FREE_ANSWER = 'The answer is "'
FREE_TEXT = (
    'Question: Is this an animal?\nText: "puppy"\nAnswer: "yes"\n\n'
    'Question: In which country is this?\nText: "Tokyo"\nAnswer: "Japan"\n\n'
    'Question: {question}\nText: "{slot}"\nAnswer: "'
)

_LLAMA = "<|reserved_special_token_0|>"
_QWEN = "<|fim_pad|>"


@dataclass(frozen=True)
class PromptTokens:
    """A soft prompt in a tokenizer's ids.

    Attributes:
        ids: all tokens of the prompt.
        slots: positions of the placeholders among them, ascending.
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens before the first slot, which no soft token can change."""
        return self.ids[: self.slots[0]]

    @property
    def tail(self) -> tuple[int, ...]:
        """The tokens from the first slot on."""
        return self.ids[self.slots[0] :]

    @property
    def tail_slots(self) -> tuple[int, ...]:
        """Positions of the slots within the tail."""
        return tuple(slot - self.slots[0] for slot in self.slots)


@dataclass(frozen=True)
class SoftPrompt:
    """A text with placeholders, and the site where soft tokens are written over (or added to) them.

    At the embedding the soft token takes the place of a row of Hugging Face's ``inputs_embeds``, which transformers 5
    has after Gemma's factor of sqrt(d_model). The wording is that of arXiv 2602.10352, section 3.

    Attributes:
        template: the whole text, chat markup included, with ``marker`` at each slot.
        marker: the text of one special token that stands for the slot; or ``{slot}``, for which no token stands: the
            slot is known by its position, and the texts around it are tokenised apart.
        stop: the text of the token that ends the assistant's turn; in a plain text the text that follows a label's
            closing quote.
        site: where soft tokens are written.
        mode: ``"replace"`` the stream at the slots, or ``"add"`` to it.
        asking: the text by which an adapter was taught to answer questions, with ``{question}`` for the question; empty
            where it was taught none.

    Example:
        >>> prompt = SoftPrompt.for_chat(model.tokenizer)
        >>> prompt.tokens(model.tokenizer).slots
        (31, 47)
    """

    template: str
    marker: str
    stop: str
    site: Site = field(default_factory=Site.embedding)
    mode: Literal["replace", "add"] = "replace"
    asking: str = ""

    def __post_init__(self) -> None:
        if self.mode not in ("replace", "add"):
            raise InterpToolkitError(f"expected mode 'replace' or 'add', got {self.mode!r}")
        if not self.marker or self.marker not in self.template:
            raise InterpToolkitError(
                f"the soft prompt has no slot: expected {self.marker!r} at least once in {self.template!r}; "
                f"put it where the soft token belongs"
            )
        if self.asking and (self.marker not in self.asking or QUESTION_SLOT not in self.asking):
            raise InterpToolkitError(
                f"expected {QUESTION_SLOT} and {self.marker!r} in the text that puts questions, got "
                f"{self.asking!r:.200}"
            )

    @classmethod
    def for_tokenizer(
        cls, tokenizer: Any, tokens: int = 1, *, chat: bool | None = None, vocabulary: int | None = None
    ) -> SoftPrompt:
        """The default soft prompt of a model: `for_chat` where it has a chat template, else `for_text`.

        Args:
            tokenizer: of the model.
            tokens: how many soft tokens the adapter makes.
            chat: False for the plain text although there is a chat template.
            vocabulary: see `for_chat`.
        """
        if has_chat_template(tokenizer) if chat is None else chat:
            return cls.for_chat(tokenizer, tokens=tokens, vocabulary=vocabulary)
        return cls.for_text(tokenizer, tokens=tokens)

    @classmethod
    def for_chat(
        cls,
        tokenizer: Any,
        question: str = QUESTION,
        answer: str = ANSWER,
        marker: str | None = None,
        tokens: int = 1,
        vocabulary: int | None = None,
    ) -> SoftPrompt:
        """The soft prompt of a chat model: a user's question and the beginning of the assistant's answer.

        A template that begins the assistant's turn with its thoughts (``<think>``) has them ended before the answer.

        Args:
            tokenizer: with a chat template; without one the question is written plainly on a line of its own.
            question: the user's turn, with ``{slot}`` for the placeholder.
            answer: the beginning of the assistant's turn, likewise.
            marker: a special token of the vocabulary to stand for the slot; by default one that is made to mean
                nothing, and where there is none the slot is known by its position alone.
            tokens: how many soft tokens the adapter makes; each ``{slot}`` has room for that many.
            vocabulary: number of rows of the model's embedding; a token behind them is not taken for a marker.

        Raises:
            InterpToolkitError: no ``{slot}``, or a chat template that refuses the question.
        """
        _require_slot(question + answer, "the question or the answer", f"{question!r} and {answer!r}")
        if has_chat_template(tokenizer):
            text = render(tokenizer, [{"role": "user", "content": question}])
            if text.rfind("<think>") > text.rfind("</think>"):
                text = text.rstrip() + "\n\n</think>\n\n"
        else:
            text = f"{tokenizer.bos_token or ''}{question}\n"
        text += answer
        marker = marker or free_marker(tokenizer, text, vocabulary) or SLOT
        return cls(text.replace(SLOT, marker * tokens), marker, end_of_turn(tokenizer))

    @classmethod
    def for_text(cls, tokenizer: Any, text: str = TEXT, stop: str = "\n", tokens: int = 1) -> SoftPrompt:
        """The soft prompt of a base model, which has no chat template: a plain text with a few examples.

        Slots are known by their positions, so no token of the vocabulary has to be free.

        Args:
            tokenizer: of the model; its beginning-of-sequence token, where there is one, is put before the text.
            text: up to a label's opening quote, with ``{slot}`` for the placeholder.
            stop: what follows the closing quote of a label: a line break, as in the examples, or a special token.
            tokens: how many soft tokens the adapter makes; each ``{slot}`` has room for that many.

        Raises:
            InterpToolkitError: no ``{slot}``, or no stop.

        Example:
            >>> SoftPrompt.for_text(model.tokenizer, 'puppy: "a young dog"\\n{slot}: "')
        """
        _require_slot(text, "the text", repr(text))
        if not stop:
            raise InterpToolkitError("expected a stop such as a line break behind the closing quote, got none")
        bos = tokenizer.bos_token or ""
        text = text if bos and text.startswith(bos) else bos + text
        return cls(text.replace(SLOT, SLOT * tokens), SLOT, stop)

    @classmethod
    def preset(cls, name: str) -> SoftPrompt:
        """The exact text that published adapters were trained with: ``"llama-3.1"`` or ``"qwen2.5"``.

        Raises:
            InterpToolkitError: no such preset.
        """
        if name not in PRESETS:
            raise InterpToolkitError(f"expected a soft-prompt preset of {', '.join(PRESETS)}, got {name!r}")
        return PRESETS[name]

    @property
    def at_embedding(self) -> bool:
        """Whether soft tokens replace embeddings, as any engine can do."""
        return self.site.is_embedding and self.mode == "replace"

    def at(self, site: Site | str, mode: Literal["replace", "add"] = "replace") -> SoftPrompt:
        """The same text with soft tokens written at another site."""
        return replace(self, site=Site.parse(site), mode=mode)

    def with_room(self, span: int) -> SoftPrompt:
        """The same text with slots for several vectors, one after the other, where there were those of one.

        Args:
            span: how many vectors.

        Raises:
            InterpToolkitError: fewer than one.
        """
        if span < 1:
            raise InterpToolkitError(f"expected room for at least one vector, got {span}")
        wide = self.marker * span
        return replace(
            self, template=self.template.replace(self.marker, wide), asking=self.asking.replace(self.marker, wide)
        )

    def with_questions(self, tokenizer: Any) -> SoftPrompt:
        """The same prompt with the default text by which questions are put; unchanged where it has one.

        Args:
            tokenizer: of the model.
        """
        if self.asking:
            return self
        tokens = max(len(run) for run in re.findall(f"(?:{re.escape(self.marker)})+", self.template))
        tokens //= len(self.marker)
        if has_chat_template(tokenizer) and self.stop == end_of_turn(tokenizer):
            template = SoftPrompt.for_chat(tokenizer, FREE_QUESTION, FREE_ANSWER, self.marker, tokens).template
        else:
            template = SoftPrompt.for_text(tokenizer, FREE_TEXT, tokens=tokens).template.replace(SLOT, self.marker)
        return replace(self, asking=template)

    def about(self, question: str, tokenizer: Any) -> SoftPrompt:
        """The prompt that puts a question about the vector, in whose place the soft token stands.

        Args:
            question: as one would ask of a text: ``"Is this about a person?"``; empty for the prompt itself, which
                asks for a description.
            tokenizer: of the model.

        Raises:
            InterpToolkitError: a question that holds the slot's marker or another special token.

        Example:
            >>> prompt.about("Is this about a person?", model.tokenizer)
        """
        if not question.strip():
            return self
        special = [self.marker, SLOT, *map(str, tokenizer.all_special_tokens)]
        if held := next((token for token in special if token and token in question), None):
            raise InterpToolkitError(
                f"expected a question without {held!r}, which means something else in a prompt, got {question!r:.80}"
            )
        template = self.with_questions(tokenizer).asking.replace(QUESTION_SLOT, question.strip())
        return replace(self, template=template, asking="")

    def tokens(self, tokenizer: Any) -> PromptTokens:
        """Ids and slot positions in the tokenizer of a model.

        Raises:
            InterpToolkitError: the marker is not one token, is merged into a neighbour, or the text begins with two
                beginning-of-sequence tokens.
        """
        ids, slots = self._by_position(tokenizer) if self.marker == SLOT else self._by_marker(tokenizer)
        bos = tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos] and 1 not in slots:
            raise InterpToolkitError(
                f"the soft prompt begins with two beginning-of-sequence tokens ({tokenizer.bos_token!r}); "
                f"take one out of the template: nothing is put before it"
            )
        if slots[0] == 0:
            raise InterpToolkitError("the soft prompt begins with its slot; expected at least one token before it")
        return PromptTokens(tuple(ids), tuple(slots))

    def _by_position(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        """Ids and slots where no token stands for a slot; some ordinary token fills it until it is written over."""
        filler = (encode(tokenizer, "_") or [0])[-1]
        ids: list[int] = []
        slots: list[int] = []
        for i, text in enumerate(self.template.split(SLOT)):
            if i:
                slots.append(len(ids))
                ids.append(filler)
            ids += encode(tokenizer, text) if text else []
        return ids, slots

    def _by_marker(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        marker = encode(tokenizer, self.marker)
        if len(marker) != 1:
            raise InterpToolkitError(
                f"the slot marker {self.marker!r} is {len(marker)} tokens in this model's vocabulary, expected one; "
                f"choose a special token of it, such as {_suggestions(tokenizer, self.template)}"
            )
        ids = encode(tokenizer, self.template)
        slots = [i for i, token in enumerate(ids) if token == marker[0]]
        if len(slots) != self.template.count(self.marker):
            raise InterpToolkitError(
                f"the slot marker {self.marker!r} does not stay one token inside the rendered template "
                f"({self.template.count(self.marker)} in the text, {len(slots)} among the tokens); "
                f"choose a special token, such as {_suggestions(tokenizer, self.template)}"
            )
        return ids, slots

    def targets(self, tokenizer: Any, labels: Sequence[str]) -> list[list[int]]:
        """Ids of the text that follows the prompt for each label: the label, a closing quote, the stop token.

        The text is tokenised on its own and put after the prompt (arXiv 2602.10352, section 3).

        Raises:
            InterpToolkitError: a label is empty, or holds the stop token, behind which nothing of it would be read.
        """
        for i, label in enumerate(labels):
            if not label.strip():
                raise InterpToolkitError(f"label {i} is empty; expected some text")
            if self.stop and self.stop in label.strip():
                raise InterpToolkitError(
                    f"label {i} holds {self.stop!r}, which ends a label in this soft prompt; take it out of "
                    f"{label!r:.80}"
                )
        texts = [closed_label(label, self.stop) for label in labels]
        return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def to_dict(self) -> dict[str, str]:
        """A form that JSON can hold."""
        stated = dict(template=self.template, marker=self.marker, stop=self.stop, site=str(self.site), mode=self.mode)
        # Left out where there is none, so that the files of such adapters are what they always were.
        return stated | (dict(asking=self.asking) if self.asking else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SoftPrompt:
        """The inverse of `to_dict`."""
        return cls(**{**data, "site": Site.parse(data["site"])})


def _require_slot(text: str, where: str, got: str) -> None:
    if SLOT not in text:
        raise InterpToolkitError(f"a soft prompt without a slot: expected {SLOT} in {where}, got {got}")


def free_marker(tokenizer: Any, text: str, vocabulary: int | None) -> str | None:
    """A special token that is made to mean nothing and that the text does not contain; None where there is none.

    Any other special token (one for padding that was added, say) may have no row in the model's embedding.

    Args:
        tokenizer: of the model.
        text: that must not contain it.
        vocabulary: rows of the model's embedding; a token behind them is not taken.
    """
    free = _free_tokens(tokenizer, text, vocabulary)
    return next((token for word in ("reserved", "unused", "fim_pad", "empty") for token in free if word in token), None)


def _free_tokens(tokenizer: Any, text: str, vocabulary: int | None = None) -> list[str]:
    special = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [token for token, i in special.items() if token not in text and (vocabulary is None or i < vocabulary)]


def _suggestions(tokenizer: Any, text: str) -> str:
    free = _free_tokens(tokenizer, text)
    return ", ".join(map(repr, [*free[:3], SLOT])) + f" ({SLOT} needs no token: the slot is known by its position)"


PRESETS = {
    "llama-3.1": SoftPrompt(
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        f'What is the meaning of "{_LLAMA}"?<|eot_id|>'
        f'<|start_header_id|>assistant<|end_header_id|>\n\nThe meaning of "{_LLAMA}" is "',
        _LLAMA,
        "<|eot_id|>",
    ),
    "qwen2.5": SoftPrompt(
        f'<|im_start|>user\nWhat is the meaning of "{_QWEN}"?<|im_end|>\n'
        f'<|im_start|>assistant\nThe meaning of "{_QWEN}" is "',
        _QWEN,
        "<|im_end|>",
    ),
}
