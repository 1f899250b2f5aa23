"""What a hooked model is: its identity, its sizes, its stop tokens."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch
from torch import nn

from interp_toolkit.contract import ModelFacts
from interp_toolkit.models.backend import backend_of

_names: weakref.WeakKeyDictionary[nn.Module, tuple[str, str]] = weakref.WeakKeyDictionary()
_facts: weakref.WeakKeyDictionary[nn.Module, ModelFacts] = weakref.WeakKeyDictionary()


def name_model(model: Any, model_id: str, revision: str) -> None:
    """Record what a model was loaded from, which the model itself may not remember."""
    _names[model] = (model_id, revision)
    _facts.pop(model, None)


def model_facts(model: Any) -> ModelFacts:
    """The facts of a hooked model.

    Raises:
        InterpToolkitError: not a hooked model.
    """
    backend = backend_of(model)
    if model not in _facts:
        model_id, revision = _names.get(model) or _own_name(model)
        _facts[model] = ModelFacts(
            model_id, revision, _fingerprint(backend.embedding_weight), backend.d_model, backend.n_layers
        )
    return _facts[model]


def _own_name(model: Any) -> tuple[str, str]:
    config = getattr(getattr(model, "original_model", None), "config", None)
    name = getattr(config, "_name_or_path", "") or getattr(model.cfg, "model_name", "") or "unknown"
    return str(name), str(getattr(config, "_commit_hash", None) or "")


def _fingerprint(embedding: torch.Tensor) -> str:
    rows = torch.linspace(0, len(embedding) - 1, 64).long().to(embedding.device)
    # Signs alone: they survive every dtype, and the factor that one of the classes folds into Gemma's embedding.
    signs = (embedding.detach()[rows] > 0).cpu().numpy()
    return hashlib.sha256(signs.tobytes()).hexdigest()[:16]


def weights_key(model: Any) -> str:
    """A hash that tells a model from its fine-tunes, which may keep its name and its embedding, and from another dtype.

    It covers 64 values of every weight, and the chat template.
    """
    told = hashlib.sha256(str(getattr(model.tokenizer, "chat_template", "")).encode())
    for name, weight in model.named_parameters():
        told.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        some = torch.linspace(0, weight.numel() - 1, 64, dtype=torch.float64).long().to(weight.device)
        told.update(weight.detach()[torch.unravel_index(some, weight.shape)].float().cpu().numpy().tobytes())
    return told.hexdigest()
