"""What a hooked model is: its identity, its sizes, its stop tokens."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import torch
from torch import nn

from interp_toolkit.contract import ModelFacts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.hooked import backend_of
from interp_toolkit.models.weights import block_signs, weights_digest

_names: weakref.WeakKeyDictionary[nn.Module, tuple[str, str]] = weakref.WeakKeyDictionary()
_facts: weakref.WeakKeyDictionary[nn.Module, tuple[bytes, ModelFacts]] = weakref.WeakKeyDictionary()


def name_model(model: Any, model_id: str, revision: str) -> None:
    """Record what a model was loaded from, which the model itself may not remember.

    Args:
        model: the hooked model.
        model_id: hub id or folder.
        revision: commit, or what stands for it.
    """
    _names[model] = (model_id, revision)
    _facts.pop(model, None)


def model_facts(model: Any) -> ModelFacts:
    """Return the facts of a hooked model as it is now; they are read again when its weights have changed.

    Raises:
        InterpToolkitError: not a hooked model.
    """
    backend = backend_of(model)
    if backend.of_whole is not None:
        return backend.of_whole[0]
    version = backend.look()[1]
    cached_version, facts = _facts.get(model, (None, None))
    if facts is None or cached_version != version:
        model_id, revision = _names.get(model) or _stated_name(model)
        fingerprint = _fingerprint(backend.embedding_weight)
        facts = ModelFacts(model_id, revision, fingerprint, backend.d_model, backend.n_layers, block_signs(model))
        _facts[model] = (version, facts)
    return facts


def _stated_name(model: Any) -> tuple[str, str]:
    config = getattr(getattr(model, "original_model", None), "config", None)
    name = getattr(config, "_name_or_path", "") or getattr(model.cfg, "model_name", "") or "unknown"
    return str(name), str(getattr(config, "_commit_hash", None) or "")


def _fingerprint(embedding: torch.Tensor) -> str:
    rows = torch.linspace(0, len(embedding) - 1, 64).long().to(embedding.device)
    # Signs alone: they survive every dtype, and the factor that one of the classes folds into Gemma's embedding.
    signs = (embedding.detach()[rows] > 0).cpu().numpy()
    return hashlib.sha256(signs.tobytes()).hexdigest()[:16]


def weights_key(model: Any) -> str:
    """A hash that names what is computed by a model with these weights, dtype and chat template.

    It covers every bit of the weights, so it tells a model from its fine-tunes and edits, which may keep its name.

    Raises:
        InterpToolkitError: the model has hooks or replaced forwards of the user's, which no hash can cover.
    """
    backend = backend_of(model)
    change = backend.look()[0]
    if change is not None:
        raise InterpToolkitError(
            f"expected the model as it was loaded, since results are kept by its weights, and it has {change}; take "
            f"that off, or leave out the folder where there is one to leave out"
        )
    if backend.of_whole is not None:
        return backend.of_whole[1]
    template = str(getattr(model.tokenizer, "chat_template", ""))
    return hashlib.sha256((weights_digest(model) + template).encode()).hexdigest()


def is_plain(model: Any) -> bool:
    """Whether a model runs as it was loaded: no hooks and no replaced forwards of the user's are on it."""
    return backend_of(model).plain()
