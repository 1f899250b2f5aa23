"""The command that measures how far an adapter can be trusted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.printing import add_shape, print_tables

_EXAMPLES = """examples:
  interp-toolkit evaluate abstention --data ~/data --limit 50
  interp-toolkit evaluate controls --adapter ./my-adapter --data ~/data
What is done is kept: a run that was stopped goes on by the same command. See docs/evaluation.md for the data."""
RUNS = ("abstention", "bias", "bridges", "controls", "knowledge", "mixtures", "round_trip")


def add(commands: Any) -> None:
    """Add the command to others."""
    parser = add_command(commands, "evaluate", "measure how far an adapter can be trusted", _EXAMPLES, _run)
    parser.add_argument("name", metavar="NAME", choices=RUNS, help=", ".join(RUNS))
    parser.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    parser.add_argument("--model", default="smollm2-135m", help="hub id, folder, or smollm2-135m (the default)")
    parser.add_argument("--data", type=Path, default=Path("."), metavar="FOLDER", help="holds topics/topics.jsonl.gz")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on the first N titles or prompts")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="by default evaluations/NAME-ADAPTER.json")
    add_shape(parser, "a list of rows for each table")


def _run(options: argparse.Namespace) -> None:
    import importlib

    import pandas as pd

    from interp_toolkit.evaluation.bench import Bench
    from interp_toolkit.models import model_facts
    from interp_toolkit.shipped import default_adapter, find_adapter

    bench = Bench(
        options.data / "topics" / "topics.jsonl.gz", options.limit, options.model, progress=sys.stderr.isatty()
    )
    adapter = find_adapter(options.adapter) if options.adapter else default_adapter(model_facts(bench.model))
    trial = f"-limit-{options.limit}" if options.limit else ""
    named = Path(options.adapter or "default").name
    output = options.output or Path("evaluations") / f"{options.name}-{named}{trial}.json"
    told = importlib.import_module(f"interp_toolkit.evaluation.runs.{options.name}").run(bench, adapter, output)
    tables = {name: pd.DataFrame(rows) for name, rows in told["tables"].items()}
    print_tables(options, tables, f"written to {output}")
