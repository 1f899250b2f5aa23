"""The server: its API, its queue, its guard, and the client that is `self_explain` itself."""

import asyncio
import base64
import contextlib
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pandas as pd
import pytest
import torch
from local_server import PATIENCE, running
from safetensors.torch import save

from interp_toolkit import InterpToolkitError, Sampling, SiteStack, self_explain
from interp_toolkit.activations import read_activations
from interp_toolkit.cli import main
from interp_toolkit.engines import LocalEngine, ToolkitServer, as_engine, as_toolkit_server
from interp_toolkit.engines.local import local_engine
from interp_toolkit.explain import prepare
from interp_toolkit.sae import TopExamples
from interp_toolkit.serve import Limits, Service, connection, reading
from interp_toolkit.serve.bodies import ExplainBody
from interp_toolkit.serve.features import Features
from interp_toolkit.serve.guard import Guard
from interp_toolkit.serve.run import checked_token, load_service
from interp_toolkit.serve.scheduler import Closing, Job, Overloaded, Scheduler

TEXTS = ["the cat sat on the mat", "a dog ran", "the bird"]
LONG = " ".join(TEXTS * 5)
EXPLAIN = {"texts": TEXTS[:1], "positions": "all"}


@pytest.fixture
def service(tiny, adapter):
    return Service(local_engine(tiny()), {"mine": adapter}, Limits(batch_cells=4))


@pytest.fixture
def url(service):
    with running(service) as address:
        yield address


def _post(url, path, body, **headers):
    return httpx.post(url + path, json=body, headers=headers, timeout=PATIENCE)


def _lines(response):
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def _same(rows, others):
    """Tables that agree in all but the last digits of float32."""
    assert len(rows) == len(others)
    for row, other in zip(rows, others):
        for name, value in vars(other).items():
            if isinstance(value, float):
                assert getattr(row, name) == pytest.approx(value, abs=1e-4, nan_ok=True), name
            else:
                assert getattr(row, name) == value, name


# What is described, by the API


def test_a_text_is_described_token_by_token_as_it_is_here(url, service, adapter, tiny):
    lines = _lines(_post(url, "/v1/explain", EXPLAIN | {"include_null": True}))
    here = self_explain(TEXTS[0], model=tiny(), adapter=adapter, positions="all", include_null=True)
    begin, *cells, end = lines
    assert (begin["type"], begin["adapter"], begin["cells"]) == ("begin", "mine", len(here) - 1)
    assert [token for token in begin["texts"][0]["tokens"]] == [row.token for row in here][:-1]
    assert [(cell["position"], cell["descriptions"][0]["description"]) for cell in cells] == [
        (row.position, row.description) for row in here
    ][:-1]
    assert begin["null"][0]["description"] == here[-1].description
    assert begin["null"][0]["evidence"] == 0
    assert (end["type"], end["cells"]) == ("end", len(cells))


def test_the_sites_of_a_token_stand_together(url):
    body = {"texts": TEXTS[:2], "positions": [0, -1], "sites": [0, 1], "on_mismatch": "warn"}
    with pytest.warns(UserWarning, match="blocks.0"):
        lines = _lines(_post(url, "/v1/explain", body))
    order = [(line["text"], line["position"], line["site"][7]) for line in lines[1:-1]]
    assert order == sorted(order)
    assert [text for text, _, _ in order] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("form", ["vectors", "safetensors"])
def test_vectors_are_described_as_they_are_here(url, adapter, tiny, random_vectors, form):
    vectors = random_vectors(5, adapter.config.width)
    packed = base64.b64encode(save({"vectors": vectors})).decode() if form == "safetensors" else vectors.tolist()
    lines = _lines(_post(url, "/v1/describe", {form: packed, "sampling": {"n": 2, "seed": 3}}))
    here = self_explain(vectors, model=tiny(), adapter=adapter, sampling=Sampling(n=2, seed=3))
    there = [row for line in lines[1:-1] for row in line["descriptions"]]
    assert [row["description"] for row in there] == [row.description for row in here]
    assert [row["evidence"] for row in there] == pytest.approx([row.evidence for row in here], abs=1e-4)


def test_texts_are_scored_by_vectors(url, adapter, tiny, random_vectors):
    vectors = random_vectors(2, adapter.config.width)
    texts = ["a cat", "a dog and a bird", "mats"]
    scores = _post(url, "/v1/score", {"vectors": vectors.tolist(), "texts": texts, "index": [0, 1, 1]}).json()["scores"]
    prompt = adapter.contract.require_soft_prompt()
    engine = local_engine(tiny())
    ids = prompt.targets(engine.tokenizer, texts)
    with torch.no_grad():
        log_probs = engine.score(prompt, adapter(vectors), ids, [0, 1, 1]).mean()
        nothing = engine.score(prompt, adapter.null()[None], ids, [0, 0, 0]).mean()
    assert [row["log_prob"] for row in scores] == pytest.approx(log_probs.tolist(), abs=1e-5)
    assert [row["evidence"] for row in scores] == pytest.approx((log_probs - nothing).tolist(), abs=1e-5)


def test_it_says_what_it_serves(url, adapter):
    (model,) = httpx.get(url + "/v1/models").json()["data"]
    assert model["owned_by"] == "interp_toolkit"
    assert model["d_model"] == adapter.config.d_model
    (one,) = httpx.get(url + "/v1/adapters").json()["data"]
    assert (one["id"], one["digest"]) == ("mine", adapter.digest)
    assert httpx.get(url + "/healthz").json() == {"status": "ok"}
    _post(url, "/v1/explain", EXPLAIN)
    metrics = httpx.get(url + "/metrics").text
    assert 'interp_toolkit_requests_total{route="/v1/explain",status="200"} 1.0' in metrics
    assert "interp_toolkit_waiting_requests 0.0" in metrics
    paths = httpx.get(url + "/openapi.json").json()["paths"]
    assert {"/v1/explain", "/v1/describe", "/v1/score", "/v1/models", "/v1/adapters", "/healthz", "/metrics"} <= set(
        paths
    )
    assert "The API" in httpx.get(url + "/docs").text


def test_steering_gives_the_plain_the_steered_and_a_random_answer(url):
    body = {"text": TEXTS[0], "site": 2, "prompt": "a dog", "strength": 5.0, "max_new_tokens": 8}
    answers = _post(url, "/v1/steer", body).json()
    nothing = _post(url, "/v1/steer", body | {"strength": 0.0}).json()
    assert nothing["plain"] == nothing["steered"] == nothing["random"] == answers["plain"]
    assert set(answers) == {"plain", "steered", "random", "site", "strength"}
    assert answers["plain"] == _post(url, "/v1/answer", {"text": "a dog", "max_new_tokens": 8}).json()["answer"]


# What is refused, and in which words


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/explain", {"texts": [""]}, 400, "prompt 0 is empty; expected some text"),
        ("/v1/explain", {"texts": ["a"], "adapter": "no"}, 404, "expected one of the adapters mine, got 'no'"),
        ("/v1/explain", {"texts": ["a"], "adapter": "/etc/passwd"}, 404, "expected one of the adapters mine"),
        ("/v1/explain", {"texts": ["a"], "sites": [99]}, 400, "99"),
        ("/v1/explain", {"texts": ["a"], "sites": [1]}, 400, "on_mismatch='warn'"),
        ("/v1/explain", {"texts": ["a"], "positions": [500]}, 400, "position 500 does not exist in prompt 0"),
        ("/v1/explain", {"texts": ["a"], "sampling": {"n": 99}}, 422, "expected another value at sampling.n"),
        ("/v1/explain", {"texts": ["a"], "sampling": {"n": 2, "temperature": 0}}, 400, "at temperature 0 all 2"),
        ("/v1/explain", {"texts": ["a"], "model": "other"}, 422, "expected another value at model: Extra"),
        ("/v1/explain", {"texts": ["a"], "chat": "yes"}, 422, "expected another value at chat"),
        ("/v1/explain", {"texts": []}, 422, "expected another value at texts"),
        ("/v1/explain", {"texts": ["a " * 5000]}, 400, "expected texts of at most 2,048 tokens together, got"),
        ("/v1/describe", {"vectors": [[1.0]]}, 400, "expected vectors of shape"),
        ("/v1/describe", {"vectors": [[1.0], [1.0, 2.0]]}, 400, "expected vectors of one width, got widths [1, 2]"),
        ("/v1/describe", {"vectors": []}, 400, "expected vectors of one width"),
        ("/v1/describe", {}, 400, "expected either 'vectors' or 'safetensors', got both or neither"),
        ("/v1/describe", {"safetensors": "!"}, 400, "expected base64 in 'safetensors'"),
        ("/v1/describe", {"safetensors": "AAAA"}, 400, "got a damaged one"),
        ("/v1/describe", {"vectors": [[0.0] * 32]}, 400, "vector 0 is zero"),
        ("/v1/score", {"vectors": [[1.0] * 32], "texts": ["a", "b"]}, 400, "expected a soft token for each of 2 texts"),
        ("/v1/lens", {"text": "a", "site": "nowhere"}, 400, "nowhere"),
        ("/v1/steer", {"text": "a", "site": 1, "prompt": "b", "description": "c"}, 400, "an adapter with a way back"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused_in_a_sentence(url, path, body, status, text):
    response = _post(url, path, body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert text in problem["detail"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(url, value):
    content = f'{{"vectors": [[{value}]]}}'
    response = httpx.post(url + "/v1/describe", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert "expected" in response.json()["detail"]


def test_no_trace_leaves_when_the_server_fails(service, monkeypatch, caplog):
    monkeypatch.setattr(service, "answer", lambda body: 1 / 0)
    with running(service) as url:
        response = _post(url, "/v1/answer", {"text": "a"})
        assert response.status_code == 500
        assert "ZeroDivision" not in response.text
        assert "Traceback" not in response.text
        assert _post(url, "/v1/explain", EXPLAIN).status_code == 200  # and it goes on
    assert "ZeroDivisionError" in caplog.text


# Who may ask


def test_only_this_machines_names_and_pages_are_answered(url):
    host = url.removeprefix("http://")
    for name in (
        "evil.example",
        "127.0.0.1.evil.example",
        f"evil.example:{host.partition(':')[2]}",
        "",
        "127.0.0.1@evil",
    ):
        response = httpx.get(url + "/v1/models", headers={"Host": name})
        assert response.status_code in (400, 421), name
    for origin in ("http://evil.example", "null", f"https://{host}.evil.example"):
        assert _post(url, "/v1/explain", EXPLAIN, Origin=origin).status_code == 403, origin
    assert _post(url, "/v1/explain", EXPLAIN, Origin=url).status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = httpx.post(url + "/v1/explain", content=json.dumps(EXPLAIN), headers={"Content-Type": kind})
        assert response.status_code == 415, kind
    policy = httpx.get(url + "/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_token_is_asked_for_by_all_but_the_page(service):
    with running(service, token="s" * 20) as url:
        assert httpx.get(url + "/").status_code == httpx.get(url + "/healthz").status_code == 200
        for path in ("/v1/models", "/v1/adapters", "/metrics"):
            refused = httpx.get(url + path)
            assert refused.status_code == 401
            assert "Authorization: Bearer" in refused.json()["detail"]
        for value in ("Bearer", "Bearer " + "s" * 19, "Basic " + "s" * 20, "Bearer é"):
            assert httpx.get(url + "/v1/models", headers=[(b"Authorization", value.encode())]).status_code == 401
        assert _post(url, "/v1/explain", EXPLAIN, Authorization="Bearer " + "s" * 20).status_code == 200
        with pytest.raises(InterpToolkitError, match="expected the server's token"):
            ToolkitServer(url)
        assert ToolkitServer(url, "s" * 20).model_id


def test_an_address_that_others_reach_needs_a_token_that_cannot_be_guessed():
    assert checked_token("127.0.0.1", None) is None
    with pytest.raises(
        InterpToolkitError, match=r"expected a token for a server that other machines reach \(0.0.0.0\)"
    ):
        checked_token("0.0.0.0", None)
    with pytest.raises(InterpToolkitError, match="expected a token of at least 16 printable ASCII characters, got 5"):
        checked_token("127.0.0.1", "short")


def test_a_body_that_is_too_large_or_does_not_come_is_refused(service):
    service.limits = replace(service.limits, body_bytes=200, client_seconds=0.3)
    with running(service) as url:
        response = _post(url, "/v1/explain", {"texts": ["a" * 300]})
        assert response.status_code == 413
        assert "at most 200 bytes" in response.json()["detail"]
        pieces = (b"x" * 50 for _ in range(100))
        assert (
            httpx.post(url + "/v1/explain", content=pieces, headers={"Content-Type": "application/json"}).status_code
            == 413
        )
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as half:
            half.sendall(b"POST /v1/explain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            half.sendall(b"Content-Length: 100\r\n\r\n{")
            assert b"408" in half.recv(1000).splitlines()[0]
        assert httpx.get(url + "/healthz").status_code == 200


def test_a_connection_without_a_whole_request_is_closed(url, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    host, _, port = url.removeprefix("http://").partition(":")
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for sent in (b"", head, head + b"\r\n" + head):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(sent)
            answer = b""
            while piece := client.recv(1000):
                answer += piece
        assert answer.count(b"200 OK") == sent.count(b"\r\n\r\n")
    assert httpx.get(url + "/healthz").status_code == 200


def test_an_answer_may_take_longer_than_a_request(service, url, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(service, "answer", lambda body: time.sleep(1.5) or "late")
    assert _post(url, "/v1/answer", {"text": "a"}).json() == {"answer": "late"}


def test_a_client_that_reads_nothing_is_given_up():
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def never_taken(message):
        await asyncio.Event().wait()

    async def receive():
        return {"type": "http.disconnect"}

    guard = Guard(answer, hosts=["a"], token=None, limits=Limits(client_seconds=0.05))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")]}
    with pytest.raises(TimeoutError):
        asyncio.run(guard(scope, receive, never_taken))


def test_only_the_pages_own_files_are_sent(url):
    assert httpx.get(url + "/assets/explorer.js").headers["content-type"].startswith("text/javascript")
    for name in ("../page.py", "..%2Fpage.py", "%2e%2e/page.py", "page.py", "", "/etc/passwd"):
        response = httpx.get(f"{url}/assets/{name}")
        assert response.status_code == 404, name
        assert response.headers["content-type"] == "application/problem+json"


# Many at once


def _prepared(service, adapter, texts):
    return prepare(service.engine, texts, adapter=adapter, positions="all")


class _Client:
    """What a job's client gets, in its order."""

    def __init__(self):
        self.numbers, self.errors, self.done = [], [], threading.Event()

    def job(self, prepared, **settings):
        def end(error):
            self.errors.append(error)
            self.done.set()

        return Job(prepared, Sampling(**settings), lambda number, rows: self.numbers.append(number), end)


@contextmanager
def _held(scheduler):
    """The scheduler waits in a call for the length of the block, so that what comes meanwhile comes together."""
    held, begun = threading.Event(), threading.Event()
    scheduler.call(lambda: (begun.set(), held.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    try:
        yield
    finally:
        held.set()


def test_a_small_request_does_not_wait_for_a_large_one(service, adapter):
    large, small, order = _Client(), _Client(), []
    with Scheduler(service.engine, Limits(batch_cells=4), order.append) as scheduler:
        jobs = [
            large.job(_prepared(service, adapter, TEXTS * 3)),
            small.job(_prepared(service, adapter, TEXTS[2])),
        ]
        with _held(scheduler):
            for job in jobs:
                scheduler.submit(job)
        assert small.done.wait(PATIENCE)
        batches = len(order)
        assert large.done.wait(PATIENCE)
    n = len(jobs[1].prepared.vectors)
    assert batches <= -(-n // 2) + 1  # half of each batch was its
    assert [facts.jobs for facts in order][:1] == [2]
    assert large.numbers == list(range(len(jobs[0].prepared.vectors)))
    assert small.numbers == list(range(n))
    assert large.errors == small.errors == [None]


def test_the_first_descriptions_of_a_request_come_before_a_whole_batch(service, adapter):
    for samples, expected in ((1, [8, 8, 16, 20]), (4, [2, 2, 4, 8])):
        client, order = _Client(), []
        with Scheduler(service.engine, Limits(batch_cells=32), order.append) as scheduler:
            prepared = _prepared(service, adapter, TEXTS * 8)
            vectors = prepared.vectors.take(range(sum(expected)))
            scheduler.submit(client.job(replace(prepared, vectors=vectors), n=samples))
            assert client.done.wait(PATIENCE)
        assert [facts.cells for facts in order] == expected
        assert client.numbers == list(range(sum(expected)))


def test_requests_of_other_settings_take_turns(service, adapter):
    clients = [_Client() for _ in range(2)]
    order = []
    with Scheduler(service.engine, Limits(batch_cells=4), order.append) as scheduler:
        prepared = _prepared(service, adapter, TEXTS)
        with _held(scheduler):
            scheduler.submit(clients[0].job(prepared))
            scheduler.submit(clients[1].job(prepared, max_new_tokens=3))
        assert all(client.done.wait(PATIENCE) for client in clients)
    assert {facts.jobs for facts in order} == {1}
    assert all(client.errors == [None] for client in clients)


def test_texts_that_wait_together_are_read_in_one_pass(service, adapter, tiny, monkeypatch):
    counts = []

    def counted(engine, prompts, **settings):
        counts.append(len(prompts))
        return prepare(engine, prompts, **settings)

    monkeypatch.setattr(reading, "prepare", counted)
    good = [dict(texts=[text], positions="all") for text in TEXTS]
    bad = [dict(texts=["a"], positions=[99]), dict(texts=["a", " "]), dict(texts=["a"], adapter="x")]
    with Scheduler(service.engine, service.limits) as scheduler:
        with _held(scheduler):
            futures = [
                scheduler.call_together(service.reader.read, body)
                for body in (ExplainBody(**one) for one in (*good, *bad))
            ]
        results = [future.exception(PATIENCE) or future.result() for future in futures]
    assert counts[0] == len(good)
    for text, result in zip(TEXTS, results):
        here = self_explain(text, model=tiny(), adapter=adapter, positions="all")
        vectors = result.prepared.vectors
        assert vectors.positions == [row.position for row in here]
        assert set(vectors.numbers) == {0}
        assert vectors.sources == [text] * len(here)
        assert vectors.row_ids == prepare(service.engine, text, adapter=adapter, positions="all").vectors.row_ids
    assert [str(error)[:30] for error in results[3:]] == [
        "position 99 does not exist in ",
        "prompt 1 is empty; expected so",
        "expected one of the adapters m",
    ]


def test_one_bad_text_does_not_spoil_those_read_with_it(service, adapter):
    bodies = [ExplainBody(texts=[text], positions=[40]) for text in (LONG, "a", LONG)]
    results = service.reader.read(bodies)
    assert "position 40 does not exist in prompt 0" in str(results[1])
    assert all(len(result.prepared.vectors) == 1 for result in (results[0], results[2]))


def test_what_nobody_waits_for_is_not_computed(service, adapter):
    gone, stays, cells = _Client(), _Client(), []
    with Scheduler(service.engine, Limits(batch_cells=4), lambda facts: cells.append(facts.cells)) as scheduler:
        prepared = _prepared(service, adapter, TEXTS * 3)
        jobs = [gone.job(prepared), stays.job(_prepared(service, adapter, TEXTS[2]))]
        with _held(scheduler):
            for job in jobs:
                scheduler.submit(job)
            jobs[0].cancel()
        assert stays.done.wait(PATIENCE)
    assert gone.numbers == []
    assert sum(cells) == len(jobs[1].prepared.vectors)


def test_more_than_may_wait_is_refused_with_a_time(service, adapter):
    limits = Limits(waiting_requests=2)
    with Scheduler(service.engine, limits) as scheduler:
        with _held(scheduler):
            for _ in range(2):
                scheduler.call(lambda: None)
            with pytest.raises(Overloaded, match="2 requests with 0 vectors wait already; ask again later") as refused:
                scheduler.call(lambda: None)
        assert refused.value.retry_after >= 1


def test_a_server_that_ends_says_so_to_those_who_wait(service, adapter):
    waiting = _Client()
    scheduler = Scheduler(service.engine, Limits())
    with _held(scheduler):
        scheduler.submit(waiting.job(_prepared(service, adapter, TEXTS)))
        future = scheduler.call(lambda: None)
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        while not scheduler._closing:
            time.sleep(0.001)
        with pytest.raises(Closing, match="the server is about to end"):
            scheduler.call(lambda: None)
    closing.join(PATIENCE)
    assert isinstance(waiting.errors[0], Closing) or waiting.errors == [None]
    assert isinstance(future.exception(PATIENCE), Closing) or future.result() is None


def test_an_error_in_a_batch_reaches_its_clients_alone(service, adapter, monkeypatch):
    clients = [_Client() for _ in range(2)]
    with Scheduler(service.engine, Limits()) as scheduler:
        prepared = _prepared(service, adapter, TEXTS[0])
        broken = replace(prepared, vectors=replace(prepared.vectors, thresholds=[]))
        scheduler.submit(clients[0].job(broken, max_new_tokens=3))
        assert clients[0].done.wait(PATIENCE)
        scheduler.submit(clients[1].job(prepared))
        assert clients[1].done.wait(PATIENCE)
    assert isinstance(clients[0].errors[0], Exception)
    assert clients[1].errors == [None]


def test_many_clients_get_what_each_would_get_alone(url, adapter, tiny):
    async def ask(client, i):
        body = {"texts": [TEXTS[i % 3] + " and a cat" * (i % 4)], "positions": "all"}
        response = await client.post(url + "/v1/explain", json=body, timeout=PATIENCE)
        return body["texts"][0], [json.loads(line) for line in response.text.splitlines()]

    async def ask_all():
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(ask(client, i) for i in range(12)))

    for text, (_, *cells, end) in asyncio.run(ask_all()):
        here = self_explain(text, model=tiny(), adapter=adapter, positions="all")
        assert [cell["descriptions"][0]["description"] for cell in cells] == [row.description for row in here]
        assert end["type"] == "end"


def test_a_client_that_leaves_frees_its_place(service, url):
    body = {"texts": [" ".join(TEXTS * 12)], "positions": "all", "sampling": {"n": 4}}
    with httpx.stream("POST", url + "/v1/explain", json=body, timeout=PATIENCE) as response:
        next(response.iter_lines())
    end = time.monotonic() + PATIENCE
    while "interp_toolkit_waiting_requests 0.0" not in httpx.get(url + "/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert _post(url, "/v1/explain", EXPLAIN).status_code == 200


# Features of an SAE


class _Examples(TopExamples):
    """Of feature 3 alone, without a file."""

    def __init__(self):
        pass

    def get(self, feature, count=None):
        if feature > 5:
            raise InterpToolkitError("no such feature")
        rows = [(("a", " cat"), (0.0, 2.5))] * (feature == 3)
        return pd.DataFrame(rows[:count], columns=["tokens", "activations"])


@pytest.fixture
def features():
    rows = [(3, "Cats and kittens", 2.0), (3, "a mat", 0.1), (5, "Rivers", math.nan), (7, None, math.nan)]
    table = pd.DataFrame(rows, columns=["feature", "description", "evidence"])
    return Features(table, {3: ["cat", "kitten"], 9: ["no description"]}, _Examples())


def test_features_are_searched_by_number_label_and_description(features):
    assert len(features) == 4
    every = features.search("", 0, 10)
    assert [card["feature"] for card in every["features"]] == [3, 5, 7, 9]
    assert features.search("KITTENS mat", 0, 10)["total"] == 1
    assert features.search("kitten", 0, 10)["features"][0]["label"] == "cat, kitten"
    assert [card["feature"] for card in features.search("5", 0, 10)["features"]] == [5]
    assert features.search("no such words", 0, 10) == dict(total=0, features=[])
    assert [card["feature"] for card in features.search("", 1, 2)["features"]] == [5, 7]
    cat, river, nothing, _ = every["features"]
    assert cat["contexts"] == [dict(tokens=["a", " cat"], values=[0.0, 2.5])]
    assert river["descriptions"] == [dict(text="Rivers", evidence=None, scores=[])]
    assert (nothing["descriptions"], nothing["contexts"]) == ([], [])


def test_features_are_served_where_the_operator_has_some(service, features, url):
    refused = httpx.get(url + "/v1/features")
    assert refused.status_code == 404
    assert "start it with --features" in refused.json()["detail"]
    service.features = features
    assert httpx.get(url + "/v1/features", params=dict(query="rivers")).json()["total"] == 1
    assert httpx.get(url + "/v1/models").json()["data"][0]["features"] == 4
    assert httpx.get(url + "/v1/features", params=dict(count=1000)).status_code == 422


def test_features_are_read_from_what_the_commands_write(tmp_path, tiny):
    with pytest.raises(InterpToolkitError, match="expected --features beside --labels and --examples, got none"):
        load_service(tiny(), ["smollm2_rank64"], labels=tmp_path / "labels.json")
    with pytest.raises(InterpToolkitError, match="job"):
        Features.read(tmp_path, None, None, tiny().tokenizer)


# The client


def test_self_explain_by_a_server_gives_the_same_table(url, adapter, tiny, random_vectors):
    for settings in (
        dict(positions="all", include_null=True),
        dict(positions=[-1, 0], sampling=Sampling(n=2, seed=1, scales=[1.0, 2.0])),
        dict(sites=[0, 1], positions=[0, -1], on_mismatch="warn"),
    ):
        warns = pytest.warns(UserWarning, match="blocks.0") if "on_mismatch" in settings else _nothing()
        with warns:
            here = self_explain(TEXTS, model=tiny(), adapter=adapter, **settings)
            _same(self_explain(TEXTS, model=url, **settings), here)
    vectors = random_vectors(4, adapter.config.width)
    _same(self_explain(vectors, model=url), self_explain(vectors, model=tiny(), adapter=adapter))
    server = ToolkitServer(url)
    _same(self_explain(list(vectors), model=server, adapter="mine"), self_explain(vectors, model=url))


def test_the_command_asks_a_server_without_transformer_lens(url, adapter, tiny):
    command = [sys.executable, "-c", "import sys; from interp_toolkit.cli import main; main(sys.argv[1:]); "]
    command[-1] += "sys.exit('transformer_lens' in sys.modules)"
    done = subprocess.run([*command, "explain", TEXTS[0], "--model", url, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    (here,) = self_explain(TEXTS[0], model=tiny(), adapter=adapter)
    assert row["description"] == here.description
    assert row["evidence"] == pytest.approx(here.evidence, abs=1e-4)


@contextmanager
def _nothing():
    yield


def test_more_prompts_and_vectors_than_a_request_holds_keep_their_order(
    url, adapter, tiny, random_vectors, monkeypatch
):
    monkeypatch.setattr("interp_toolkit.remote._PROMPTS", 2)
    monkeypatch.setattr("interp_toolkit.remote._VECTORS", 2)
    prompts = [f"{text} {i}" for i, text in enumerate(TEXTS * 2)][:5]
    _same(self_explain(prompts, model=url), self_explain(prompts, model=tiny(), adapter=adapter))
    vectors = random_vectors(5, adapter.config.width)
    _same(self_explain(vectors, model=url), self_explain(vectors, model=tiny(), adapter=adapter))


def test_what_a_server_cannot_do_is_refused_here(url, adapter, tiny):
    server = ToolkitServer(url)
    acts = read_activations(tiny(), TEXTS, 0)
    for inputs, settings in ((TEXTS, dict(adapter=adapter)), (acts, {}), (TEXTS, dict(center={0: torch.zeros(32)}))):
        with pytest.raises(InterpToolkitError, match="describes by its own adapters and means; load the model here"):
            self_explain(inputs, model=server, **settings)
    with pytest.raises(InterpToolkitError, match="expected texts or messages for a server"):
        self_explain([[1, 2, 3]], model=server)
    with pytest.raises(InterpToolkitError, match="got a slice or mask"):
        self_explain(TEXTS, model=server, positions=slice(0, 2))
    with pytest.raises(InterpToolkitError, match="expected one of the adapters mine, got 'other'"):
        self_explain(TEXTS, model=server, adapter="other")
    with pytest.raises(InterpToolkitError, match="describes prompts and vectors for self_explain alone"):
        as_engine(server)
    with pytest.raises(InterpToolkitError, match="cannot reach http://127.0.0.1:9"):
        self_explain(TEXTS, model="http://127.0.0.1:9")
    assert as_toolkit_server("smollm2-135m") is None


# What is served


def test_a_server_needs_an_adapter_of_its_model(tiny, adapter, tmp_path):
    with pytest.raises(InterpToolkitError, match="expected at least one adapter to serve, got none"):
        load_service(tiny())
    adapter.save_pretrained(tmp_path / "one" / "same")
    adapter.save_pretrained(tmp_path / "two" / "same")
    assert [row["id"] for row in load_service(tiny(), [str(tmp_path / "one" / "same")]).adapters.facts()] == ["same"]
    with pytest.raises(InterpToolkitError, match="expected adapters of different names, got 'same' twice"):
        load_service(tiny(), [str(tmp_path / name / "same") for name in ("one", "two")])
    with pytest.raises(InterpToolkitError, match="was trained"):
        load_service(tiny("gpt2"), [str(tmp_path / "one" / "same")])


def test_the_shipped_adapters_are_served(smollm):
    service = load_service(smollm)
    assert service.adapters.facts()[0]["id"] == "smollm2_any_token"
    text = "The Eiffel Tower is in Paris."
    with running(service) as url:
        places = service.adapters.facts()[0]["sites"][1:]
        settings = dict(sites=places, positions="content")
        _same(self_explain(text, model=url, **settings), self_explain(text, model=smollm, **settings))
        stack = SiteStack(service.adapters.choose("smollm2_any_token")[1].contract.site.sites)
        _same(self_explain(text, model=url, sites=stack), self_explain(text, model=smollm, sites=stack))
        lens = _post(url, "/v1/lens", {"text": text, "site": 29, "position": -1, "chat": True, "tokens": 3}).json()
        assert len(lens["tokens"]) == 3
        steered = _post(
            url, "/v1/steer", {"text": text, "site": 16, "position": 27, "prompt": "Hi", "description": "Paris"}
        ).json()
        assert steered["steered"] != steered["plain"]
    assert not math.isnan(self_explain(text, model=smollm)[0].evidence)


def test_an_address_that_is_taken_or_none_is_refused_before_a_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, reason in (
            (["--port", str(port)], "Address already in use; name another with --host or --port"),
            (["--port", "99999999"], "port must be 0-65535"),
            (["--port", "-1"], "port must be 0-65535"),
        ):
            assert main(["serve", *arguments]) == 2
            text = capsys.readouterr().err
            assert "expected a free address to listen on, got 127.0.0.1, port" in text
            assert reason in text
            assert "loading" not in text


@pytest.mark.slow
def test_the_command_serves_and_ends_on_sigterm():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "interp_toolkit", "serve", "--port", str(port), "--adapter", "smollm2_rank64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "loading smollm2-135m" in process.stderr.readline()
            assert f"open http://127.0.0.1:{port}" in process.stderr.readline()
            url, end = f"http://127.0.0.1:{port}", time.monotonic() + 10 * PATIENCE
            while True:
                try:
                    assert httpx.get(url + "/healthz").json() == {"status": "ok"}
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end
                    time.sleep(0.1)
            body = {"texts": ["The river. " * 20], "positions": "content"}
            with httpx.stream("POST", url + "/v1/explain", json=body, timeout=10 * PATIENCE) as response:
                lines = response.iter_lines()
                assert json.loads(next(lines))["adapter"] == "smollm2_rank64"
                process.send_signal(signal.SIGTERM)
                # What runs is ended, or what came before the end of the server's patience is all there is.
                with contextlib.suppress(httpx.TransportError):
                    assert {json.loads(line)["type"] for line in lines} <= {"cell", "end", "error"}
            assert process.wait(10 * PATIENCE) in (0, -signal.SIGTERM)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--host", "0.0.0.0"], "expected a token for a server that other machines reach"),
        (["--labels", "labels.json"], "expected --features beside --labels and --examples"),
        (["--adapter", "no-such-adapter"], "no adapter at no-such-adapter"),
    ],
)
def test_a_mistake_in_the_command_is_said_in_a_line(smollm, monkeypatch, capsys, arguments, text):
    monkeypatch.delenv("INTERP_TOOLKIT_TOKEN", raising=False)
    monkeypatch.setattr("interp_toolkit.engines.local._default", [LocalEngine(smollm)])
    assert main(["serve", *arguments]) == 2
    message = capsys.readouterr().err
    assert text in message
    assert "Traceback" not in message
