"""What a server survives: damaged bodies, clients that leave, bodies that come half, readers that do not read."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serve.requests import SEED, Request, make_requests, read_texts
from benchmarks.serve.server import TIMEOUT, running_server

_BODIES, _CLIENTS, _READERS = 1000, 50, 20


def measure(data: Path, limit: int | None) -> list[dict[str, Any]]:
    """What became of bad requests, and whether the server answered a good one after each kind.

    Args:
        data: folder of the data.
        limit: bodies and clients of a trial.
    """
    rows: list[dict[str, Any]] = []
    good = make_requests(data, "one token", 1)
    body = json.dumps(Request(read_texts(data)[0], "content").body).encode()
    with running_server(data, "float32") as server:

        def after(kind: str, n: int, **facts: Any) -> None:
            (answer,) = server.send(good, 1)
            rows.append(dict(kind=kind, n=n, answers_after=bool(answer.texts), **facts))
            print(json.dumps(rows[-1]), flush=True)

        statuses = _send_random_bodies(server.url, limit or _BODIES)
        after("random bodies", limit or _BODIES, statuses=statuses)
        lines = (
            "POST /v1/explain HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join([*lines, "", ""]).encode()
        for i in range(limit or _CLIENTS):
            with socket.create_connection(server.address) as client:
                client.sendall(head + body)
                if i % 2:
                    client.recv(100)
        after("clients that leave", limit or _CLIENTS)
        for kind, sent, count in (
            ("bodies that come half, still open", head + body[: len(body) // 2], limit or _CLIENTS),
            ("heads that come half, still open", head[:40], limit or _CLIENTS),
            ("readers that do not read, still open", head + body, limit or _READERS),
        ):
            clients = [socket.create_connection(server.address) for _ in range(count)]
            for client in clients:
                client.sendall(sent)
            after(kind, count)
            for client in clients:
                client.close()
        after("all of them gone", 1, memory_mb=server.memory_mb)
    return rows


def _send_random_bodies(url: str, count: int) -> dict[str, int]:
    """How many responses had which status."""
    drawn, statuses = random.Random(SEED), Counter[str]()
    with httpx.Client(timeout=TIMEOUT) as http:
        for _ in range(count):
            path = drawn.choice(["explain", "describe", "score", "lens", "answer", "steer"])
            headers = {"Content-Type": drawn.choice(["application/json"] * 9 + ["text/plain"])}
            response = http.post(f"{url}/v1/{path}", content=_random_body(drawn), headers=headers)
            statuses[str(response.status_code)] += 1
    return dict(sorted(statuses.items()))


def _random_body(drawn: random.Random) -> bytes:
    """A body that is damaged in one way or another."""
    values: list[Any] = [None, True, -1, 2**70, 1e308, "", "\ud800", "a" * 3000, [], {}, [[]], [[1.0, "x"]], {"a": {}}]
    names = ["texts", "positions", "sites", "chat", "adapter", "sampling", "vectors", "safetensors", "index", "x"]
    chosen = drawn.sample(names, drawn.randint(0, 4))
    body = json.dumps({name: drawn.choice(values) for name in chosen}).encode()
    if drawn.random() < 0.3:
        at = drawn.randrange(len(body))
        body = body[:at] + bytes(drawn.randrange(256) for _ in range(drawn.randint(0, 8))) + body[at + 1 :]
    return body
