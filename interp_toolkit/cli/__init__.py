"""The commands: thin faces of the library's functions."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import shtab

from interp_toolkit.cli import evaluate, explain, info, report, sae, train
from interp_toolkit.cli.command import CommandParser, mistake

__all__ = ["main"]

_MANNERS = """exit codes: 0 done; 2 a mistake in what was given, which one line says; 130 interrupted.
Tables go to standard output, bars and errors to standard error.
Completion, here for bash: eval "$(interp-toolkit --print-completion bash)"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    # Loading shows bars and notes of other libraries, which belong to no table.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options = _parser().parse_args(arguments)
        _quiet_libraries()
        options.run(options)
    except KeyboardInterrupt as stop:
        told = str(stop) or "interrupted; the same command goes on from what is done"
        print(f"interp-toolkit: {told}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; nothing more can be said on it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if (text := mistake(error)) is None:
            raise
        print(f"interp-toolkit: error: {' '.join(text.split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="interp-toolkit",
        description="Let a language model say in words what its own hidden states mean.",
        epilog=_MANNERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(parser, help="print a shell's completion script, and do nothing else")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (explain, train, evaluate, sae, report, info):
        command.add(commands)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"interp-toolkit {version('interp-toolkit')}"
    except PackageNotFoundError:
        return f"interp-toolkit (not installed, {Path(__file__).parent.parent})"


def _quiet_libraries() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
