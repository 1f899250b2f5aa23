"""The command that measures how far an adapter can be trusted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.printing import add_shape, print_tables
from interp_toolkit.evaluation.names import EVALUATIONS, OLD_NAMES

if TYPE_CHECKING:
    from interp_toolkit.evaluation.context import QuestionFile

_EXAMPLES = """examples:
  interp-toolkit evaluate selective_prediction --data ~/data --limit 50
  interp-toolkit evaluate controls --adapter ./my-adapter --data ~/data
Finished work is cached: the same command goes on where it was stopped. See docs/evaluation.md for the data."""
# What the folder of --data holds.
TITLES = Path("topics") / "topics.jsonl.gz"


def add(commands: Any) -> None:
    """Add the command to others."""
    parser = add_command(commands, "evaluate", "measure how far an adapter can be trusted", _EXAMPLES, _run)
    names = (*EVALUATIONS, *OLD_NAMES)
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(EVALUATIONS))
    parser.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    parser.add_argument("--model", default="smollm2-135m", help="hub id, folder, or smollm2-135m (the default)")
    parser.add_argument("--engine", metavar="URL", help="vLLM server that describes and scores; --model still reads")
    parser.add_argument("--data", type=Path, default=Path("."), metavar="FOLDER", help=f"holds {TITLES}")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on the first N titles or prompts")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="by default evaluations/NAME-ADAPTER.json")
    add_shape(parser, "a list of rows for each table")


def question_files(data: Path) -> list[QuestionFile]:
    """The files of two-hop questions in a folder of data, see docs/evaluation.md."""
    from interp_toolkit.evaluation.context import QuestionFile

    composed, mquake = (data / "twohop" / f"{name}.jsonl.gz" for name in ("composed_twohop", "mquake_2hop_creme"))
    aliases = data / "topics" / "wikidata_fb15k_entities.jsonl.gz"
    return [
        # Settings are chosen on the larger file; the smaller one comes without further names of its entities.
        QuestionFile("composed", composed, candidates=3400, tuned=True),
        QuestionFile("mquake", mquake, candidates=200, aliases=aliases),
    ]


def _run(options: argparse.Namespace) -> None:
    import pandas as pd

    from interp_toolkit.engines import ServedEngine
    from interp_toolkit.evaluation import EvalContext, run_evaluation
    from interp_toolkit.models import model_facts
    from interp_toolkit.shipped import default_adapter, find_adapter

    context = EvalContext(
        options.data / TITLES,
        options.limit,
        options.model,
        questions=question_files(options.data),
        engine=ServedEngine(options.engine, options.model) if options.engine else None,
        progress=sys.stderr.isatty(),
    )
    adapter = find_adapter(options.adapter) if options.adapter else default_adapter(model_facts(context.model))
    trial = f"-limit-{options.limit}" if options.limit else ""
    label = Path(options.adapter or "default").name
    output = options.output or Path("evaluations") / f"{options.name}-{label}{trial}.json"
    result = run_evaluation(options.name, context, adapter, output)
    tables = {name: pd.DataFrame(rows) for name, rows in result["tables"].items()}
    print_tables(options, tables, f"written to {output}")
