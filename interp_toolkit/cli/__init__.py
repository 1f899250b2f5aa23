"""The command line: each command parses its options, calls one function of the library and prints the result."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import shtab

from interp_toolkit.cli import (
    describe,
    diff,
    evaluate,
    explain,
    explain_file,
    info,
    mcp,
    read,
    report,
    sae,
    serve,
    serve_model,
    train,
)
from interp_toolkit.cli.command import CommandParser, mistake

__all__ = ["main", "run"]

_EPILOG = """exit codes: 0 done; 2 a mistake in the input, stated in one line; 130 interrupted.
Tables go to standard output, progress bars and errors to standard error.
Completion in bash: eval "$(interp-toolkit --print-completion bash)"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 when done, 2 for a mistake in the input, 130 when interrupted."""
    # Other libraries print bars and notes while they load a model.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    # OpenMP reads it when torch is imported. Threads that wait actively take the processor from the one they wait for
    # where another process runs beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
    except KeyboardInterrupt as stop:
        message = str(stop) or "interrupted; the same command continues where it stopped"
        print(f"interp-toolkit: {message}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader closed the pipe. Python would raise again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if (text := mistake(error)) is None:
            raise
        print(f"interp-toolkit: error: {' '.join(text.split())}", file=sys.stderr)
        return 2
    return 0


def run() -> int:
    """`main` in a process that ends with it, and that says in a terminal what it is at."""
    if sys.stderr.isatty():
        notes = logging.getLogger("interp_toolkit")
        notes.addHandler(logging.StreamHandler())
        notes.setLevel(logging.INFO)
    try:
        return main()
    finally:
        # At its end Python looks for garbage among the million objects of what was imported: two seconds for nothing.
        gc.freeze()


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="interp-toolkit",
        description="Let a language model say in words what its own hidden states mean.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(parser, help="print the completion script of a shell and exit")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reading = (explain, explain_file, read, describe)
    for command in (*reading, diff, train, evaluate, sae, report, info, serve, mcp, serve_model):
        command.add(commands)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"interp-toolkit {version('interp-toolkit')}"
    except PackageNotFoundError:
        return f"interp-toolkit (not installed, {Path(__file__).parent.parent})"
