"""Speed against straightforward code on the embedded model; prints JSON.

    python -m benchmarks.speed [--only PART] [--repeats 3] [--output FILE] [--check]

Each comparison alternates the two sides and gives the median of the ratios, with their lowest and highest. Describing
is measured against Hugging Face's `generate`, training against a plain loop, storing activations for an SAE against
its hidden states (see describing.py, training.py and storing.py beside this file): ten minutes of two processors, all
of which are used, a thread each. Four parts are not measured unless they are named: `published`, training and
describing against the settings of the method's published code; `growth`, how training grows with batch, labels and
slots, and its memory; `busy`, what one busy process beside it costs a description; and `waiting`, seconds of commands,
of the import, of loading, of a warm description and of a grid.

First the noise is measured. `--output benchmarks/results/speed.json` writes what the README shows, and adds the ratios
to benchmarks/results/speed_history.jsonl; `--check` compares them with the last on the same kind of machine and fails
where one is lower beyond the spread of both. Both refuse a machine that does other things.

`--limit N` is a trial on N vectors, passages and training examples per step, with one repeat and as many threads
as torch has; its figures mean nothing.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import RESULTS, make_parser, run
from benchmarks.data import PASSAGES, TITLES, need
from benchmarks.speed import busy, describing, storing, training, training_memory, waiting
from benchmarks.speed.history import add_to_history, ratios_of, read_history, slower, with_new
from benchmarks.speed.machine import machine_kind, noise, require_quiet, use_all_processors
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import matrix_peak
from interp_toolkit.contract import library_versions
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.dtype import choose_dtype, fast_bfloat16
from interp_toolkit.results import make_result, read_result, write_result

HISTORY = RESULTS / "speed_history.jsonl"
_COMPARISONS = ("training", "storing", "describing")
_NAMED = _PUBLISHED, _GROWTH, _BUSY, _WAITING = "published", "growth", "busy", "waiting"


def main() -> None:
    parser = make_parser("benchmarks.speed", __doc__, "a trial on N vectors, passages and examples")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=(*_COMPARISONS, *_NAMED), help="keep what --output holds of the others")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="fail where something is slower than in the last run")
    options = parser.parse_args()
    need(options.data, TITLES, PASSAGES)
    torch.manual_seed(0)
    begun = time.perf_counter()
    trial = options.limit is not None
    sizes = Sizes.for_limit(options.limit)
    repeats = 1 if trial else options.repeats
    # Threads of a product wait actively: beside another test all processors would take many times as long.
    threads = torch.get_num_threads() if trial else use_all_processors()
    kind, share = machine_kind(threads), noise()
    if not trial and (options.output or options.check):
        require_quiet(share)
    default = choose_dtype(None, torch.device("cpu"))
    settings: dict[str, Any] = dict(
        machine=dict(processor=kind, threads=threads, fast_bfloat16=fast_bfloat16(torch.device("cpu")), noise=share),
        vectors=sizes.vectors,
        new_tokens=describing.NEW_TOKENS,
        batch=sizes.batch,
        seed=0,
        peak_gflops={str(dtype): matrix_peak(dtype) / 1e9 for dtype in dict.fromkeys((torch.float32, default))},
    )
    tables: dict[str, Any] = {}
    if options.output and options.output.exists():
        tables = read_result(options.output)["tables"]
    measured: dict[str, Any] = {}
    wanted = [options.only] if options.only else _COMPARISONS
    if "training" in wanted:
        measured |= training.measure(options.data, sizes, repeats)
    if "storing" in wanted:
        measured |= storing.measure(options.data, sizes, repeats)
    if "describing" in wanted:
        measured |= describing.measure(sizes, repeats)
    if _PUBLISHED in wanted:
        measured |= training.against_published(options.data, sizes, repeats)
        measured |= describing.against_published(sizes, repeats)
    new: dict[str, Any] = dict(comparisons=[dict(comparison=name, **row) for name, row in measured.items()])
    if _GROWTH in wanted:
        new["training_growth"] = training.growth(options.data, sizes)
        new["training_memory"] = training_memory.measure(options.data, options.limit)
    if _BUSY in wanted:
        new["busy"] = busy.measure(threads, repeats)
    if _WAITING in wanted:
        new["waiting"] = waiting.measure(options.data, threads, repeats)
    tables |= {name: with_new(tables.get(name, []), rows, kind, bool(options.only)) for name, rows in new.items()}
    settings["seconds"] = time.perf_counter() - begun
    result = make_result(settings, library_versions(), tables)
    print(json.dumps(result, indent=1))
    if trial:
        return
    ratios = ratios_of(measured)
    lines = slower(read_history(HISTORY), kind, ratios) if options.check else []
    if options.output:
        write_result(options.output, result)
        if ratios:
            run_of = dict(kind=kind, date=datetime.now(UTC).date().isoformat(), noise=share, ratios=ratios)
            add_to_history(HISTORY, run_of | dict(versions=library_versions()))
    if lines:
        raise InterpToolkitError("slower than in the last run on this kind of machine: " + "; ".join(lines))


if __name__ == "__main__":
    run(main)
