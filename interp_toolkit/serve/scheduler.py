"""The queue in front of the model: one thread runs it, and describes vectors of several requests in one batch."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from interp_toolkit.describing import Prepared, describe, on_still_model
from interp_toolkit.engines import Engine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanation
from interp_toolkit.inputs import Vectors
from interp_toolkit.runtime import Sampling
from interp_toolkit.serve.limits import Limits
from interp_toolkit.torch_defaults import plain_defaults

logger = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")

# A client that is refused is asked to wait at least so long, in seconds.
_SHORTEST_WAIT = 1
# A request's first batch, which somebody looks forward to, has no more vectors than this; those after it grow.
_FIRST_CELLS = 8
# A batch waits so long for requests that come together, in seconds: a few hundredths of what it takes.
_GATHER = 0.02
# How much the newest batch counts in the rate by which a wait is estimated.
_NEWEST = 0.2


class Overloaded(Exception):
    """More waits than the server takes.

    Attributes:
        retry_after: seconds after which there may be room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Closing(Exception):
    """The server is about to end."""


@dataclass(eq=False)
class Job:
    """The vectors of one request, described a few at a time.

    Attributes:
        prepared: the vectors and their adapter.
        sampling: of the descriptions.
        deliver: called in the scheduler's thread with the number of a vector and its descriptions.
        end: called there once, with None when all vectors are done, else with the error.
        done: number of vectors that were delivered.
        cancelled: whether nobody waits for it any longer.
    """

    prepared: Prepared
    sampling: Sampling
    deliver: Callable[[int, Sequence[Explanation]], None]
    end: Callable[[BaseException | None], None]
    done: int = 0
    cancelled: bool = False

    @property
    def remaining(self) -> int:
        """How many vectors are still to be described."""
        return len(self.prepared.vectors) - self.done

    @property
    def together(self) -> tuple[Any, ...]:
        """Jobs in which this is equal can share a batch."""
        return id(self.prepared.adapter), self.sampling, self.prepared.as_in_training

    def cancel(self) -> None:
        """Describe no more of it; its client has gone."""
        self.cancelled = True


@dataclass(frozen=True)
class BatchFacts:
    """What one batch was, for measurements.

    Attributes:
        cells: number of vectors.
        jobs: number of requests that they were of.
        seconds: that the batch took.
    """

    cells: int
    jobs: int
    seconds: float


@dataclass(eq=False)
class _Call:
    """A function that waits for its turn, with an argument and a future for each who waits for it."""

    function: Callable[[Sequence[Any]], Sequence[Any]]
    arguments: list[Any]
    together: bool = False
    futures: list[Future[Any]] = field(default_factory=lambda: [Future()])


class Scheduler:
    """Runs everything that needs the model, in a thread of its own, in fair turns.

    A turn is all texts that wait to be read, in one pass; one other call (scores, an answer); and a batch of
    descriptions. A batch takes equal shares of all requests that can share it, the one that has waited longest first;
    so a large request slows small ones down by one batch at most, and many small ones cost little more than one large
    one. Of a request it takes a few vectors at first, then at most as many as are done.

    Args:
        engine: that runs the model.
        limits: how much may wait.
        watch: called in the scheduler's thread with the `BatchFacts` of every batch.

    Example:
        >>> with Scheduler(engine, Limits()) as scheduler:
        ...     scheduler.call(lambda: prepare(engine, "Tell me about baseball.")).result()
    """

    def __init__(
        self, engine: Engine, limits: Limits, watch: Callable[[BatchFacts], None] = lambda facts: None
    ) -> None:
        self._engine, self._limits, self._watch = engine, limits, watch
        self._changed = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._jobs: deque[Job] = deque()
        self._closing = False
        self._cells_per_second = 0.0
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting_requests(self) -> int:
        """Number of calls and jobs that are not done."""
        with self._changed:
            return sum(len(call.futures) for call in self._calls) + len(self._jobs)

    @property
    def waiting_cells(self) -> int:
        """Number of vectors that are not described yet."""
        with self._changed:
            return self._waiting_cells()

    def _waiting_cells(self) -> int:
        return sum(job.remaining for job in self._jobs)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function in the scheduler's thread.

        Args:
            function: that uses the model for a moment.

        Returns:
            its result, as a future; one that is cancelled before it begins does not run.

        Raises:
            Overloaded: too many requests wait.
            Closing: the server is about to end.
        """
        return self._add(_Call(lambda _: [function()], [None]))

    def call_together(self, function: Callable[[Sequence[A]], Sequence[T | Exception]], argument: A) -> Future[T]:
        """Run a function once for the arguments of all calls that wait for it.

        Args:
            function: from arguments to as many results, in which an exception is raised for its call alone.
            argument: of this call.

        Returns:
            its result, as a future.

        Raises:
            Overloaded: too many requests wait.
            Closing: the server is about to end.
        """
        return self._add(_Call(function, [argument], together=True))

    def _add(self, call: _Call) -> Future[Any]:
        with self._changed:
            self._require_room(0)
            self._calls.append(call)
            self._changed.notify()
        return call.futures[0]

    def submit(self, job: Job) -> None:
        """Describe the vectors of a job, in their order.

        Args:
            job: one that is cancelled meanwhile gets no end.

        Raises:
            Overloaded: too much waits.
            Closing: the server is about to end.
        """
        with self._changed:
            self._require_room(job.remaining)
            if job.remaining:
                self._jobs.append(job)
                self._changed.notify()
        if not job.remaining:
            job.end(None)

    def close(self) -> None:
        """Refuse what waits, and return when what runs has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _require_room(self, cells: int) -> None:
        if self._closing:
            raise Closing("the server is about to end; ask again when it is back")
        waiting, limit = self._waiting_cells(), self._limits.waiting_cells
        if self.waiting_requests >= self._limits.waiting_requests or (waiting and waiting + cells > limit):
            seconds = waiting / self._cells_per_second if self._cells_per_second else 0.0
            raise Overloaded(
                f"expected room for another request, and {self.waiting_requests} requests with {waiting:,} vectors "
                f"wait already; ask again later",
                max(_SHORTEST_WAIT, math.ceil(seconds)),
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._jobs or self._closing):
                    self._changed.wait()
            self._gather()
            with self._changed:
                if self._closing:
                    break
                calls = self._next_calls()
            for call in calls:
                self._answer(call)
            if calls:
                self._gather()
            with self._changed:
                batch = self._next_batch()
            if batch:
                self._describe(batch)
        error = Closing("the server is about to end; ask again when it is back")
        for future in (future for call in self._calls for future in call.futures):
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        for job in self._jobs:
            job.end(error)

    def _gather(self) -> None:
        """Let those who were answered a moment ago ask again, so that they share the next batch."""
        if self.waiting_cells < self._limits.batch_cells:
            time.sleep(_GATHER)

    def _next_calls(self) -> list[_Call]:
        """One call that runs alone, and all that run together, those of one function as one."""
        calls: list[_Call] = []
        by_function: dict[Any, _Call] = {}
        later: deque[_Call] = deque()
        for call in self._calls:
            if not call.together:
                (later if any(not other.together for other in calls) else calls).append(call)
            elif (first := by_function.get(call.function)) is not None:
                first.arguments += call.arguments
                first.futures += call.futures
            else:
                by_function[call.function] = call
                calls.append(call)
        self._calls = later
        return calls

    def _answer(self, call: _Call) -> None:
        waiting = [i for i, future in enumerate(call.futures) if future.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            with self._in_turn():
                results: Sequence[Any] = call.function([call.arguments[i] for i in waiting])
        except BaseException as error:
            results = [error] * len(waiting)
        for i, result in zip(waiting, results):
            _set(call.futures[i], result)

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Jobs that share the next batch, with the number of vectors of each."""
        self._jobs = deque(job for job in self._jobs if not job.cancelled)
        if not self._jobs:
            return []
        kind = self._jobs[0].together
        sharing = [job for job in self._jobs if job.together == kind]
        samples = max(1, int(self._jobs[0].sampling.n))
        room = max(1, self._limits.batch_cells // samples)
        bounds = [min(job.remaining, max(1, _FIRST_CELLS // samples, job.done)) for job in sharing]
        shares = [0] * len(sharing)
        # One vector of each in turn, until the batch is full or nothing is left.
        for i in itertools.cycle(range(len(sharing))):
            if room == 0 or shares == bounds:
                break
            if shares[i] < bounds[i]:
                shares[i] += 1
                room -= 1
        # Those that were served go behind those that were not, of this kind and of others.
        served = [(job, share) for job, share in zip(sharing, shares) if share]
        moved = {id(job) for job, _ in served}
        self._jobs = deque([job for job in self._jobs if id(job) not in moved] + [job for job, _ in served])
        return served

    def _describe(self, batch: Sequence[tuple[Job, int]]) -> None:
        began = time.perf_counter()
        try:
            rows_of_vectors = self._rows(batch)
        except BaseException as error:
            if not isinstance(error, InterpToolkitError):
                logger.exception("describing failed")
            self._drop([job for job, _ in batch], error)
            return
        seconds, cells = time.perf_counter() - began, len(rows_of_vectors)
        rate, before = cells / max(seconds, 1e-9), self._cells_per_second
        self._cells_per_second = rate if not before else before + _NEWEST * (rate - before)
        self._watch(BatchFacts(cells, len(batch), seconds))
        rows = iter(rows_of_vectors)
        for job, share in batch:
            for number in range(job.done, job.done + share):
                job.deliver(number, next(rows))
            job.done += share
        self._drop([job for job, _ in batch if not job.remaining], None)

    def _drop(self, jobs: Sequence[Job], error: BaseException | None) -> None:
        with self._changed:
            self._jobs = deque(job for job in self._jobs if job not in jobs)
        for job in jobs:
            job.end(error)

    def _rows(self, batch: Sequence[tuple[Job, int]]) -> list[list[Explanation]]:
        """The descriptions of each vector of a batch."""
        first = batch[0][0]
        shares = [job.prepared.vectors.take(range(job.done, job.done + share)) for job, share in batch]
        vectors = Vectors.concatenated(shares)
        with self._in_turn():
            rows = list(describe(self._engine, replace(first.prepared, vectors=vectors), first.sampling))
        per_vector = len(rows) // len(vectors)
        return [rows[i : i + per_vector] for i in range(0, len(rows), per_vector)]

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        with plain_defaults(), torch.no_grad(), on_still_model(self._engine):
            yield


def _set(future: Future[Any], result: Any) -> None:
    """End a future by a result, or by the exception that it is."""
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
