"""The way from final hidden states to logits, as Hugging Face's own forward has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from interp_toolkit.models.products import Products
from interp_toolkit.models.state import has_hooks
from interp_toolkit.models.wrapped import inner_module

# Logits at which whatever a model does to them shows: a cap leaves small ones as they are.
_PROBE = 100.0


class Head:
    """What a causal language model does behind its base model.

    Families differ there (a further projection, a factor, a soft cap), so nothing of it is written down here: Hugging
    Face's forward runs with a base model in place that gives the hidden states at once.

    Args:
        hf_model: the causal language model; it stays as it is.
        base: its base model.
        products: with its matrices.
    """

    def __init__(self, hf_model: nn.Module, base: nn.Module, products: Products) -> None:
        self._model = hf_model
        self._base = base
        self._products = products
        self._plain: bool | None = None

    @property
    def _unembedding(self) -> nn.Module:
        return self._model.get_output_embeddings()  # type: ignore[operator]

    def unembedded(self, hidden: Tensor) -> Tensor:
        """Final hidden states [n, width] times the unembedding: [n, vocabulary] in the model's dtype."""
        if self._plain:
            matrix = inner_module(self._unembedding)
            if type(matrix) is nn.Linear and not any(map(has_hooks, self._unembedding.modules())):
                return self._products(hidden, (matrix,))[0]
            return self._unembedding(hidden[None]).squeeze(0)
        calls: list[tuple[Tensor, Tensor]] = []

        def spy(states: Tensor) -> Tensor:
            calls.append((states, self._unembedding(states)))
            return calls[-1][1]

        self._run(hidden, spy)
        self._plain = torch.equal(calls[0][0].reshape(hidden.shape), hidden)
        return calls[0][1].squeeze(0)

    def transform(self) -> Callable[[Tensor], Tensor] | None:
        """What follows the unembedding, for float32 rows [n, vocabulary]; None where nothing does."""
        weight: Any = self._unembedding.weight
        rows = torch.linspace(-_PROBE, _PROBE, len(weight), device=weight.device)[None]
        with torch.no_grad():
            return None if torch.equal(self._transform(rows), rows) else self._transform

    def _transform(self, rows: Tensor) -> Tensor:
        weight: Any = self._unembedding.weight
        hidden = weight.new_zeros(len(rows), weight.shape[1])
        return self._run(hidden, lambda _: rows[None])

    def _run(self, hidden: Tensor, unembed: Callable[[Tensor], Tensor]) -> Tensor:
        # Some families go past the base model, to the decoder in it.
        decoders = {self._base, self._model.get_decoder()} - {self._model}  # type: ignore[operator]
        forwards = dict.fromkeys(decoders, lambda *_, **__: _Final(hidden[None])) | {self._unembedding: unembed}
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        return _copy_with(self._model, forwards)(input_ids=ids).logits.squeeze(0)


@dataclass
class _Final(ModelOutput):
    """What a base model gives; of all else that some family asks for there is nothing."""

    last_hidden_state: Tensor | None = None

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def base_of(hf_model: Any) -> nn.Module:
    """The part of a causal language model that gives hidden states."""
    if hf_model.base_model is not hf_model:
        return hf_model.base_model
    embedding = hf_model.get_input_embeddings()  # some families do not say what their base model is called
    return next(child for child in hf_model.children() if embedding in child.modules())


def _copy_with(module: nn.Module, forwards: dict[nn.Module, Callable[..., Any]]) -> Any:
    """A copy in which some modules have another forward; weights and all other modules are shared."""
    if not any(inner in forwards for inner in module.modules()):
        return module
    copy = object.__new__(type(module))
    copy.__dict__ = dict(module.__dict__)
    if module in forwards:
        copy.__dict__["forward"] = forwards[module]
    children = module._modules.items()
    copy.__dict__["_modules"] = {name: child and _copy_with(child, forwards) for name, child in children}
    return copy
