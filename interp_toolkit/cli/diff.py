"""The command `diff`: describe what a fine-tune changed in a model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from interp_toolkit.cli.command import add_command, page_path
from interp_toolkit.cli.printing import add_shape, print_tables

_EXAMPLES = """examples:
  interp-toolkit diff smollm2-135m ./my-fine-tune prompts.txt
  interp-toolkit diff smollm2-135m ./my-lora prompts.txt --placebo ./placebo-lora --html difference.html
  interp-toolkit diff org/base org/fine-tune passages.jsonl --column text --no-chat --csv

TUNED is a checkpoint or the folder of a LoRA adapter of peft. None of the prompts should be about what the fine-tune
may have learnt. Rows of controls are differences that mean nothing; the p-value compares with them."""
_SHOWN = ("what", "token", "size", "description", "evidence", "p_value")
_CONTROLS = ("model", "what", "token", "size", "description", "evidence")


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "diff", "describe what a fine-tune changed in a model", _EXAMPLES, _run)
    parser.add_argument("base", metavar="BASE", help="the model before: hub id, folder, or smollm2-135m")
    parser.add_argument("tuned", metavar="TUNED", help="the model after: hub id, folder, or folder of a LoRA adapter")
    parser.add_argument("prompts", metavar="PROMPTS", help="a .txt (one a line), .jsonl, .jsonl.gz or .parquet file")
    parser.add_argument("--column", metavar="NAME", help="that holds the texts; by default prompt, else text")
    parser.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the base")
    parser.add_argument(
        "--placebo",
        action="append",
        default=[],
        metavar="MODEL",
        help="a fine-tune that learnt nothing in particular; may be given several times",
    )
    parser.add_argument("--tokens", type=int, default=10, metavar="N", help="tokens on their own (default 10)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="descriptions of each (default 1, greedy)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling and of the controls (default 0)")
    parser.add_argument("--no-chat", action="store_true", help="read prompts as plain text")
    shape = add_shape(parser, "one object per description")
    shape.add_argument("--html", type=page_path, metavar="FILE.html", help="write one page that needs no network")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.bulk import read_prompts
    from interp_toolkit.difference import describe_difference
    from interp_toolkit.runtime import Sampling

    table = describe_difference(
        options.base,
        options.tuned,
        read_prompts(options.prompts, options.column),
        options.adapter,
        placebos=options.placebo,
        tokens=options.tokens,
        sampling=Sampling(n=options.samples, seed=options.seed),
        chat=False if options.no_chat else None,
        seed=options.seed,
        progress=sys.stderr.isatty(),
    )
    if options.html:
        from interp_toolkit.views import difference_report

        print(f"written to {difference_report(table).save(options.html)}")
        return
    if options.json or options.csv:
        print_tables(options, {"difference": table})
        return
    shown = {
        "differences of the fine-tuned model": table.loc[~table["control"], list(_SHOWN)],
        "controls with the most evidence": table.loc[table["control"], list(_CONTROLS)].head(5),
    }
    note = "" if options.placebo else "no placebo was given: what every fine-tune changes cannot be seen apart"
    print_tables(options, shown, note)
