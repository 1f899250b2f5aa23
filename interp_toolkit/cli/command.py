"""What a command is made of: a parser with examples, and the function that runs it."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# The extra of the package that a library comes with.
_EXTRAS = {
    "sae_lens": "sae",
    "httpx": "sae",
    "plotly": "views",
    "circuitsvis": "views",
    "sentence_transformers": "eval",
}


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


def mistake(error: Exception) -> str | None:
    """What to say of an error that comes from what was given or installed; None of a fault of this package.

    Other libraries' errors about damaged files should have become the library's own where the file was read; those that
    did not are still no reason for a traceback.
    """
    import yaml
    from safetensors import SafetensorError

    from interp_toolkit.errors import InterpToolkitError, first_line

    damage = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, yaml.YAMLError)
    if isinstance(error, InterpToolkitError):
        return str(error)
    if isinstance(error, OSError):
        # A full disk, a folder that may not be written: what the system says is all there is to say.
        return f"{error.strerror or error}: {error.filename or 'no file named'}"
    if isinstance(error, ImportError) and (name := (error.name or "").split(".")[0]) != "interp_toolkit":
        wanted = f"'interp-toolkit[{_EXTRAS[name]}]'" if name in _EXTRAS else name
        return first_line(error) + (f"; pip install -U {wanted}" if name else "")
    if isinstance(error, (*damage, json.JSONDecodeError, UnicodeDecodeError)):
        return f"a file is damaged: {first_line(error)}"
    return None
