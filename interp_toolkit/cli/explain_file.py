"""The command `explain-file`: describe the hidden states of all prompts of a file, into a folder."""

from __future__ import annotations

import argparse
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.describe import add_job, job_options, print_progress, run_job
from interp_toolkit.cli.explain import add_reading

_EXAMPLES = """examples:
  interp-toolkit explain-file questions.txt --output explained
  interp-toolkit explain-file passages.jsonl --column text --position content --no-chat --output explained
  interp-toolkit explain-file questions.parquet --output explained --shard 0/2   (and 1/2 beside it)

A run that was stopped goes on when the same command is given again. All descriptions as one data frame:
  from interp_toolkit.bulk import read_descriptions; read_descriptions("explained")"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        commands,
        "explain-file",
        "describe all prompts of a file, in parts that survive an interruption",
        _EXAMPLES,
        _run,
    )
    add_prompts(parser)
    add_reading(parser)
    add_job(parser)


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a file of prompts, and the model that reads them.

    Args:
        parser: of the command.
    """
    parser.add_argument("prompts", metavar="PROMPTS", help="a .txt (one a line), .jsonl, .jsonl.gz or .parquet file")
    parser.add_argument("--model", help="hub id, folder, or smollm2-135m (the default)")
    parser.add_argument("--column", metavar="NAME", help="that holds the texts; by default prompt, else text")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.bulk import explain_file

    done = run_job(
        options,
        explain_file,
        options.prompts,
        column=options.column,
        sites=options.layer,
        positions=options.position,
        chat=False if options.no_chat else None,
        **job_options(options),
    )
    print_progress(options, done, "prompts")
