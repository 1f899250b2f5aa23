"""Seconds that a person waits: for commands of the shell, the import, the model, a description, a grid of them."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serve.server import running_server

PROMPT = "How do glaciers carve valleys?"
_SCRIPT = str(Path(sys.executable).with_name("interp-toolkit"))
_EXPLAIN = "`interp-toolkit explain` of a prompt"
_BY_SERVER = "the same by a server that runs (`--model http://...`)"
# What is run, and the most seconds that it should take: of a clock, but of processors where it describes.
_COMMANDS: dict[str, tuple[list[str], float]] = {
    "`interp-toolkit --version`": ([_SCRIPT, "--version"], 0.3),
    "`interp-toolkit explain --help`": ([_SCRIPT, "explain", "--help"], 0.3),
    "`import interp_toolkit`": ([sys.executable, "-c", "import interp_toolkit"], 0.5),
    "`interp-toolkit info smollm2_any_token`": ([_SCRIPT, "info", "smollm2_any_token"], 1.0),
    _EXPLAIN: ([_SCRIPT, "explain", PROMPT], 6.0),
}
_LOAD, _DESCRIBE, _GRID = "`load_model`", "`self_explain` of a prompt, warm", "a grid"
_INSIDE = {_LOAD: 1.5, _DESCRIBE: 0.35}
_TOKENS, _SITES = 60, [4, 10, 16, 23]
_TEXT = (
    "The Eiffel Tower in Paris was built by Gustave Eiffel for the World Fair of 1889, and it was the tallest building "
    "of the world for forty years, until the Chrysler Building in New York City was finished; today millions of "
    "visitors climb it every year to see the city and the river Seine from above."
)


def measure(data: Path, threads: int, repeats: int) -> list[dict[str, Any]]:
    """How long each takes, in processes of their own.

    Args:
        data: folder of the data.
        threads: of the grid, and of the commands; model and description are given one.
        repeats: processes for each row.

    Returns:
        rows with ``what``, ``threads``, ``seconds`` (the median by the clock), ``lowest``, ``highest``,
        ``processor_seconds`` (the median; None for a part of a process), ``target`` in seconds (None for a grid),
        ``per_second`` (descriptions) and ``n``.
    """
    rows = [_command_row(what, *of, threads, repeats) for what, of in _COMMANDS.items()]
    command, target = _COMMANDS[_EXPLAIN]
    with running_server(data, None) as server:
        rows.append(_command_row(_BY_SERVER, [*command, "--model", server.url], target, threads, repeats))
    for count, grid in ((1, False), (threads, True)):
        seconds: dict[str, list[float]] = {}
        cells = 1
        calls = f"from benchmarks.speed.waiting import print_calls; print_calls({grid})"
        for _ in range(repeats):
            done = json.loads(_process([sys.executable, "-c", calls], count)[2])
            cells = done["cells"]
            for what, some in done["seconds"].items():
                seconds.setdefault(what, []).extend(some)
        for what, some in seconds.items():
            rows.append(_row(what, count, some, _INSIDE.get(what)))
            if what == _GRID:
                rows[-1] |= dict(what=f"a grid of {cells} descriptions, warm", per_second=cells / rows[-1]["seconds"])
    return rows


def print_calls(grid: bool) -> None:
    """Time calls in this process, and print their seconds as JSON.

    Args:
        grid: of the descriptions of a text's tokens at several layers; else loading a model and one description.
    """
    import transformer_lens  # noqa: F401 - imported with a process's first model, and no part of loading it

    from interp_toolkit import load_model, self_explain

    model: Any = None

    def load() -> None:
        nonlocal model
        model = load_model("smollm2-135m")

    loading = _seconds(load, 1, untimed=0)
    if not grid:
        described = _seconds(lambda: self_explain(PROMPT, model=model), 5)
        print(json.dumps(dict(seconds={_LOAD: loading, _DESCRIBE: described}, cells=1)))
        return
    text = model.tokenizer.decode(model.tokenizer(_TEXT)["input_ids"][:_TOKENS])
    read = dict(model=model, sites=_SITES, positions="content")
    cells = len(self_explain(text, **read))
    times = _seconds(lambda: self_explain(text, **read), 2, untimed=1)
    print(json.dumps(dict(seconds={_GRID: times}, cells=cells)))


def _seconds(call: Callable[[], object], calls: int, untimed: int = 2) -> list[float]:
    times = []
    for _ in range(untimed + calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[untimed:]


def _command_row(what: str, command: Sequence[str], target: float, threads: int, repeats: int) -> dict[str, Any]:
    _process(command, threads)  # files that were not read for long are slow
    runs = [_process(command, threads) for _ in range(repeats)]
    return _row(what, threads, [clock for clock, _, _ in runs], target, [cpu for _, cpu, _ in runs])


def _process(command: Sequence[str], threads: int) -> tuple[float, float, str]:
    """Seconds by the clock and of processors, and the last line of what a process prints."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environment = os.environ | dict(OMP_NUM_THREADS=str(threads))
    # An installed package has its bytecode, which the untimed run writes here.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    clock = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return clock, spent, (done.stdout.strip().splitlines() or [""])[-1]


def _row(
    what: str, threads: int, seconds: Sequence[float], target: float | None, spent: Sequence[float] = ()
) -> dict[str, Any]:
    median = statistics.median(seconds)
    row = dict(what=what, threads=threads, seconds=median, lowest=min(seconds), highest=max(seconds), target=target)
    return row | dict(processor_seconds=statistics.median(spent) if spent else None, per_second=None, n=len(seconds))
