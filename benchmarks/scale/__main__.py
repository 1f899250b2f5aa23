"""What bulk work, several processes and vLLM cost or gain on the embedded model; ratios within one run.

    python -m benchmarks.scale [bulk] [processes] [training] [memory] [vllm] [--repeats 3] [--output FILE]

`bulk` holds a file described in parts against `generate` alone on the same soft tokens. `processes` describes one file
by one process and by two, of one thread each; `training` trains as many steps by one process and by two. `memory`
describes 10,000 to 1,000,000 vectors by a stand-in for the model, which answers at once, and reads the most memory that
the process took. `vllm` holds `VllmEngine` against plain vLLM on as many tokens, and against a hooked model; it takes
an environment with vLLM (see `make test-vllm`), and by default it is left out. All others take 25 minutes.

`--output benchmarks/results/scale.json` writes what docs/how-to/speed.md shows, and keeps what it holds of the others;
it refuses a machine that does other things. `--limit N` is a trial on N vectors; its figures mean nothing.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.arguments import make_parser, run
from benchmarks.scale import bulk, memory, processes, vllm_side
from benchmarks.speed.machine import machine_kind, noise, require_quiet, use_all_processors
from interp_toolkit.contract import library_versions
from interp_toolkit.results import make_result, read_result, write_result

PARTS = {
    "bulk": bulk.measure,
    "processes": processes.describing,
    "training": processes.training,
    "memory": memory.measure,
    "vllm": vllm_side.measure,
}
_DEFAULT = ("bulk", "processes", "training", "memory")


def main() -> None:
    parser = make_parser("benchmarks.scale", __doc__, "a trial on N vectors")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all but vllm")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown parts {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    trial = options.limit is not None
    threads = use_all_processors()
    kind = machine_kind(threads)
    if options.output and not trial:
        require_quiet(noise())
    tables: dict[str, Any] = {}
    if options.output and options.output.exists():
        tables = read_result(options.output)["tables"]
    settings = dict(machine=kind, threads=threads, seed=0)
    for name in options.parts or _DEFAULT:
        with tempfile.TemporaryDirectory() as folder:
            rows = PARTS[name](Path(folder), options.limit or 512, 1 if trial else options.repeats)
        tables[name] = [dict(row, machine=kind) for row in rows]
        print(json.dumps(tables[name], indent=1), flush=True)
        if options.output and not trial:  # after each part, since all of them take long
            write_result(options.output, make_result(settings, library_versions(), tables))


if __name__ == "__main__":
    run(main)
