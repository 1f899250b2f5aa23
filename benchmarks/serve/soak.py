"""A server's memory over time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.serve.requests import make_requests
from benchmarks.serve.server import running_server

_CLIENTS, _REQUESTS = 8, 32


def measure(data: Path, limit: int | None, minutes: float) -> list[dict[str, Any]]:
    """The server's memory after each round of the mix by eight clients.

    Args:
        data: folder of the data.
        limit: requests of a trial, which has one round.
        minutes: how long.
    """
    requests, rows, sent, lost = make_requests(data, "mixed", limit or _REQUESTS), [], 0, 0
    with running_server(data, "float32") as server:
        began = time.perf_counter()
        while not rows or (time.perf_counter() - began < 60 * minutes and not limit):
            answers = server.send(requests, _CLIENTS)
            sent, lost = sent + len(answers), lost + sum(not answer.texts for answer in answers)
            at = (time.perf_counter() - began) / 60
            rows.append(dict(minutes=at, requests=sent, lost=lost, memory_mb=server.memory_mb))
            print(json.dumps(rows[-1]), flush=True)
    return rows
