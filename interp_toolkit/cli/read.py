"""The command `read`: store the residual streams of all prompts of a file, in a folder."""

from __future__ import annotations

import argparse
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.describe import add_parts, parts_options, print_progress, run_job
from interp_toolkit.cli.explain import add_texts
from interp_toolkit.cli.explain_file import add_prompts

_EXAMPLES = """examples:
  interp-toolkit read questions.txt --layers 10 16 --output activations
  interp-toolkit read passages.jsonl --layers 10 --position content --no-chat --output activations
  interp-toolkit describe activations --output descriptions

A run that was stopped goes on when the same command is given again. All of them in memory:
  from interp_toolkit.bulk import load_activations; load_activations("activations").at(10)"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        commands,
        "read",
        "store the hidden states of all prompts of a file, in parts that survive an interruption",
        _EXAMPLES,
        _run,
    )
    add_prompts(parser)
    parser.add_argument("--layers", type=int, nargs="+", required=True, metavar="N", help="read after these blocks")
    add_texts(parser, "by default where the model has a chat template")
    add_parts(parser, 128, "prompts")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.bulk import read_file
    from interp_toolkit.engines import DEFAULT_MODEL

    done = run_job(
        options,
        read_file,
        options.prompts,
        column=options.column,
        model=options.model or DEFAULT_MODEL,
        sites=options.layers,
        positions=options.position,
        chat=False if options.no_chat else None,
        **parts_options(options),
    )
    print_progress(options, done, "prompts")
