"""What a server of the embedded model gives many clients at once: rates, waits, answers, memory; and what it survives.

    python -m benchmarks.serve [load] [first] [faults] [soak] [--minutes 20] [--output FILE]

`load` sends the same requests by 1, 8 and 32 clients, of two kinds: one token of a short text each, and a mix of single
tokens, whole sentences and whole paragraphs. Every answer is compared with that of `self_explain` in this process, in
float32. `first` waits for the first and for all descriptions of texts of 30 tokens. `faults` sends 1,000 random bodies,
clients that leave in the middle, bodies that come half, and readers that do not read. `soak` sends the mix for some
minutes and reads the server's memory. Together about 35 minutes.

`--output benchmarks/results/serve.json` writes what docs/how-to/explore.md shows, and keeps what it holds of the
others; it refuses a machine that does other things. `--limit N` is a trial on N requests; its figures mean nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import make_parser, run
from benchmarks.data import PASSAGES, need
from benchmarks.serve import faults, load, soak
from benchmarks.serve.requests import SEED
from benchmarks.speed.machine import machine_kind, noise, require_quiet, use_all_processors
from interp_toolkit.contract import library_versions
from interp_toolkit.results import make_result, read_result, write_result

PARTS = ("load", "first", "faults", "soak")


def main() -> None:
    parser = make_parser("benchmarks.serve", __doc__, "a trial on N requests")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak (default 20)")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown parts {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    need(options.data, PASSAGES)
    output: Path | None = None if options.limit is not None else options.output
    threads = use_all_processors()
    kind = machine_kind(threads)
    if output:
        require_quiet(noise())
    tables: dict[str, Any] = {}
    if output and output.exists():
        tables = read_result(output)["tables"]
    settings = dict(threads=threads, seed=SEED, model="smollm2-135m")
    measures = dict(
        load=load.measure,
        first=load.measure_first,
        faults=faults.measure,
        soak=partial(soak.measure, minutes=options.minutes),
    )
    for name in options.parts or PARTS:
        rows = measures[name](options.data, options.limit)
        tables[name] = [dict(row, machine=kind) for row in rows]
        if output:  # after each part, since all of them take long
            write_result(output, make_result(settings, library_versions(), tables))


if __name__ == "__main__":
    run(main)
