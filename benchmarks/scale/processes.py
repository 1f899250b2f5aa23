"""One process of one thread against two."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import DATA, TITLES
from benchmarks.scale.bulk import random_directions
from interp_toolkit.shipped import find_adapter

_ADAPTER = "smollm2_rank64"
# Loads the model and says so; then waits for a line.
_DESCRIBE = f"""
import sys, time
from interp_toolkit import load_model
from interp_toolkit.bulk import describe_file
model = load_model("smollm2-135m")
vectors, output, rows = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
start = time.time()
describe_file(vectors, output, model=model, adapter={_ADAPTER!r}, rows_per_part=int(rows))
print(start, time.time(), flush=True)
"""
_TRAIN = """
import json, sys
from interp_toolkit import Adapter, TrainConfig, load_model, read_topics, topic_pairs, train_adapter
titles, folder, steps = sys.argv[1:]
model = load_model("smollm2-135m")
pairs = topic_pairs(model, read_topics(titles).titles[:512], 23, val_fraction=0.1)
config = TrainConfig(batch_size=32, max_steps=int(steps), eval_every=int(steps), val_examples=8, log_samples=0)
train_adapter(model, pairs, Adapter.create("scalar_affine", 576, init_scale=5.0), config, folder=folder)
"""


def describing(folder: Path, vectors: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds in which one process describes a file, and two do, from the moment at which both are ready.

    Args:
        folder: for files that are not kept.
        vectors: to describe.
        repeats: of both sides.
    """
    values = random_directions(2 * vectors, find_adapter(_ADAPTER).config.width)
    np.save(folder / "vectors.npy", values)
    sides: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(repeats):
        for count in sides:
            sides[count].append(_seconds(folder, f"{repeat}-{count}", count, max(1, vectors // 8)))
    return [_row("describing by two processes of one thread", "at least 1.8", sides, vectors=2 * vectors)]


def training(folder: Path, vectors: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of a step by one process and by two that torchrun starts, by the log; the first steps are left out.

    Args:
        folder: for files that are not kept.
        vectors: of a trial, which takes few steps.
        repeats: of both sides.
    """
    steps = 12 if vectors >= 64 else 3
    (folder / "train.py").write_text(_TRAIN, encoding="utf-8")
    sides: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(repeats):
        for count in sides:
            run = folder / f"run-{repeat}-{count}"
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
            command = [sys.executable, *launch, str(folder / "train.py"), str(DATA / TITLES), str(run), str(steps)]
            subprocess.run(command, env=_one_thread(), check=True, stdout=subprocess.DEVNULL)
            events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            speeds = [event["pairs_per_second"] for event in events if event["event"] == "step"]
            sides[count].append(statistics.median(32 / speed for speed in speeds[min(2, len(speeds) - 1) :]))
    return [_row("a training step by two processes of one thread", "at least 1.7", sides, steps=steps)]


def _seconds(folder: Path, name: str, count: int, rows_per_part: int) -> float:
    """From the moment at which all processes are ready until the last is done."""
    processes = []
    for number in range(count):
        arguments = [str(folder / "vectors.npy"), str(folder / name), str(rows_per_part)]
        command = [sys.executable, "-c", _DESCRIBE, *arguments]
        environment = _one_thread() | dict(RANK=str(number), WORLD_SIZE=str(count))
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    times = [[float(x) for x in process.communicate()[0].split()] for process in processes]
    return max(end for _, end in times) - min(start for start, _ in times)


def _one_thread() -> dict[str, str]:
    return dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


def _row(what: str, target: str, sides: dict[int, list[float]], **more: Any) -> dict[str, Any]:
    ratios = [one / two for one, two in zip(sides[1], sides[2])]
    spread = dict(ratio=statistics.median(ratios), lowest=min(ratios), highest=max(ratios), repeats=len(ratios))
    return dict(what=what, target=target, **more, **spread, slow_seconds=sides[1], fast_seconds=sides[2])
