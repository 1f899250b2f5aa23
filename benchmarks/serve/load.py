"""How many requests a server answers by number of clients, how long they wait, and how soon a text begins to show."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve.requests import Request, make_requests, read_texts
from benchmarks.serve.server import running_server
from interp_toolkit import load_model, self_explain
from interp_toolkit.torch_defaults import plain_defaults

CLIENTS = (1, 8, 32)
# Of the text whose first descriptions are waited for.
_TOKENS = 30


def measure(data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Rates and waits by number of clients, and how many answers are lost or differ from `self_explain`'s.

    Args:
        data: folder of the data.
        limit: requests of a trial.
    """
    model, rows = load_model("smollm2-135m", dtype="float32"), []
    for kind, count in (("one token", 64), ("mixed", 32)):
        requests = make_requests(data, kind, limit or count)
        expected = [
            [row.description for row in self_explain(x.text, model=model, positions=x.positions, chat=True)]  # type: ignore[arg-type]
            for x in requests
        ]
        with running_server(data, "float32") as server:
            for clients in CLIENTS:
                began = time.perf_counter()
                answers = server.send(requests, clients)
                seconds = time.perf_counter() - began
                p50, p95, p99 = np.percentile([answer.total for answer in answers], [50, 95, 99]).tolist()
                row = dict(kind=kind, clients=clients, n=len(requests), per_second=len(requests) / seconds)
                row |= dict(vectors_per_second=sum(map(len, expected)) / seconds, p50=p50, p95=p95, p99=p99)
                row |= dict(lost=sum(not answer.texts for answer in answers))
                row |= dict(other=sum(x.texts != texts for x, texts in zip(answers, expected) if x.texts))
                rows.append(row)
                print(json.dumps(row), flush=True)
    for row in rows:
        alone = next(x for x in rows if x["kind"] == row["kind"] and x["clients"] == 1)
        row["against_one_client"] = row["per_second"] / alone["per_second"]
    return rows


def measure_first(data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Seconds until the first, half and all of the descriptions of texts of 30 tokens, in the default dtype.

    Args:
        data: folder of the data.
        limit: texts of a trial.
    """
    tokenizer = load_model("smollm2-135m").tokenizer
    assert tokenizer is not None
    with plain_defaults():
        texts = [tokenizer.decode(tokenizer.encode(text)[:_TOKENS]) for text in read_texts(data)[: limit or 5]]
    with running_server(data, None) as server:
        answers = [server.send([Request(text, "content")], 1)[0] for text in texts]
    waits = np.array([[x.seconds[1], x.seconds[len(x.seconds) // 2], x.total] for x in answers])
    facts = dict(n=len(texts), vectors=len(answers[0].texts))
    rows = [
        dict(until=until, median=float(np.median(column)), longest=float(column.max()), **facts)
        for until, column in zip(("first", "half", "all"), waits.T)
    ]
    print(json.dumps(rows), flush=True)
    return rows
