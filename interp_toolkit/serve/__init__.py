"""A server for one model and its adapters: the explorer in a browser, and an API behind it."""

from typing import TYPE_CHECKING

from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.serve.app import create_app
    from interp_toolkit.serve.limits import Limits
    from interp_toolkit.serve.run import load_service, serve
    from interp_toolkit.serve.service import Service

__all__ = ["Limits", "Service", "create_app", "load_service", "serve"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"create_app": "app", "Limits": "limits", "load_service": "run", "serve": "run", "Service": "service"},
)
