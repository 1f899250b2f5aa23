"""Memory of a training step, measured in a process of its own; prints bytes.

python -m benchmarks.speed.training_memory ours|plain [--checkpointing]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import make_parser
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.training import Loops
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.runtime import PromptRun

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SIDES = {"plain": ["plain"], "ours": ["ours"], "ours, gradient checkpointing": ["ours", "--checkpointing"]}


def measure(data: Path, limit: int | None) -> list[dict[str, Any]]:
    """What a step of each loop takes beside the models, at its peak; None where the system does not say (not Linux)."""
    command = [sys.executable, "-m", "benchmarks.speed.training_memory", "--data", str(data)]
    if limit is not None:
        command += ["--limit", str(limit)]
    rows = []
    for side, options in _SIDES.items():
        output = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
        rows.append(dict(side=side, bytes=int(output) if output.strip() else None))
    return rows


def main() -> None:
    parser = make_parser("benchmarks.speed.training_memory", __doc__, "a trial on N examples per step")
    parser.add_argument("side", choices=["ours", "plain"])
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing (ours alone)")
    options = parser.parse_args()
    if not _RESET.exists():
        return
    dtype = choose_dtype(None, torch.device("cpu")) if options.side == "ours" else torch.float32
    loops = Loops(options.data, Sizes.for_limit(options.limit), dtype)
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
