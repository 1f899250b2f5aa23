"""Parsers of commands, and the message for a user's mistake."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# The extra of the package that installs a library.
_EXTRAS = {
    "sae_lens": "sae",
    "httpx": "served",
    "tenacity": "served",
    "ray": "ray",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "mcp": "serve",
    "plotly": "views",
    "circuitsvis": "views",
    "sentence_transformers": "eval",
    "peft": "diff",
}


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the help."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f"interp-toolkit: error: {' '.join(message.split())}; see {self.prog} --help\n")


def page_path(text: str) -> Path:
    """Convert an option to the path of a page, and check before any work that it can be a file.

    Raises:
        ArgumentTypeError: the path is a folder or another thing that is no file.
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
    """Add a command to a parser.

    Args:
        commands: the subparsers of the parser, as ``add_subparsers`` returns them.
        name: the word that calls the command.
        summary: one sentence for the help.
        examples: the end of the help, printed as it is.
        run: the function that runs the command; None for a group of commands.

    Returns:
        the command's parser, to add its options to.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def mistake(error: Exception) -> str | None:
    """Return the message for an error caused by the input or the installation, and None for a bug in this package.

    The library reports damaged files by errors of its own. Errors of other libraries about damaged files that reach
    this place are mistakes in the input too, so they get a message and no traceback.
    """
    import yaml
    from safetensors import SafetensorError

    from interp_toolkit.errors import InterpToolkitError, first_line

    damage = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, yaml.YAMLError)
    if isinstance(error, InterpToolkitError):
        return str(error)
    if isinstance(error, OSError):
        # For example a full disk, or a folder without permission to write.
        return f"{error.strerror or error}: {error.filename or 'no file named'}"
    if isinstance(error, ImportError) and (name := (error.name or "").split(".")[0]) != "interp_toolkit":
        wanted = f"'interp-toolkit[{_EXTRAS[name]}]'" if name in _EXTRAS else name
        return first_line(error) + (f"; pip install -U {wanted}" if name else "")
    if isinstance(error, (*damage, json.JSONDecodeError, UnicodeDecodeError)):
        return f"a file is damaged: {first_line(error)}"
    return None
