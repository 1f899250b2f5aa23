"""What a busy neighbour costs a description, by how many threads there are and how they wait.

OpenMP's threads wait for one another at the end of each product. Where another process holds a processor, a thread that
waits actively burns the time in which the thread it waits for could run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Descriptions per process; the first is not counted.
_CALLS = 5
_DESCRIBE = f"""
import time
from interp_toolkit import load_model, self_explain
model = load_model("smollm2-135m")
times = []
for _ in range({_CALLS} + 1):
    start = time.perf_counter()
    self_explain("How do glaciers carve valleys?", model=model)
    times.append(time.perf_counter() - start)
print(*times[1:])
"""
_SPIN = "while True: pass"


def measure(threads: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of a warm description of one prompt, alone and beside a process that is always busy.

    Args:
        threads: as many as processors.
        repeats: processes of each kind.

    Returns:
        rows with ``threads``, ``waiting`` (OpenMP's ``OMP_WAIT_POLICY``, or ``as it is``), ``alone`` and ``beside``
        (median seconds), ``ratio``, and ``n``.
    """
    rows = []
    for count in sorted({1, threads}, reverse=True):
        for waiting in ("as it is", "passive"):
            environment = dict(OMP_NUM_THREADS=str(count))
            if waiting != "as it is":
                environment["OMP_WAIT_POLICY"] = waiting
            alone, beside = [], []
            for _ in range(repeats):
                alone += _seconds(environment)
                with _neighbour():
                    beside += _seconds(environment)
            medians = statistics.median(alone), statistics.median(beside)
            row = dict(threads=count, waiting=waiting, alone=medians[0], beside=medians[1])
            rows.append(row | dict(ratio=medians[1] / medians[0], n=len(alone)))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


@contextmanager
def _neighbour() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", _SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _seconds(environment: dict[str, str]) -> list[float]:
    unset = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", _DESCRIBE]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    return [float(x) for x in done.stdout.split()]
