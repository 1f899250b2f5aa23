"""Measure an adapter's probe on its model, and compare what another engine gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.models import as_hooked_model, backend_of, model_facts
from interp_toolkit.probe import Probe
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.score import Scores, score

# Some likely and some unlikely for any vector; together about as many tokens as ten descriptions.
_TEXTS = (
    "a kind of music",
    "the capital of France",
    "words about money, banks and debt",
    "Names of people who lived long ago",
    "numbers, dates and units of measurement",
    "verbs in the past tense, such as walked or said",
)


def make_probe(model: Any, adapter: Adapter) -> Probe:
    """Measure an adapter's probe, by which an engine elsewhere is known to run the same model.

    Args:
        model: the hooked model that the adapter was trained for; its dtype is that of the numbers.
        adapter: with its contract.

    Raises:
        ContractError: an adapter for another model.

    Example:
        >>> adapter.contract = dataclasses.replace(adapter.contract, probe=make_probe(model, adapter))
    """
    model = as_hooked_model(model)
    soft_prompt = adapter.require_contract(model_facts(model)).require_soft_prompt()
    run = PromptRun(model, soft_prompt)
    texts = tuple(map(tuple, soft_prompt.targets(model.tokenizer, _TEXTS)))
    with torch.no_grad():
        scores = _scored(lambda *arguments: score(run, *arguments), adapter, texts)
    dtype = str(backend_of(model).dtype).removeprefix("torch.")
    return Probe(texts, tuple(scores.log_probs.tolist()), dtype)


def probe_difference(
    score: Callable[[Tensor, Sequence[Sequence[int]], Sequence[int]], Scores], adapter: Adapter, probe: Probe
) -> float:
    """How far what an engine gives lies from an adapter's probe: the mean absolute difference, in nats per token.

    Args:
        score: soft tokens, targets and the row of each target's soft token in, log-probabilities out.
        adapter: that the probe was measured with.
        probe: of its contract.
    """
    log_probs = _scored(score, adapter, probe.texts).log_probs
    return float((log_probs.double() - torch.tensor(probe.log_probs, dtype=torch.float64)).abs().mean())


def probe_soft_tokens(adapter: Adapter) -> Tensor:
    """The soft tokens of a probe: the null vector's, and that of a vector of length one with signs in turn."""
    width = adapter.config.width
    signs = 1.0 - 2.0 * (torch.arange(width) % 2)
    with torch.no_grad():
        null = adapter.null()
        return torch.stack([null, adapter((signs / width**0.5).to(null.device))]).cpu()


def _scored(score: Callable[..., Scores], adapter: Adapter, texts: Sequence[Sequence[int]]) -> Scores:
    rows = [row for row in (0, 1) for _ in texts]
    return score(probe_soft_tokens(adapter), [*texts, *texts], rows)
