"""Which models are hooked models, and the `Backend` of each; nothing above asks which class it has."""

from __future__ import annotations

import sys
import threading
from typing import Any

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.attached import Attached
from interp_toolkit.models.backend import Backend
from interp_toolkit.models.state import refuse_compiled

_ATTRIBUTE = "_interp_toolkit_backend"
_creating = threading.Lock()


def is_bridge(value: object) -> bool:
    """Whether ``value`` is a `TransformerBridge`."""
    if not _is_imported():
        return False
    from transformer_lens.model_bridge import TransformerBridge

    return isinstance(value, TransformerBridge)


def is_hooked_model(value: object) -> bool:
    """Whether ``value`` is one of the two classes that serve."""
    if is_bridge(value):
        return True
    if not _is_imported():
        return False
    try:  # TransformerLens 4 has the bridge only.
        from transformer_lens import HookedTransformer
    except ImportError:
        return False
    return isinstance(value, HookedTransformer)


def backend_of(model: Any) -> Backend:
    """The `Backend` of a hooked model, created once and stored on the model.

    Raises:
        InterpToolkitError: ``model`` is neither a `TransformerBridge` nor a `HookedTransformer`.
    """
    refuse_compiled(model)
    if not is_hooked_model(model):
        raise InterpToolkitError(
            f"expected a hooked model (TransformerBridge or HookedTransformer), got {type(model).__name__}; "
            f"load one with interp_toolkit.load_model"
        )
    with _creating:
        attached = model.__dict__.setdefault(_ATTRIBUTE, Attached())
        # A shallow copy of a model comes with the original's.
        if attached.value is None or attached.value.model is not model:
            attached = model.__dict__[_ATTRIBUTE] = Attached(_create_backend(model))
        return attached.value


def _create_backend(model: Any) -> Backend:
    from interp_toolkit.models.bridge_backend import BridgeBackend
    from interp_toolkit.models.hooked_transformer_backend import HookedTransformerBackend

    return BridgeBackend(model) if is_bridge(model) else HookedTransformerBackend(model)


def _is_imported() -> bool:
    # Its import takes seconds, which who has a model of it has spent, and who asks a server need not.
    return "transformer_lens" in sys.modules
