"""Requests to a server: several at a time, and sent again where that may help."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from interp_toolkit.errors import InterpToolkitError, first_line

T = TypeVar("T")

# Worth sending again: too many requests at once, or a fault of the server's.
_TEMPORARY = {408, 409, 429, 500, 502, 503, 504}
# Longest pause between two attempts, in seconds, whatever the server asks for.
_LONGEST_WAIT = 60.0
# Characters of a server's message that an error repeats.
_SHOWN = 200


class NoAnswer(Exception):
    """A request stays without an answer; the text says why."""


Send = Callable[..., Any]
"""A function from a method, a path behind the server's address, and a body for JSON, to httpx's response.

It returns whatever the response's status is, raises `NoAnswer` where every attempt failed, and InterpToolkitError where
there is no server.
"""


class _TemporaryError(Exception):
    """A status of the server's that is worth asking again.

    Attributes:
        wait: seconds that the server asks to wait, at least 0.
    """

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.wait = wait


class Server:
    """A server that is asked over HTTP.

    A request that the network drops, or that the server is too busy for, is sent again after a pause that doubles each
    time, or that the server names.

    Args:
        url: the server's base address.
        api_key: sent as a bearer token; no error repeats it.
        concurrency: number of requests at once.
        retries: how often a request is sent again, at most.
        wait: first pause, in seconds.
        timeout: of one request, in seconds.
        extra: of this package, with which httpx and tenacity are installed.

    Attributes:
        shown: the address as errors may repeat it.

    Raises:
        InterpToolkitError: an address that is no web address, a key that no header can hold, or httpx or tenacity is
            missing.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        retries: int = 4,
        wait: float = 1.0,
        timeout: float = 60.0,
        extra: str = "served",
    ) -> None:
        self._httpx, self._tenacity = (_import(name, extra) for name in ("httpx", "tenacity"))
        self._address = _checked_address(self._httpx, url)
        # A user name and a password in the address are keys too.
        self.shown = str(self._httpx.URL(self._address).copy_with(userinfo=b""))
        self._api_key = api_key
        self._headers = {"Authorization": f"Bearer {_checked_key(api_key)}"} if api_key else {}
        self._concurrency, self._retries, self._wait, self._timeout = max(1, concurrency), retries, wait, timeout

    def each(self, function: Callable[..., T], *columns: Sequence[Any]) -> list[T]:
        """The function's results for each row, some at a time and in order; its first error ends all.

        Args:
            function: takes a `Send`, and a row of the columns.
            columns: of equal length.
        """
        httpx, stopped = self._httpx, threading.Event()
        limits = httpx.Limits(max_connections=self._concurrency)
        with (
            httpx.Client(timeout=self._timeout, headers=self._headers, limits=limits) as client,
            ThreadPoolExecutor(self._concurrency) as pool,
        ):

            def send(method: str, path: str, body: Any = None) -> Any:
                return self._send(client, stopped, method, path, body)

            results = [pool.submit(function, send, *row) for row in zip(*columns, strict=True)]
            try:
                return [result.result() for result in results]
            except BaseException:
                # What was refused once will be refused again: nothing more is sent, and no pause is waited for.
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def reason(self, response: Any) -> str:
        """What a response that is no success says, cut, and without the key, which some servers repeat."""
        text = response.text.strip()
        text = text.replace(self._api_key, "***") if self._api_key else text
        return f"the server said {response.status_code}: {text[:_SHOWN]}"

    def _send(self, client: Any, stopped: threading.Event, method: str, path: str, body: Any) -> Any:
        httpx, tenacity = self._httpx, self._tenacity

        def once() -> Any:
            response = client.request(method, f"{self._address}{path}", json=body)
            if response.status_code in _TEMPORARY:
                raise _TemporaryError(self.reason(response), _retry_after(response.headers.get("retry-after")))
            return response

        backoff = tenacity.wait_exponential(multiplier=self._wait, max=_LONGEST_WAIT)

        def pause(state: Any) -> float:
            asked_for = getattr(state.outcome.exception(), "wait", 0.0)
            return min(max(backoff(state), asked_for), _LONGEST_WAIT)

        sending = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _TemporaryError)),
            stop=tenacity.stop_after_attempt(self._retries + 1) | tenacity.stop_when_event_set(stopped),
            wait=pause,
            sleep=tenacity.sleep_using_event(stopped),
            reraise=True,
        )
        times = f"(asked {self._retries + 1} times)"
        try:
            return sending(once)
        except _TemporaryError as error:
            raise NoAnswer(f"{error} {times}") from error
        except httpx.ConnectError as error:
            raise InterpToolkitError(
                f"cannot reach {self.shown}: {first_line(error)}; is the server running?"
            ) from error
        except httpx.TransportError as error:
            raise NoAnswer(f"no answer from {self.shown}: {first_line(error)} {times}") from error
        except httpx.RequestError as error:  # an answer that cannot be decoded, or redirects without end
            raise NoAnswer(f"no answer from {self.shown}: {first_line(error)}") from error


def _import(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InterpToolkitError(
            f"asking a server takes {name}: pip install 'interp-toolkit[{extra}]', or pip install httpx tenacity"
        ) from None


def _checked_address(httpx: Any, url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        # What is no address may hold a key, and is not repeated.
        raise InterpToolkitError("expected the address of a server, such as http://localhost:8000/v1, got none")
    return url.rstrip("/")


def _checked_key(api_key: str) -> str:
    """The key, where a header can hold it: httpx repeats a header that it refuses in its error."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise InterpToolkitError(
            "expected an API key of printable ASCII characters, got one with others, such as a line break at its end"
        )
    return api_key


def _retry_after(header: str | None) -> float:
    """Seconds of a Retry-After header; 0 where there is none, or where it names a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
