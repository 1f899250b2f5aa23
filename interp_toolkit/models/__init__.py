"""Hooked models: loading one, and the facts about it."""

from interp_toolkit.models.backend import Backend, StopForward
from interp_toolkit.models.facts import ModelFacts, is_plain, model_facts, weights_key
from interp_toolkit.models.hooked import backend_of, is_hooked_model
from interp_toolkit.models.kv import KV
from interp_toolkit.models.limits import context_length, require_context, require_rows
from interp_toolkit.models.load import as_hooked_model, load_model
from interp_toolkit.models.shard import shard_blocks

__all__ = [
    "KV",
    "Backend",
    "ModelFacts",
    "StopForward",
    "as_hooked_model",
    "backend_of",
    "context_length",
    "is_hooked_model",
    "is_plain",
    "load_model",
    "model_facts",
    "require_context",
    "require_rows",
    "shard_blocks",
    "weights_key",
]
