"""Which models are hooked models, and the `Backend` of each; nothing above asks which class it has."""

from __future__ import annotations

import threading
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.backend import Backend
from interp_toolkit.models.bridge_backend import BridgeBackend
from interp_toolkit.models.hooked_transformer_backend import HookedTransformerBackend
from interp_toolkit.models.kept import Kept
from interp_toolkit.models.state import refuse_compiled

try:  # TransformerLens 4 has the bridge only.
    from transformer_lens import HookedTransformer
except ImportError:
    HookedTransformer = None

_KEPT = "_interp_toolkit_backend"
_making = threading.Lock()


def is_hooked_model(value: object) -> bool:
    """Whether ``value`` is one of the two classes that serve."""
    return isinstance(value, TransformerBridge) or (
        HookedTransformer is not None and isinstance(value, HookedTransformer)
    )


def backend_of(model: Any) -> Backend:
    """The `Backend` of a hooked model, made once and kept as long as the model.

    Raises:
        InterpToolkitError: ``model`` is neither a `TransformerBridge` nor a `HookedTransformer`.
    """
    refuse_compiled(model)
    if not is_hooked_model(model):
        raise InterpToolkitError(
            f"expected a hooked model (TransformerBridge or HookedTransformer), got {type(model).__name__}; "
            f"load one with interp_toolkit.load_model"
        )
    with _making:
        kept = model.__dict__.setdefault(_KEPT, Kept())
        # A shallow copy of a model comes with the original's.
        if kept.value is None or kept.value.model is not model:
            kind = BridgeBackend if isinstance(model, TransformerBridge) else HookedTransformerBackend
            kept = model.__dict__[_KEPT] = Kept(kind(model))
        return kept.value
