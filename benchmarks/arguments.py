"""What the benchmarks have in common: their arguments, where their results go, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import DATA
from interp_toolkit import shipped
from interp_toolkit.errors import InterpToolkitError

RESULTS = Path(__file__).parent / "results"
CONFIGS = Path(__file__).parent / "configs"
SHIPPED = Path(shipped.__file__).parent
# Columns of a table for a terminal.
WIDTH = 120


@dataclass(frozen=True)
class Folders:
    """Where a benchmark writes.

    Attributes:
        results: results files.
        runs: trained adapters and whatever else a run can go on from.
    """

    results: Path
    runs: Path

    @classmethod
    def for_run(cls, name: str, limit: int | None, results: Path = RESULTS) -> Folders:
        """The folders of a benchmark; a trial writes below ``runs/``, apart from the committed results.

        Args:
            name: of the benchmark's folder in ``runs`` and, unless it is a trial, in ``results``.
            limit: of a trial, or None.
            results: folder of the results of all benchmarks.
        """
        if limit is None:
            return cls(results / name, Path("runs") / name)
        runs = Path("runs") / name / f"limit-{limit}"
        return cls(runs / "results", runs)


def make_parser(module: str, description: str | None, limit: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all benchmarks take, ``--data`` and ``--limit``.

    Args:
        module: that the command runs: ``"benchmarks.topics"``.
        description: the help's text.
        limit: what ``--limit N`` does.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="FOLDER", help="by default the data that come with the repository"
    )
    parser.add_argument("--limit", type=_at_least_two, metavar="N", help=limit)
    return parser


def run(main: Callable[[], None]) -> None:
    """Run a benchmark: a mistake of its user's is one line, an interruption says how to go on."""
    try:
        main()
    except InterpToolkitError as error:
        sys.exit(f"{Path(sys.argv[0]).parent.name}: {error}")
    except KeyboardInterrupt as interrupt:
        print(interrupt.args[0] if interrupt.args else "interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def _at_least_two(text: str) -> int:
    # One row has no other to be compared with.
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a number of at least 2, got {text}")
    return int(text)
