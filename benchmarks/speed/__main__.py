"""Speed against straightforward code on the embedded model; prints JSON.

    python -m benchmarks.speed [--only training|storing|describing] [--repeats 5] [--output FILE]

Each comparison alternates the two sides and gives the median of the ratios, with their lowest and highest. Describing
is measured against Hugging Face's `generate`, training against a plain loop, storing activations for an SAE against
its hidden states (see describing.py, training.py and storing.py beside this file). Quiet the machine first: the figures
are worth what the machine was doing. `--output benchmarks/results/speed.json` writes what the README shows.

`--limit N` is a trial on N vectors, passages and training examples per step, with one repeat; its figures mean nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import make_parser, run
from benchmarks.data import PASSAGES, TITLES, need
from benchmarks.speed import describing, storing, training, training_memory
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import matrix_peak, processor
from interp_toolkit.contract import library_versions
from interp_toolkit.models.dtype import choose_dtype, fast_bfloat16
from interp_toolkit.results import make_result, read_result, write_result

_COMPARISONS = ("training", "storing", "describing")


def main() -> None:
    parser = make_parser("benchmarks.speed", __doc__, "a trial on N vectors, passages and examples")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=_COMPARISONS, help="keep what --output holds of the others")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    need(options.data, TITLES, PASSAGES)
    torch.manual_seed(0)
    sizes = Sizes.for_limit(options.limit)
    repeats = options.repeats if options.limit is None else 1
    default = choose_dtype(None, torch.device("cpu"))
    settings = dict(
        machine=dict(
            processor=processor(),
            threads=torch.get_num_threads(),
            fast_bfloat16=fast_bfloat16(torch.device("cpu")),
        ),
        vectors=sizes.vectors,
        new_tokens=describing.NEW_TOKENS,
        batch=sizes.batch,
        seed=0,
        peak_gflops={str(dtype): matrix_peak(dtype) / 1e9 for dtype in dict.fromkeys((torch.float32, default))},
    )
    tables: dict[str, Any] = dict(comparisons=[])
    if options.only and options.output and options.output.exists():
        tables = read_result(options.output)["tables"]
    measured: dict[str, Any] = {}
    wanted = [options.only] if options.only else _COMPARISONS
    if "training" in wanted:
        measured |= training.measure(options.data, sizes, repeats)
        tables["training_growth"] = training.growth(options.data, sizes)
        tables["training_memory"] = training_memory.measure(options.data, options.limit)
    if "storing" in wanted:
        measured |= storing.measure(options.data, sizes, repeats)
    if "describing" in wanted:
        measured |= describing.measure(sizes, repeats)
    # Those that were measured again stay in their places.
    comparisons = {row["comparison"]: row for row in tables["comparisons"]}
    comparisons |= {name: dict(comparison=name, **row) for name, row in measured.items()}
    tables["comparisons"] = list(comparisons.values())
    result = make_result(settings, library_versions(), tables)
    print(json.dumps(result, indent=1))
    if options.output:
        write_result(options.output, result)


if __name__ == "__main__":
    run(main)
