"""The most memory that a job takes, by the number of its vectors, with a stand-in for the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

_DESCRIBE = "from benchmarks.scale.memory import stand_in_job; import sys; stand_in_job(*sys.argv[1:])"
_SIZES = (10_000, 100_000, 1_000_000)
_WIDTH = 576


def measure(folder: Path, vectors: int, repeats: int) -> list[dict[str, Any]]:
    """Megabytes and vectors per second at each size.

    Args:
        folder: for files that are not kept; the largest takes 1.2 GB.
        vectors: of a trial, which takes one small size.
        repeats: of the processes; the greatest figure is taken.
    """
    rows = []
    for size in _SIZES if vectors >= 64 else (vectors,):
        path = folder / f"{size}.npy"
        numbers = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(size, _WIDTH))
        for start in range(0, size, 10_000):
            block = np.random.default_rng(start).standard_normal((min(10_000, size - start), _WIDTH))
            numbers[start : start + 10_000] = block
        numbers.flush()
        del numbers
        peak, seconds = 0.0, 0.0
        for repeat in range(1 if size == _SIZES[-1] else repeats):
            command = [sys.executable, "-c", _DESCRIBE, str(path), str(folder / f"{size}-{repeat}")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            megabytes, seconds = map(float, done.stdout.split())
            peak = max(peak, megabytes)
        path.unlink()
        rows.append(dict(what=f"{size:,} vectors, stand-in model", megabytes=peak, per_second=size / seconds))
    return rows


def stand_in_job(vectors: str, output: str) -> None:
    """Describe a file by an engine that answers at once; print the most megabytes and the seconds.

    Args:
        vectors: the file.
        output: folder of the parts.
    """
    import time

    import torch

    from interp_toolkit.bulk import describe_file
    from interp_toolkit.contract import ModelFacts
    from interp_toolkit.runtime import Generation, Scores
    from interp_toolkit.shipped import find_adapter

    adapter = find_adapter("smollm2_rank64")
    contract = adapter.require_contract()
    probe = contract.probe
    assert probe is not None
    texts = [Generation(f"text {i}", (1, 2), (-1.0, -1.0), "quote", -1.0, 1.0) for i in range(1000)]

    class StandIn:
        facts = ModelFacts(contract.model_id, "", contract.fingerprint, contract.d_model, 30)
        identity, capabilities, device = dict(engine="stand-in"), frozenset(), torch.device("cpu")

        def generate(self, soft_prompt: Any, soft_tokens: torch.Tensor, **_: Any) -> list[list[Generation]]:
            return [[texts[i % 1000]] for i in range(len(soft_tokens))]

        def score(self, *_: Any) -> Scores:
            return Scores(torch.tensor(probe.log_probs), tuple(map(len, probe.texts)) * 2)

    start = time.perf_counter()
    describe_file(vectors, output, model=StandIn(), adapter=adapter)
    seconds = time.perf_counter() - start
    # Not getrusage, whose peak includes that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    print(int(peak) / 1024, seconds)
