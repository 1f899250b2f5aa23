"""What engines have in common that run a model outside this library: prompts to send, ends of texts, evidence."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.contract import ModelFacts
from interp_toolkit.engines.engine import Capability
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.limits import require_rows
from interp_toolkit.runtime.generate import checked_row_ids, require_settings
from interp_toolkit.runtime.injection import for_each_slot, require_slots
from interp_toolkit.runtime.score import Scores, target_rows
from interp_toolkit.runtime.texts import Generation, TextEnds, Until, WrittenText
from interp_toolkit.soft_prompt import PromptTokens, SoftPrompt


@dataclass(frozen=True, eq=False)
class FilledPrompt:
    """A soft prompt with its soft tokens, and perhaps a text behind it.

    Attributes:
        soft_prompt: the text.
        tokens: its ids and slots.
        soft_tokens: what the slots hold, [slots, d_model], float32.
        then: ids of the text behind it.
    """

    soft_prompt: SoftPrompt
    tokens: PromptTokens
    soft_tokens: Tensor
    then: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """Of the prompt and the text behind it."""
        return [*self.tokens.ids, *self.then]


@dataclass(frozen=True)
class Drawing:
    """How texts are drawn.

    Attributes:
        samples: texts of one prompt.
        temperature: 0 for the most probable token each time.
        top_p: sample among the most probable tokens that together have this probability.
        max_new_tokens: longest text, in tokens.
        stops: ids of the tokens that end a text.
        stop_text: a text that ends one; empty for none.
    """

    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    stops: tuple[int, ...]
    stop_text: str


# The tokens of a text with their log-probabilities at temperature 1, up to and with its stop token.
Drawn = list[tuple[int, float]]


class OutsideEngine(ABC):
    """An `Engine` whose model runs outside this library, behind two methods.

    Args:
        facts: of the model; the fingerprint may be empty, and then adapters are tested by their probe.
        tokenizer: of the model.
        stops: ids at which the model may end its turn.
        context: the most tokens that it reads at once.
        vocabulary: rows of its embedding.
    """

    def __init__(self, facts: ModelFacts, tokenizer: Any, stops: Sequence[int], context: int, vocabulary: int) -> None:
        self._facts = facts
        self.tokenizer = tokenizer
        self.stops = tuple(stops)
        self.context = context
        self.vocabulary = vocabulary

    @property
    def facts(self) -> ModelFacts:
        """Which model it runs."""
        return self._facts

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """What else its numbers depend on."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Soft tokens at the embedding, without gradients, and no activations."""
        return frozenset()

    @property
    def device(self) -> torch.device:
        """Soft tokens are taken in this process's memory."""
        return torch.device("cpu")

    @abstractmethod
    def _draw(
        self, prompts: Sequence[FilledPrompt], seeds: Sequence[int], drawing: Drawing, done: Callable[[], object]
    ) -> list[list[Drawn]]:
        """The texts behind each prompt, drawn by its seed; ``done`` is called after each prompt."""

    @abstractmethod
    def _log_probs(self, prompts: Sequence[FilledPrompt]) -> list[list[float] | None]:
        """Log-probabilities of the tokens behind each prompt; None where just these tokens cannot be sent."""

    def generate(
        self,
        soft_prompt: SoftPrompt,
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
        """Write texts behind the soft prompt, see `interp_toolkit.runtime.generate`.

        Greedy texts are those of a hooked model in float32. Samples are drawn by the engine, so they are others than a
        hooked model's for the same seed; they too depend on the seed and the row alone.

        Args:
            soft_prompt: the text, and where the soft tokens are written.
            soft_tokens: [n, d_model], or [n, tokens, d_model].
            null: the null vector's soft token, by which the evidence of every text is measured.
            samples: texts per soft token.
            temperature: 0 for the most probable token at every step.
            top_p: sample among the most probable tokens that together have this probability.
            seed: of the sampling.
            row_ids: what every row is, for draws that do not depend on the other rows.
            max_new_tokens: greatest length of a text, in tokens.
            until: what ends a text before its greatest length.
            progress: whether to show a bar.

        Returns:
            For every soft token its texts, with ``log_prob`` and ``evidence`` where ``null`` was passed.

        Raises:
            InterpToolkitError: a setting out of its range, a soft prompt that this engine cannot take, or an engine
                that fails.
        """
        require_settings(samples, max_new_tokens, temperature, top_p)
        row_ids = checked_row_ids(soft_tokens, row_ids)
        prompts = self._filled(soft_prompt, soft_tokens, max_new_tokens - 1, f"max_new_tokens={max_new_tokens}")
        ends = TextEnds.from_prompt(self.tokenizer, self.stops, soft_prompt.stop, until)
        stops = tuple(sorted(ends.stops))
        drawing = Drawing(samples, temperature, top_p, max_new_tokens, stops, ends.stop_text)
        seeds = [_seed(row_id, seed) for row_id in row_ids]
        with tqdm(total=len(prompts), desc="describing", unit="vector", disable=not progress) as bar:
            drawn = self._draw(prompts, seeds, drawing, bar.update)
        texts = [[_written(ends, one) for one in row] for row in drawn]
        if null is None:
            return texts
        return self._with_evidence(soft_prompt, prompts, null, texts)

    def score(
        self,
        soft_prompt: SoftPrompt,
        soft_tokens: Tensor,
        targets: Sequence[Sequence[int]],
        soft_token_index: Sequence[int] | None = None,
    ) -> Scores:
        """Compute log-probabilities of targets behind the soft prompt, see `interp_toolkit.runtime.score`.

        Args:
            soft_prompt: the text, and where the soft tokens are written.
            soft_tokens: [n, d_model], or [n, tokens, d_model].
            targets: token ids, at least one per target.
            soft_token_index: for every target the row of its soft token; by default target i has row i.

        Returns:
            `Scores`, in nats.

        Raises:
            InterpToolkitError: a target that the engine cannot be sent, soft tokens that need gradients, or whatever
                else `generate` refuses.
        """
        if soft_tokens.requires_grad and torch.is_grad_enabled():
            raise InterpToolkitError(
                f"expected soft tokens without gradients, since {type(self).__name__} gives none; train with a hooked "
                f"model, or compute scores under torch.no_grad()"
            )
        rows = target_rows(soft_tokens, targets, soft_token_index)
        longest = max(map(len, targets), default=1)
        prompts = self._filled(soft_prompt, soft_tokens, longest, "the longest target")
        by_target = self._log_probs([replace(prompts[row], then=tuple(target)) for row, target in zip(rows, targets)])
        values: list[float] = []
        for i, log_probs in enumerate(by_target):
            if log_probs is None:
                raise InterpToolkitError(
                    f"target {i} cannot be sent to {type(self).__name__} as the text "
                    f"{self.tokenizer.decode(list(targets[i]))!r:.80}, which has other tokens behind the soft prompt; "
                    f"leave that row out, or score it with a hooked model"
                )
            values += log_probs
        return Scores(torch.tensor(values, dtype=torch.float32), tuple(map(len, targets)))

    def _with_evidence(
        self,
        soft_prompt: SoftPrompt,
        prompts: Sequence[FilledPrompt],
        null: Tensor,
        texts: Sequence[Sequence[Generation]],
    ) -> list[list[Generation]]:
        """The texts with their mean log-probability, and that less the same given the null vector.

        Equal texts behind equal soft tokens are sent once, so that the null vector's own evidence is zero.
        """
        nothing = self._filled(soft_prompt, null.detach()[None], 0, "nothing")[0]
        wanted: dict[tuple[bytes, tuple[int, ...]], FilledPrompt] = {}

        def want(prompt: FilledPrompt, ids: tuple[int, ...]) -> tuple[bytes, tuple[int, ...]]:
            key = (prompt.soft_tokens.numpy().tobytes(), ids)
            wanted.setdefault(key, replace(prompt, then=ids))
            return key

        keys = [
            [(want(prompt, text.token_ids), want(nothing, text.token_ids)) if text.token_ids else None for text in row]
            for prompt, row in zip(prompts, texts)
        ]
        measured = dict(zip(wanted, self._log_probs(list(wanted.values()))))
        means = {key: None if values is None else sum(values) / len(values) for key, values in measured.items()}
        lost, out = 0, []
        for row, row_keys in zip(texts, keys):
            new = []
            for text, pair in zip(row, row_keys):
                by_vector, by_null = (means[pair[0]], means[pair[1]]) if pair else (None, None)
                if by_vector is None or by_null is None:
                    lost += pair is not None
                    new.append(text)
                else:
                    new.append(replace(text, log_prob=by_vector, evidence=by_vector - by_null))
            out.append(new)
        if lost:
            warnings.warn(
                f"{lost} of {sum(map(len, texts))} texts have no evidence: their tokens are others once they are sent "
                f"to {type(self).__name__} as text; describe these vectors with a hooked model",
                stacklevel=2,
            )
        return out

    def _filled(self, soft_prompt: SoftPrompt, soft_tokens: Tensor, length: int, what: str) -> list[FilledPrompt]:
        """A prompt for each row of soft tokens, once all is known to fit the model."""
        if not soft_prompt.at_embedding and "any_site" not in self.capabilities:
            raise InterpToolkitError(
                f"expected a soft prompt that replaces embeddings, since {type(self).__name__} writes nowhere else, "
                f"got one at {soft_prompt.site} (mode {soft_prompt.mode!r}); use a hooked model"
            )
        tokens = soft_prompt.tokens(self.tokenizer)
        require_rows(self.vocabulary, tokens.ids, "the soft prompt")
        require_slots(soft_tokens, len(tokens.slots))
        if soft_tokens.shape[-1] != self.facts.d_model:
            raise InterpToolkitError(
                f"expected soft tokens of width {self.facts.d_model}, the model's, got {soft_tokens.shape[-1]}"
            )
        if len(tokens.ids) + length > self.context:
            raise InterpToolkitError(
                f"the soft prompt with {what} is {len(tokens.ids) + length} tokens long, and the engine reads "
                f"{self.context} tokens; shorten it, or start it with a longer context"
            )
        values = for_each_slot(soft_tokens.detach().float().cpu(), len(tokens.slots))
        if not values.isfinite().all():
            row = int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
            raise InterpToolkitError(f"soft token {row} is not finite; leave its vector out")
        return [FilledPrompt(soft_prompt, tokens, row) for row in values]


def _seed(row_id: bytes, seed: int) -> int:
    """A seed of 31 bits that differs from row to row and from seed to seed."""
    digest = hashlib.blake2b(row_id, digest_size=4, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") >> 1


def _written(ends: TextEnds, drawn: Drawn) -> Generation:
    text = WrittenText(ends)
    for token, log_prob in drawn:
        if not text.add(token, log_prob):
            break
    return text.generation()
