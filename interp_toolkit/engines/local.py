"""The engine of hooked models in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.contract import ModelFacts
from interp_toolkit.engines.engine import Capability
from interp_toolkit.models import as_hooked_model, backend_of, load_model, model_facts
from interp_toolkit.runtime import Generation, PromptRun, Scores, generate, score
from interp_toolkit.soft_prompt import SoftPrompt

DEFAULT_MODEL = "smollm2-135m"

_loading = threading.Lock()
_default: list[LocalEngine] = []


class LocalEngine:
    """A hooked model as an `Engine`: everything an engine can do, with `PromptRun`, `generate` and `score`.

    Attributes:
        model: the hooked model.
    """

    def __init__(self, model: Any) -> None:
        self.model = as_hooked_model(model)
        self._last_run: PromptRun | None = None

    @property
    def facts(self) -> ModelFacts:
        """Which model this is."""
        return model_facts(self.model)

    @property
    def identity(self) -> Mapping[str, str]:
        """Its dtype."""
        return dict(engine="local", dtype=str(backend_of(self.model).dtype).removeprefix("torch."))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All that an engine may be able to do."""
        return frozenset(("activations", "gradients", "any_site"))

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.model.tokenizer

    @contextmanager
    def still(self) -> Iterator[None]:
        """For the length of the block, take the model to be as it is now, see `Backend.still`."""
        with backend_of(self.model).still():
            yield

    @property
    def device(self) -> torch.device:
        """Where the model's embedding is."""
        return backend_of(self.model).device

    def generate(self, soft_prompt: SoftPrompt, soft_tokens: Tensor, **settings: Any) -> list[list[Generation]]:
        """Write texts behind the soft prompt.

        Args:
            soft_prompt: the text, and where the soft tokens are written.
            soft_tokens: [n, d_model], or [n, tokens, d_model].
            settings: as `interp_toolkit.runtime.generate` takes them.

        Returns:
            for every soft token its texts.
        """
        return generate(self._run(soft_prompt), soft_tokens, **settings)

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
            soft_tokens: [n, d_model], or [n, tokens, d_model]; gradients flow to them.
            targets: token ids, at least one per target.
            soft_token_index: for every target the row of its soft token; by default target i has row i.
        """
        return score(self._run(soft_prompt), soft_tokens, targets, soft_token_index)

    def _run(self, soft_prompt: SoftPrompt) -> PromptRun:
        """The prompt on the model; kept while the same prompt is used, since its prefix has been run by then."""
        run = self._last_run  # another thread may replace it meanwhile
        if run is None or run.soft_prompt != soft_prompt:
            self._last_run = run = PromptRun(self.model, soft_prompt)
        return run


def default_engine() -> LocalEngine:
    """The engine of the default model, which is loaded once per process."""
    with _loading:
        if not _default:
            _default.append(LocalEngine(load_model(DEFAULT_MODEL)))
        return _default[0]


def local_engine(model: Any) -> LocalEngine:
    """The one engine of a hooked model, kept with it so that the beginning of a soft prompt is read once.

    Args:
        model: a hooked model, or what `load_model` takes.

    Raises:
        InterpToolkitError: anything else.
    """
    model = as_hooked_model(model)
    return backend_of(model).store.setdefault(LocalEngine, LocalEngine(model))
