"""How far the default adapter's descriptions can be trusted: every measurement of `interp-toolkit evaluate`, in turn.

    python benchmarks/trust.py [NAME ...] --data ../shared/data [--limit N]
    python benchmarks/trust.py table

Names are those of `interp-toolkit evaluate`, by default all; docs/evaluation.md says what each asks. On one of two
cores while the other is busy: abstention 17 minutes, bias 46, bridges 33, controls 27, knowledge 28, mixtures 40,
round_trip 16.

It can be interrupted at any time, and the same command goes on: each measurement is one file in
benchmarks/results/trust, and what it describes on the way is kept in the cache folder. `--limit` takes the first few
titles or prompts, and keeps its results in runs/trust/limit-N, apart from those of the whole. `table` prints what was
found; `python benchmarks/readme.py` writes it into docs/evaluation.md.

The data: that of docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from scripts import ended, need
from trust_table import trust_table

from interp_toolkit.cli.evaluate import RUNS
from interp_toolkit.evaluation.bench import Bench
from interp_toolkit.models import model_facts
from interp_toolkit.shipped import default_adapter
from interp_toolkit.tables import frame_text

RESULTS = Path(__file__).parent / "results" / "trust"
TITLES = "topics/topics.jsonl.gz"
_WIDTH = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"table, or some of {', '.join(RUNS)}; by default all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds topics and twohop")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on the first N titles or prompts")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - {*RUNS, "table"}):
        parser.error(f"unknown measurements {', '.join(unknown)}; expected table, or some of {', '.join(RUNS)}")
    results = RESULTS if options.limit is None else Path("runs") / "trust" / f"limit-{options.limit}"
    if "table" not in options.names:
        need(parser, options.data, TITLES)
        bench = Bench(options.data / TITLES, options.limit)
        adapter = default_adapter(model_facts(bench.model))
        for name in options.names or RUNS:
            task = importlib.import_module(f"interp_toolkit.evaluation.runs.{name}")
            task.run(bench, adapter, results / f"{name}.json")
    print(frame_text(trust_table(results), _WIDTH))


if __name__ == "__main__":
    ended(main)
