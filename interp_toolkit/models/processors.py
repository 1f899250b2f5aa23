"""How many threads find a processor of their own, where other processes run beside this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

# What runs for a moment only, such as a thread of this process that is about to sleep, is not there each time.
_LOOKS = 3
_LOAD, _OWN = Path("/proc/loadavg"), Path("/proc/self/task")


@contextmanager
def threads_with_a_processor() -> Iterator[None]:
    """For the length of the block, torch uses no more threads than find a processor that nobody else is at.

    Threads of a product wait for the slowest of them. One that shares its processor with another process is suspended
    for milliseconds at a time, hundreds of times in a description, which then takes ten times as long and more; with a
    thread less it takes half as long again. The number is that of the moment at which the block begins, and is set back
    at its end; where Linux does not say who runs, nothing is changed.
    """
    threads = torch.get_num_threads()
    free = 0
    for _ in range(_LOOKS):
        free = max(free, free_processors() or threads)
        if free >= threads:
            break
    if free >= threads:
        yield
        return
    torch.set_num_threads(free)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_processors() -> int | None:
    """Processors at which nothing but this process runs now, at least one; None where that is not known."""
    try:
        running = int(_LOAD.read_text().split()[3].partition("/")[0])
        others = running - sum(map(_runs, _OWN.iterdir()))
    except (OSError, ValueError, IndexError):
        return None
    return max(1, (os.cpu_count() or 1) - max(0, others))


def _runs(thread: Path) -> bool:
    """Whether a thread of this process runs, or would if it found a processor."""
    with suppress(OSError):  # it has ended meanwhile
        # The state follows the name, in brackets, which may hold anything.
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    return False
