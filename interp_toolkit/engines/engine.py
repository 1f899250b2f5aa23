"""What `self_explain` needs of whatever runs a model: an interface that a user's own engine can implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp_toolkit.contract import ModelFacts
from interp_toolkit.runtime import Generation, Scores
from interp_toolkit.soft_prompt import SoftPrompt

Capability = Literal["activations", "gradients", "any_site"]
"""What an engine can do beside `generate` and `score` with soft tokens that replace embeddings.

``"activations"``: read residual streams of prompts; ``"gradients"``: `score` is differentiable in the soft tokens;
``"any_site"``: write soft tokens at any site, and add them to what is there.
"""


@runtime_checkable
class Engine(Protocol):
    """Something that runs a frozen model behind a soft prompt: this process, or a server that takes embeddings.

    An engine that implements these members can be passed to `self_explain` as ``model=`` for vectors.
    `LocalEngine` is the one for hooked models, `ServedEngine` and `VllmEngine` are for models that vLLM runs.
    """

    @property
    def facts(self) -> ModelFacts:
        """Which model it runs; adapters are checked against it."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What else its numbers depend on, by name: the kind of engine, the dtype, versions."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do beside the two methods below."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it takes soft tokens."""
        ...

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
        progress: bool = False,
    ) -> list[list[Generation]]:
        """Write texts behind the soft prompt, see `interp_toolkit.runtime.generate`.

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
            progress: whether to show a bar.

        Returns:
            For every soft token its texts, with ``log_prob`` and ``evidence`` where ``null`` was passed.
        """
        ...

    def score(
        self,
        soft_prompt: SoftPrompt,
        soft_tokens: Tensor,
        targets: Sequence[Sequence[int]],
        soft_token_index: Sequence[int] | None = None,
    ) -> Scores:
        """Compute log-probabilities of target tokens behind the soft prompt, see `interp_toolkit.runtime.score`.

        Args:
            soft_prompt: the text, and where the soft tokens are written.
            soft_tokens: [n, d_model], or [n, tokens, d_model].
            targets: token ids, at least one per target.
            soft_token_index: for every target the row of its soft token; by default target i has row i.

        Returns:
            `Scores`, in nats.
        """
        ...
