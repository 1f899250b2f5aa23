"""What the scripts beside this file have in common: their data, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from interp_toolkit.errors import InterpToolkitError


def need(parser: argparse.ArgumentParser, folder: Path, *files: str) -> None:
    """Ends with a usage error where a file of the data is missing."""
    for file in files:
        if not (folder / file).exists():
            parser.error(f"no {file} in {folder}; name its folder with --data (see --help)")


def ended(main: Callable[[], None]) -> None:
    """Runs a script: a mistake of its user's is one line, an interruption says how to go on."""
    try:
        main()
    except InterpToolkitError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt as interrupted:
        print(interrupted.args[0] if interrupted.args else "interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
