"""The server's routes: bodies in, rows out as the model gives them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from interp_toolkit.engines.toolkit_server import OWNER
from interp_toolkit.explanations import Explanation
from interp_toolkit.runtime import Sampling
from interp_toolkit.serve.bodies import (
    AnswerBody,
    DescribeBody,
    ExplainBody,
    LensBody,
    ScoreBody,
    SteerBody,
    cell_row,
)
from interp_toolkit.serve.guard import LOOPBACK_HOSTS, Guard
from interp_toolkit.serve.metrics import CONTENT_TYPE, Metrics
from interp_toolkit.serve.problems import MEDIA_TYPE, NotFound, add_handlers, problem
from interp_toolkit.serve.reading import Reading
from interp_toolkit.serve.scheduler import Job, Scheduler
from interp_toolkit.serve.service import Service
from interp_toolkit.views.explorer import ASSETS, endpoints_page, explorer_page

T = TypeVar("T")

NDJSON = "application/x-ndjson"
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
    for status, text in {
        400: "a value that cannot be used; `detail` says what was expected",
        404: "no such adapter",
        413: "a body that is too large",
        422: "a body of another form",
        429: "too much waits; `Retry-After` says for how many seconds",
    }.items()
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one JSON object per line: `begin`, a `cell` per vector as soon as it is described, `end` "
        "(or `error` with a problem)",
        "content": {NDJSON: {"schema": {"type": "string"}}},
    }
}


def create_app(service: Service, *, token: str | None = None, hosts: Collection[str] = LOOPBACK_HOSTS) -> FastAPI:
    """Make the application that ``interp-toolkit serve`` runs.

    Args:
        service: the model and its adapters.
        token: that every request must bring; None for a server that only this machine reaches.
        hosts: names, without port, by which clients reach the server.

    Returns:
        an ASGI application, for one process; its scheduler's thread runs as long as its lifespan.

    Example:
        >>> app = create_app(Service(LocalEngine(model), {"mine": adapter}, Limits()))
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.scheduler = Scheduler(service.engine, service.limits, metrics.add_batch)
        yield
        await asyncio.to_thread(app.state.scheduler.close)

    app = FastAPI(
        title="interp_toolkit",
        version=version("interp-toolkit"),
        summary="A language model says in words what its own hidden states mean.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    add_handlers(app)

    def scheduler() -> Scheduler:
        return app.state.scheduler

    async def run(function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(scheduler().call(function))

    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        route = request.scope.get("route")
        metrics.add_request(getattr(route, "path", "none"), response.status_code)
        return response

    @app.post("/v1/explain", responses=_STREAM | _PROBLEMS, response_class=StreamingResponse)
    async def explain(body: ExplainBody, request: Request) -> Response:
        """Describe what tokens of texts hold, at one site or several."""
        began = time.perf_counter()
        reading = await asyncio.wrap_future(scheduler().call_together(service.reader.read, body))
        return await _stream(scheduler(), metrics, reading, body.sampling.value(), request, began)

    @app.post("/v1/describe", responses=_STREAM | _PROBLEMS, response_class=StreamingResponse)
    async def describe(body: DescribeBody, request: Request) -> Response:
        """Describe vectors."""
        began = time.perf_counter()
        reading = await run(lambda: service.reader.take(body))
        return await _stream(scheduler(), metrics, reading, body.sampling.value(), request, began)

    @app.post("/v1/score", responses=_PROBLEMS)
    async def score(body: ScoreBody) -> dict[str, Any]:
        """Log-probability and evidence of texts given vectors, in nats per token."""
        return {"scores": await run(lambda: service.score(body))}

    @app.post("/v1/lens", responses=_PROBLEMS)
    async def lens(body: LensBody) -> dict[str, Any]:
        """The tokens that the logit lens reads at one place, the most probable first."""
        return {"tokens": await run(lambda: service.lens(body))}

    @app.post("/v1/answer", responses=_PROBLEMS)
    async def answer(body: AnswerBody) -> dict[str, Any]:
        """What the model itself answers to a text."""
        return {"answer": await run(lambda: service.answer(body))}

    @app.post("/v1/steer", responses=_PROBLEMS)
    async def steer(body: SteerBody) -> dict[str, Any]:
        """Answers without a vector, with it added to the residual stream, and with a random one of equal length."""
        return await run(lambda: service.steer(body))

    @app.get("/v1/features", responses=_PROBLEMS)
    async def features(
        query: Annotated[str, Query(max_length=1000)] = "",
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=0, le=100)] = 10,
    ) -> dict[str, Any]:
        """Features of the SAE that is served, whose labels or descriptions hold every word of a query."""
        served = service.features
        if served is None:
            raise NotFound("expected a server with an SAE's features, got one without; start it with --features")
        return await asyncio.to_thread(served.search, query, start, count)

    @app.get("/v1/adapters")
    async def adapters() -> dict[str, Any]:
        """The adapters of this server, the default first."""
        return {"data": service.adapters.facts()}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model of this server."""
        return {"object": "list", "data": [{"object": "model", "owned_by": OWNER, **service.model_facts()}]}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server lives."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def measurements() -> Response:
        """Measurements in the text format of Prometheus."""
        return Response(metrics.text(scheduler()), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(explorer_page(), media_type="text/html; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def endpoints() -> Response:
        return Response(endpoints_page(), media_type="text/html; charset=utf-8")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404, "no such file")
        kind, read = ASSETS[name]
        return Response(read(), media_type=kind)

    app.add_middleware(Guard, hosts=hosts, token=token, limits=service.limits)
    return app


async def _stream(
    scheduler: Scheduler, metrics: Metrics, reading: Reading, sampling: Sampling, request: Request, began: float
) -> Response:
    """Describe what was read; a line for each vector as it comes."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    numbers = reading.prepared.vectors.numbers

    def put(line: dict[str, Any] | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def deliver(number: int, rows: Sequence[Explanation]) -> None:
        if number == 0:
            metrics.add_first_cell(time.perf_counter() - began)
        put(cell_row(number, numbers[number], rows))

    def end(error: BaseException | None) -> None:
        if error is None:
            put(dict(type="end", cells=len(numbers), seconds=round(time.perf_counter() - began, 3)))
        else:
            put(dict(type="error", problem=problem(error)[1]))
        put(None)

    job = Job(reading.prepared, sampling, deliver, end)
    scheduler.submit(job)

    async def written() -> AsyncIterator[bytes]:
        try:
            yield _line(reading.begin)
            while (line := await lines.get()) is not None:
                yield _line(line)
        finally:
            job.cancel()  # without effect where all is done; else the client has left

    return StreamingResponse(written(), media_type=NDJSON)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
