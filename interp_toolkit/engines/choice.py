"""Which engine a model means: a hooked model's, a server's, or an engine as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp_toolkit.engines.engine import Engine
from interp_toolkit.engines.local import DEFAULT_MODEL, default_engine, local_engine
from interp_toolkit.engines.served import ServedEngine
from interp_toolkit.engines.toolkit_server import OtherServer, ToolkitServer
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import is_hooked_model


def as_toolkit_server(model: Any) -> ToolkitServer | None:
    """The server of ``interp-toolkit serve`` that a model means: itself, or the one at an address; None for others.

    Args:
        model: what `self_explain` takes.

    Raises:
        InterpToolkitError: no server at the address.
    """
    if isinstance(model, ToolkitServer):
        return model
    if not _is_address(model):
        return None
    try:
        return ToolkitServer(model)
    except OtherServer:
        return None


def as_engine(model: Any) -> Engine:
    """Return the engine of a model, or an engine as it is.

    Args:
        model: a hooked model, what `load_model` takes, the address of a server (``"http://..."``), or an `Engine`. The
            default model by its name is loaded once per process.

    Raises:
        InterpToolkitError: anything else, or a server that cannot be used.
    """
    if isinstance(model, str) and model == DEFAULT_MODEL:
        return default_engine()
    if _is_address(model):
        return ServedEngine(model)
    if isinstance(model, ToolkitServer):
        raise InterpToolkitError(
            f"expected a model or an engine, got the server at {model.url}, which describes prompts and vectors for "
            f"self_explain alone; start vLLM with interp-toolkit serve-model for everything else"
        )
    if not isinstance(model, (str, Path)) and not is_hooked_model(model) and isinstance(model, Engine):
        return model
    return local_engine(model)


def _is_address(model: Any) -> bool:
    return isinstance(model, str) and model.startswith(("http://", "https://"))
