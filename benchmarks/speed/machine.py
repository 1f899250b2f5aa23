"""The machine that speeds are measured on: what it is, its threads, and whether anything else runs on it."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path

import torch

from benchmarks.speed.timing import seconds
from interp_toolkit.errors import InterpToolkitError

# Above this share by which equal products differ in time, ratios say more about the neighbours than about the code.
MOST_NOISE = 0.25
_PRODUCTS = 200


def use_all_processors() -> int:
    """Set one thread for each processor that this process may use; how many these are."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads


def machine_kind(threads: int) -> str:
    """One line for all machines whose ratios compare: the processor, what it can do in bfloat16, and the threads.

    Args:
        threads: of a product.
    """
    info = _processor_info()
    name = info.get("model name") or platform.processor() or platform.machine()
    model = "".join(f", {key} {info[key]}" for key in ("cpu family", "model") if key in info)
    flags = set(info.get("flags", "").split())
    bfloat16 = ", ".join(flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags) or "no bfloat16"
    return f"{name}{model}, {bfloat16}, {threads} threads"


def noise() -> float:
    """By what share the slow tenth of equal matrix products takes longer than the median."""
    a, b = torch.randn(1024, 576), torch.randn(576, 1536)
    torch.mm(a, b)
    times = [seconds(lambda: torch.mm(a, b)) for _ in range(_PRODUCTS)]
    return statistics.quantiles(times, n=10)[-1] / statistics.median(times) - 1


def require_quiet(share: float) -> None:
    """Refuse to write or compare figures from a machine that does other things.

    Args:
        share: what `noise` gave.

    Raises:
        InterpToolkitError: it is above ``MOST_NOISE``.
    """
    if share > MOST_NOISE:
        raise InterpToolkitError(
            f"expected a quiet machine, where equal products differ by at most {MOST_NOISE:.0%}, got {share:.0%}; stop "
            f"other work, or leave out --output and --check to see figures that are not written"
        )


def _processor_info() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
