"""Connections that are closed when their client sends no request."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# Until the head of a request has come whole.
HEAD_SECONDS = 30.0


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1, in which the head of a request has to come in time.

    uvicorn closes connections that are quiet between two requests, and those alone: without this, clients that open a
    connection and send half a request, or nothing, would hold all that the server has.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._waiting.cancel()
        self._wait_for_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._waiting.cancel()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
