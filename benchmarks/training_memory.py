"""Memory of a training step, measured in a process of its own; prints bytes.

python benchmarks/training_memory.py ours|plain --data FOLDER [--checkpointing]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from training_speed import Loops

from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.runtime import PromptRun

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def step_bytes(side: str, data: Path, checkpointing: bool = False) -> int | None:
    """What a step of one loop takes beside the models, at its peak; None where the system does not tell (not Linux)."""
    if not _RESET.exists():
        return None
    command = [sys.executable, __file__, side, "--data", str(data), *["--checkpointing"] * checkpointing]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "plain"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing (ours alone)")
    options = parser.parse_args()
    loops = Loops(options.data, choose_dtype(None, torch.device("cpu")) if options.side == "ours" else torch.float32)
    if options.checkpointing:
        loops.run = PromptRun(loops.model, loops.run.soft_prompt, recompute=True)
    if options.side == "plain":
        loops.theirs  # noqa: B018 - loaded before what is measured
    else:
        loops.run.past  # noqa: B018 - run before what is measured
    before = _kilobytes("VmRSS")
    _RESET.write_text("5")  # the peak starts anew
    loops.advance(options.side, 2)
    print(1024 * (_kilobytes("VmHWM") - before))


def _kilobytes(name: str) -> int:
    return int(next(line for line in _STATUS.read_text().splitlines() if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
