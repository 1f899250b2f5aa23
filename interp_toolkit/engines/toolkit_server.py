"""A server of `interp-toolkit serve`, from the side of a client."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.web import NoAnswer, Send, Server

OWNER = "interp_toolkit"
"""Who ``/v1/models`` says serves the model, by which this server is known from others with the same route."""
_REFUSED = range(400, 500)


class OtherServer(InterpToolkitError):
    """There is a server, and it is none of `interp-toolkit serve`."""


class ToolkitServer:
    """A server that ``interp-toolkit serve`` runs: the model and the adapters are there, `self_explain` is here.

    Args:
        url: such as ``"http://127.0.0.1:8000"``.
        token: the server's, by default the environment's ``INTERP_TOOLKIT_TOKEN``.
        in_flight: most requests at a time.
        timeout: of one request, in seconds.

    Raises:
        InterpToolkitError: no server there, or one of another kind.

    Example:
        >>> server = ToolkitServer("http://127.0.0.1:8000")
        >>> self_explain("Tell me about baseball.", model=server).to_df()
    """

    def __init__(self, url: str, token: str | None = None, *, in_flight: int = 4, timeout: float = 600.0) -> None:
        token = token or os.environ.get("INTERP_TOOLKIT_TOKEN")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._server = Server(
            self.url, api_key=token, concurrency=in_flight, retries=5, wait=0.25, timeout=timeout, extra="serve"
        )
        models = self._each([("GET", "/v1/models", None)])[0].get("data") or [{}]
        if models[0].get("owned_by") != OWNER:
            raise OtherServer(
                f"expected a server of interp-toolkit serve at {self._server.shown}, got one of "
                f"{models[0].get('owned_by', 'another kind')!r}"
            )
        self.model_id = str(models[0]["id"])

    def explain(self, bodies: Sequence[Mapping[str, Any]], progress: bool = False) -> list[list[dict[str, Any]]]:
        """Lines of ``/v1/explain`` for each body, from its ``begin`` to its ``end``.

        Args:
            bodies: as the server's OpenAPI document has them.
            progress: whether to show a bar, in requests.

        Raises:
            InterpToolkitError: what the server refuses, in its own words, or a response that ends too soon.
        """
        return self._streams("/v1/explain", bodies, progress)

    def describe(self, bodies: Sequence[Mapping[str, Any]], progress: bool = False) -> list[list[dict[str, Any]]]:
        """Lines of ``/v1/describe``; the rest as in `explain`."""
        return self._streams("/v1/describe", bodies, progress)

    def _streams(self, path: str, bodies: Sequence[Mapping[str, Any]], progress: bool) -> list[list[dict[str, Any]]]:
        bar = tqdm(total=len(bodies), desc="describing", unit="request", disable=not progress)
        streams = [_lines(text) for text in self._each([("POST", path, body) for body in bodies], bar.update)]
        bar.close()
        return streams

    def _each(self, requests: Sequence[tuple[str, str, Any]], done: Any = lambda: None) -> list[Any]:
        def ask(send: Send, method: str, path: str, body: Any) -> Any:
            response = send(method, path, body)
            if response.status_code in _REFUSED:
                if (detail := _detail(response)) is None:
                    raise OtherServer(self._server.reason(response))
                raise InterpToolkitError(detail)
            done()
            return response.json() if method == "GET" else response.text

        try:
            return self._server.each(ask, *zip(*requests))
        except NoAnswer as error:
            raise InterpToolkitError(f"the server at {self._server.shown} stopped answering: {error}") from error
        except json.JSONDecodeError as error:
            raise InterpToolkitError(f"expected a server of interp-toolkit serve at {self._server.shown}") from error


def _lines(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines() if line]
    if lines and lines[-1]["type"] == "error":
        raise InterpToolkitError(lines[-1]["problem"]["detail"])
    if not lines or lines[-1]["type"] != "end":
        raise InterpToolkitError("the server ended before all was described; look whether it runs, and ask again")
    return lines


def _detail(response: Any) -> str | None:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return None
