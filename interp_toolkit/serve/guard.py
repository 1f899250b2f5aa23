"""What every request passes first: who may ask, from where, and how much."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interp_toolkit.serve.limits import Limits
from interp_toolkit.serve.problems import problem_response

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# The page is of this server's files alone: what a model writes is hostile text, and can load nothing.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# What needs no token: the page itself, which asks for it, and whether the server lives.
_OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/assets/")


class Guard:
    """ASGI middleware that refuses what may not be asked, before anything reads it.

    Against DNS rebinding, a page elsewhere whose name is made to mean this machine, the Host header must be one of this
    server's names; against other pages of the same browser, an Origin must be this server, and a body must be JSON,
    which no form sends.

    Args:
        app: the application.
        hosts: names, without port, by which clients reach this server.
        token: that requests must bring as a bearer token; None for a server that only this machine reaches.
        limits: of a body.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None, limits: Limits) -> None:
        self._app, self._token, self._limits = app, token, limits
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message)
            # Waits as long as the client does not read what came before.
            async with asyncio.timeout(self._limits.client_seconds):
                await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _received(body, receive), send_guarded)
        except HTTPException as error:
            if not started:
                await problem_response(error)(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or _name(host) not in self._hosts:
            raise HTTPException(
                421, f"expected a Host of {', '.join(sorted(self._hosts))}, got {host[:80]!r}; start with --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise HTTPException(403, f"expected requests of this server's own page, got one of {origin[:80]!r}")
        if (
            scope["method"] == "POST"
            and headers.get("content-type", "").partition(";")[0].strip() != "application/json"
        ):
            raise HTTPException(415, "expected a body of Content-Type application/json")
        path = scope["path"]
        is_open = path in _OPEN or path.startswith(_OPEN[-1])
        if self._token is not None and not is_open and not self._has_token(headers):
            raise HTTPException(
                401, "expected the server's token as 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
            )

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        expected = (self._token or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("utf-8", "replace"), expected)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, read before the application begins, so that none comes half."""
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            return b""
        limit = self._limits.body_bytes
        too_large = HTTPException(413, f"expected a body of at most {limit:,} bytes; send it in several requests")
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > limit:
            raise too_large
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._limits.client_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPException(400, "the client left before its body had come")
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            raise HTTPException(
                408, f"expected the whole body within {self._limits.client_seconds:g} seconds"
            ) from None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    return host in ("127.0.0.1", "localhost", "::1")


def _received(body: bytes, receive: Receive) -> Receive:
    """Hand on a body that was read, and then what else comes: that the client leaves."""
    handed_on = False

    async def receive_again() -> MutableMapping[str, Any]:
        nonlocal handed_on
        if handed_on:
            return await receive()
        handed_on = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _add_headers(message: Message) -> None:
    names = {name.lower() for name, _ in message["headers"]}
    new = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
    message["headers"] = [*message["headers"], *(pair for pair in new if pair[0] not in names)]
