"""Starting a server: what it loads, where it listens, and how it ends."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.engines import LocalEngine, as_engine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.serve.app import create_app
from interp_toolkit.serve.features import Features
from interp_toolkit.serve.guard import LOOPBACK_HOSTS, is_loopback
from interp_toolkit.serve.limits import Limits
from interp_toolkit.serve.service import Service
from interp_toolkit.shipped import NAMES, find_adapter

# How long what runs may go on after the signal to end, in seconds.
_GRACE = 20
# Connections at once, those that only wait included; one more is refused with 503.
_CONNECTIONS = 256
_SHORTEST_TOKEN = 16


def load_service(
    model: Any,
    adapters: Sequence[str] = (),
    limits: Limits | None = None,
    *,
    features: str | Path | None = None,
    labels: str | Path | None = None,
    examples: str | Path | None = None,
) -> Service:
    """Load a model and the adapters that are served with it.

    Args:
        model: what `load_model` takes, or a hooked model.
        adapters: paths, hub ids or shipped names; by default all that are shipped for the model.
        limits: of the server.
        features: folder of ``interp-toolkit sae describe``, to be searched; None for none.
        labels: other labels of the same features.
        examples: file of their top activating examples.

    Raises:
        InterpToolkitError: none fits the model, or two have one name.
    """
    engine = as_engine(model)
    if not isinstance(engine, LocalEngine):
        raise InterpToolkitError(f"expected a model to load here, got {type(engine).__name__}; name a model")
    named: dict[str, Adapter] = {}
    for path in adapters or NAMES:
        adapter = find_adapter(path)
        contract = adapter.contract
        if not adapters and (contract is None or not contract.is_of(engine.facts)):
            continue
        # Clients see a name, never a path.
        name = path if path in NAMES else Path(path).name
        if name in named:
            raise InterpToolkitError(f"expected adapters of different names, got {name!r} twice; rename a folder")
        named[name] = adapter
    if features is None and (labels is not None or examples is not None):
        raise InterpToolkitError("expected --features beside --labels and --examples, got none")
    read = None if features is None else Features.read(features, labels, examples, engine.tokenizer)
    return Service(engine, named, limits or Limits(), read)


def serve(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Run a server until SIGINT or SIGTERM: it then takes nothing new and ends what runs.

    Args:
        service: the model and its adapters.
        host: address to listen on; another than this machine's own needs a token.
        port: to listen on.
        token: that clients must bring.
        allow_hosts: further names by which clients reach the server.

    Raises:
        InterpToolkitError: an address beyond this machine without a token, a short token, or an address that is taken.
    """
    require_free(host, port)
    import uvicorn

    from interp_toolkit.serve.connection import Connection

    token = checked_token(host, token)
    names = [*LOOPBACK_HOSTS, *([] if is_loopback(host) or _is_any(host) else [_bracketed(host)]), *allow_hosts]
    config = uvicorn.Config(
        create_app(service, token=token, hosts=names),
        host=host,
        port=port,
        http=Connection,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=16 * 1024,
    )
    uvicorn.Server(config).run()


def require_free(host: str, port: int) -> None:
    """Refuse an address on which a server could not listen, before anything is loaded for it.

    Args:
        host: name or address.
        port: 0 for any that is free.

    Raises:
        InterpToolkitError: another program listens there, or this machine has no such address.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise InterpToolkitError(
            f"expected a free address to listen on, got {host}, port {port}: {reason}; name another with --host or "
            f"--port"
        ) from error


def checked_token(host: str, token: str | None) -> str | None:
    """The token of a server that listens on an address.

    Args:
        host: the address.
        token: None for none.

    Raises:
        InterpToolkitError: none for an address that other machines reach, or one that can be guessed.
    """
    if token is None and not is_loopback(host):
        raise InterpToolkitError(
            f"expected a token for a server that other machines reach ({host}); set INTERP_TOOLKIT_TOKEN, such as to "
            f"{secrets.token_urlsafe(24)}"
        )
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise InterpToolkitError(
            f"expected a token of at least {_SHORTEST_TOKEN} printable ASCII characters, got {len(token)} characters"
        )
    return token


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
