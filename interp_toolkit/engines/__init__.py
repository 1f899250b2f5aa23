"""What runs a model: this process, a server, or vLLM in this process, behind one interface."""

from typing import TYPE_CHECKING

from interp_toolkit.engines.engine import Capability, Engine
from interp_toolkit.engines.local import DEFAULT_MODEL, LocalEngine
from interp_toolkit.engines.self_test import require_same_model
from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.engines.choice import as_engine, as_toolkit_server
    from interp_toolkit.engines.served import ServedEngine
    from interp_toolkit.engines.server import server_command
    from interp_toolkit.engines.toolkit_server import ToolkitServer
    from interp_toolkit.engines.vllm_engine import VllmEngine

__all__ = [
    "DEFAULT_MODEL",
    "Capability",
    "Engine",
    "LocalEngine",
    "ServedEngine",
    "ToolkitServer",
    "VllmEngine",
    "as_engine",
    "as_toolkit_server",
    "require_same_model",
    "server_command",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "as_engine": "choice",
        "as_toolkit_server": "choice",
        "ServedEngine": "served",
        "ToolkitServer": "toolkit_server",
        "VllmEngine": "vllm_engine",
        "server_command": "server",
    },
)
