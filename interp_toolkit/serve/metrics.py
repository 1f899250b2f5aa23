"""Measurements of a running server, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from interp_toolkit.serve.scheduler import BatchFacts, Scheduler

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """Counters of one server; each has a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "interp_toolkit_requests_total", "Requests that were answered", ("route", "status"), registry=registry
        )
        self._cells = Counter("interp_toolkit_cells_total", "Vectors that were described", registry=registry)
        self._seconds = Counter(
            "interp_toolkit_describing_seconds_total", "Time in which the model described", registry=registry
        )
        self._batch_cells = Histogram(
            "interp_toolkit_batch_cells", "Vectors per batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self._batch_requests = Histogram(
            "interp_toolkit_batch_requests",
            "Requests that share a batch",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self._first = Histogram(
            "interp_toolkit_first_cell_seconds",
            "From a request to its first description",
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self._waiting = Gauge("interp_toolkit_waiting_requests", "Requests that wait for the model", registry=registry)
        self._waiting_cells = Gauge("interp_toolkit_waiting_cells", "Vectors that wait", registry=registry)

    def add_request(self, route: str, status: int) -> None:
        """Count a request by its route (not its path, which a client chooses) and the status of its response."""
        self._requests.labels(route, str(status)).inc()

    def add_batch(self, facts: BatchFacts) -> None:
        """Count a batch."""
        self._cells.inc(facts.cells)
        self._seconds.inc(facts.seconds)
        self._batch_cells.observe(facts.cells)
        self._batch_requests.observe(facts.jobs)

    def add_first_cell(self, seconds: float) -> None:
        """Count the time from a request to its first description."""
        self._first.observe(seconds)

    def text(self, scheduler: Scheduler) -> bytes:
        """All measurements, with what waits now."""
        self._waiting.set(scheduler.waiting_requests)
        self._waiting_cells.set(scheduler.waiting_cells)
        return generate_latest(self._registry)
