"""What a server of the embedded model gives many clients at once: rates, waits, answers, memory; and what it survives.

    python -m benchmarks.serve [load] [faults] [soak] [--minutes 20] [--output FILE]

`load` sends the same requests by 1, 8 and 32 clients, of two kinds: one token of a short text each, and a mix of single
tokens, whole sentences and whole paragraphs. Every answer is compared with that of `self_explain` in this process, in
float32. `faults` sends 1,000 random bodies, clients that leave in the middle, bodies that come half, and readers that
do not read. `soak` sends the mix for some minutes and reads the server's memory. Together about 35 minutes.

`--output benchmarks/results/serve.json` writes the committed file and keeps what it holds of the others; `load` then
refuses a machine that does other things. `--limit N` is a trial on N requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
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
import numpy as np

from benchmarks.arguments import make_parser, run
from benchmarks.data import DATA, PASSAGES
from benchmarks.speed.machine import machine_kind, noise, require_quiet, use_all_processors
from interp_toolkit import load_model, self_explain
from interp_toolkit.contract import library_versions
from interp_toolkit.results import make_result, read_result, write_result
from interp_toolkit.sae.passages import read_passages

SEED = 0
CLIENTS = (1, 8, 32)
_TIMEOUT = 300.0
_FUZZED = 1000


@dataclass(frozen=True)
class Request:
    """A text, and which of its tokens are described.

    Attributes:
        text: of a passage.
        positions: ``"last"`` or ``"content"``.
    """

    text: str
    positions: str

    @property
    def body(self) -> dict[str, Any]:
        """The body of ``/v1/explain``."""
        return dict(texts=[self.text], positions=self.positions, chat=True)


def make_requests(kind: str, count: int) -> list[Request]:
    """Requests on passages that no adapter was trained on, in a fixed order.

    Args:
        kind: ``"one token"``, or ``"mixed"``: 70% one token, 20% a beginning of 12 words, 10% one of 60.
        count: of requests.
    """
    texts = _passages()
    drawn = random.Random(SEED)
    requests = []
    for i in range(count):
        words = texts[i % len(texts)].split()
        share = drawn.random() if kind == "mixed" else 0.0
        length, positions = (8, "last") if share < 0.7 else (12, "content") if share < 0.9 else (60, "content")
        requests.append(Request(" ".join(words[:length]), positions))
    return requests


def _passages() -> list[str]:
    return read_passages(DATA / PASSAGES, "eval")["text"].tolist()


@contextmanager
def server(dtype: str) -> Iterator[tuple[str, int]]:
    """The address and the process id of a server of the embedded model.

    Args:
        dtype: that the model is loaded in.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "interp_toolkit", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | dict(INTERP_TOOLKIT_DTYPE=dtype), stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        asyncio.run(_send_all(url, make_requests("one token", 2), 1))  # what is computed once
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def _send_all(url: str, requests: Sequence[Request], clients: int) -> list[dict[str, Any]]:
    """Send requests by several clients, each of which sends its next when it has its answer."""
    waiting, rows = list(enumerate(requests))[::-1], []

    async def client(http: httpx.AsyncClient) -> None:
        while waiting:
            number, request = waiting.pop()
            began, lines = time.perf_counter(), []
            async with http.stream("POST", f"{url}/v1/explain", json=request.body) as response:
                async for line in response.aiter_lines():
                    lines.append(json.loads(line))
            seconds = time.perf_counter() - began
            rows.append(dict(number=number, status=response.status_code, lines=lines, seconds=seconds))

    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return sorted(rows, key=lambda row: row["number"])


def _texts(row: dict[str, Any]) -> list[str]:
    """The descriptions of a response, [] for one that is not whole."""
    lines = row["lines"]
    if row["status"] != 200 or not lines or lines[-1].get("type") != "end":
        return []
    return [line["descriptions"][0]["description"] for line in lines[1:-1]]


def load(limit: int | None, minutes: float) -> list[dict[str, Any]]:
    """Rates and waits by number of clients, and how many answers are lost or differ from `self_explain`'s.

    Args:
        limit: requests of a trial.
        minutes: of the soak; not used here.
    """
    model, rows = load_model("smollm2-135m", dtype="float32"), []
    for kind, count in (("one token", 64), ("mixed", 32)):
        requests = make_requests(kind, limit or count)
        expected = [
            [row.description for row in self_explain(x.text, model=model, positions=x.positions, chat=True)]  # type: ignore[arg-type]
            for x in requests
        ]
        with server("float32") as (url, _):
            for clients in CLIENTS:
                began = time.perf_counter()
                answers = asyncio.run(_send_all(url, requests, clients))
                seconds = time.perf_counter() - began
                texts = [_texts(answer) for answer in answers]
                waits = np.array([answer["seconds"] for answer in answers])
                p50, p95, p99 = np.percentile(waits, [50, 95, 99]).tolist()
                row = dict(kind=kind, clients=clients, n=len(requests), per_second=len(requests) / seconds)
                row |= dict(vectors_per_second=sum(map(len, expected)) / seconds, p50=p50, p95=p95, p99=p99)
                row |= dict(lost=sum(not text for text in texts))
                row |= dict(other=sum(one != other for one, other in zip(texts, expected) if one))
                rows.append(row)
                print(json.dumps(row), flush=True)
    for row in rows:
        alone = next(x for x in rows if x["kind"] == row["kind"] and x["clients"] == 1)
        row["against_one_client"] = row["per_second"] / alone["per_second"]
    return rows


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


def faults(limit: int | None, minutes: float) -> list[dict[str, Any]]:
    """What became of bad requests, and whether the server answered a good one after each kind.

    Args:
        limit: bodies of a trial.
        minutes: of the soak; not used here.
    """
    drawn, rows = random.Random(SEED), []
    good = make_requests("one token", 1)
    with server("float32") as (url, process):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))

        def after(kind: str, n: int, **facts: Any) -> None:
            (answer,) = asyncio.run(_send_all(url, good, 1))
            rows.append(dict(kind=kind, n=n, answers_after=bool(_texts(answer)), **facts))
            print(json.dumps(rows[-1]), flush=True)

        statuses: dict[int, int] = {}
        with httpx.Client(timeout=_TIMEOUT) as http:
            for _ in range(limit or _FUZZED):
                path = drawn.choice(["explain", "describe", "score", "lens", "answer", "steer"])
                headers = {"Content-Type": drawn.choice(["application/json"] * 9 + ["text/plain"])}
                response = http.post(f"{url}/v1/{path}", content=_random_body(drawn), headers=headers)
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        after("random bodies", limit or _FUZZED, statuses={str(k): v for k, v in sorted(statuses.items())})

        body = json.dumps(Request(_passages()[0], "content").body).encode()
        lines = (
            "POST /v1/explain HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join([*lines, "", ""]).encode()
        for i in range(limit or 50):
            with socket.create_connection(address) as client:
                client.sendall(head + body)
                if i % 2:
                    client.recv(100)
        after("clients that leave", limit or 50)
        halves = [socket.create_connection(address) for _ in range(limit or 50)]
        for client in halves:
            client.sendall(head + body[: len(body) // 2])
        after("bodies that come half, still open", limit or 50)
        for client in halves:
            client.close()
        slow = [socket.create_connection(address) for _ in range(limit or 20)]
        for client in slow:
            client.sendall(head + body)
        after("readers that do not read, still open", limit or 20)
        for client in slow:
            client.close()
        after("all of them gone", 1, memory_mb=_memory(process))
    return rows


def soak(limit: int | None, minutes: float) -> list[dict[str, Any]]:
    """The server's memory over time under the mix of eight clients.

    Args:
        limit: requests of a trial.
        minutes: how long.
    """
    requests, rows, sent, lost = make_requests("mixed", limit or 32), [], 0, 0
    with server("float32") as (url, process):
        began = time.perf_counter()
        while not rows or (time.perf_counter() - began < 60 * minutes and not limit):
            answers = asyncio.run(_send_all(url, requests, 8))
            sent, lost = sent + len(answers), lost + sum(not _texts(answer) for answer in answers)
            at = (time.perf_counter() - began) / 60
            rows.append(dict(minutes=at, requests=sent, lost=lost, memory_mb=_memory(process)))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _memory(process: int) -> float:
    """Resident memory of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


PARTS = {"load": load, "faults": faults, "soak": soak}


def main() -> None:
    parser = make_parser("benchmarks.serve", __doc__, "a trial on N requests")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak (default 20)")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown parts {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    threads = use_all_processors()
    kind, trial = machine_kind(threads), options.limit is not None
    tables: dict[str, Any] = {}
    if options.output and options.output.exists():
        tables = read_result(options.output)["tables"]
    settings = dict(machine=kind, threads=threads, seed=SEED, dtype="float32", model="smollm2-135m")
    for name in options.parts or PARTS:
        if options.output and not trial and name == "load":
            require_quiet(noise())
        tables[name] = PARTS[name](options.limit, options.minutes)
        if options.output and not trial:  # after each part, since all of them take long
            write_result(options.output, make_result(settings, library_versions(), tables))


if __name__ == "__main__":
    run(main)
