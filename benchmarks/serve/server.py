"""A server in a process of its own, and clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serve.requests import Request, make_requests

TIMEOUT = 300.0
_START = 120.0


@dataclass(frozen=True)
class Answer:
    """What came back for a request.

    Attributes:
        lines: of the response.
        seconds: until each of them came, of a stream that began when the request was sent.
        total: seconds until the response ended.
        status: of HTTP.
    """

    lines: list[dict[str, Any]]
    seconds: list[float]
    total: float
    status: int

    @property
    def texts(self) -> list[str]:
        """The descriptions; [] of a response that is not whole."""
        if self.status != 200 or not self.lines or self.lines[-1].get("type") != "end":
            return []
        return [line["descriptions"][0]["description"] for line in self.lines[1:-1]]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: its address.
        process: its process id.
    """

    url: str
    process: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    @property
    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1000

    def send(self, requests: Sequence[Request], clients: int) -> list[Answer]:
        """Send requests by several clients, each of which sends its next when it has its answer.

        Args:
            requests: in the order in which they are sent.
            clients: how many.

        Returns:
            an answer for each request.
        """
        return asyncio.run(_send(self.url, requests, clients))


@contextmanager
def running_server(data: Path, dtype: str | None) -> Iterator[Server]:
    """A server of the embedded model, which has answered once.

    Args:
        data: folder of the data.
        dtype: that the model is loaded in; None for the default.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "interp_toolkit", "serve", "--port", str(port)]
    environment = os.environ | (dict(INTERP_TOOLKIT_DTYPE=dtype) if dtype else {})
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    server = Server(f"http://127.0.0.1:{port}", process.pid)
    try:
        began = time.perf_counter()
        while not _answers(server.url):
            if process.poll() is not None or time.perf_counter() - began > _START:
                raise RuntimeError(f"expected a server within {_START:.0f} s, got none from {' '.join(command)}")
            time.sleep(0.2)
        server.send(make_requests(data, "one token", 2), 1)  # what is computed once
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


async def _send(url: str, requests: Sequence[Request], clients: int) -> list[Answer]:
    waiting, answers = list(enumerate(requests))[::-1], dict[int, Answer]()

    async def client(http: httpx.AsyncClient) -> None:
        while waiting:
            number, request = waiting.pop()
            began, lines, seconds = time.perf_counter(), [], []
            async with http.stream("POST", f"{url}/v1/explain", json=request.body) as response:
                async for line in response.aiter_lines():
                    lines.append(json.loads(line))
                    seconds.append(time.perf_counter() - began)
            answers[number] = Answer(lines, seconds, time.perf_counter() - began, response.status_code)

    async with httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return [answers[number] for number in sorted(answers)]
