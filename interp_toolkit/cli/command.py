"""What a command is made of: a parser with examples, and the function that runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line with a hint, as the library's are."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"interp-toolkit: error: {' '.join(message.split())}; see {self.prog} --help\n")


def page_path(text: str) -> Path:
    """The path of a page to write, refused before any work where none can be written.

    Raises:
        ArgumentTypeError: a folder, or something else that is no file.
    """
    path = Path(text)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(
            f"expected a file to write, {path} is {'a folder' if path.is_dir() else 'none'}"
        )
    return path


def add_command(
    commands: Any, name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], None] | None = None
) -> argparse.ArgumentParser:
    """A command among others, whose help ends in examples as they are written; a group of commands runs nothing."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
