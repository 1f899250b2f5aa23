"""How far the default adapter's descriptions can be trusted: every measurement of `interp-toolkit evaluate`, in turn.

    python -m benchmarks.trust [NAME ...]
    python -m benchmarks.trust dtypes
    python -m benchmarks.trust table

Names are those of `interp-toolkit evaluate`, by default all; docs/evaluation.md says what each measures. Each takes a
quarter of an hour to an hour of one core. `privileged` first fits a Jacobian lens, in about ten minutes. `dtypes`
measures what bfloat16 changes of evidence and thresholds.

It can be interrupted at any time, and the same command goes on: each measurement is one file in
benchmarks/results/trust, and what it describes on the way is in the cache folder. `--limit` takes the first few titles
or prompts, and writes its results below runs/trust/limit-N. `table` prints the results that are there;
`python -m benchmarks.publish` writes them into docs/evaluation.md.
"""

from __future__ import annotations

from benchmarks.arguments import RESULTS, WIDTH, Folders, make_parser, run
from benchmarks.titles import title_context
from benchmarks.trust.dtypes import measure_dtypes
from benchmarks.trust.lens import TEXTS as LENS_TEXTS
from benchmarks.trust.lens import fitted_lens
from benchmarks.trust.table import trust_table
from interp_toolkit.evaluation.driver import EVALUATIONS, run_evaluation
from interp_toolkit.models import model_facts
from interp_toolkit.shipped import default_adapter
from interp_toolkit.tables import frame_text


def main() -> None:
    parser = make_parser("benchmarks.trust", __doc__, "a trial on the first N titles or prompts")
    names = f"dtypes, table, or some of {', '.join(EVALUATIONS)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names}; by default all of these")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - {*EVALUATIONS, "dtypes", "table"}):
        parser.error(f"unknown measurements {', '.join(unknown)}; expected {names}")
    folders = Folders.for_run("trust", options.limit)
    results = folders.results
    if "table" not in options.names:
        context = title_context(options.data, options.limit)
        adapter = default_adapter(model_facts(context.model))
        for name in options.names or EVALUATIONS:
            if name == "dtypes":
                measure_dtypes(context, (RESULTS if options.limit is None else results) / "dtypes.json")
            else:
                if name == "privileged":
                    lens = folders.runs / "jacobian_lens.pt"
                    context.jacobian_lens = fitted_lens(options.data, adapter, lens, options.limit or LENS_TEXTS)
                run_evaluation(name, context, adapter, results / f"{name}.json")
    print(frame_text(trust_table(results), WIDTH))


if __name__ == "__main__":
    run(main)
