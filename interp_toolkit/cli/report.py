"""The command `report`: show results on one page."""

from __future__ import annotations

import argparse
from typing import Any

from interp_toolkit.cli.command import add_command, page_path

_EXAMPLES = """examples:
  interp-toolkit report evaluations/controls-default.json --html controls.html
  interp-toolkit report runs/first evaluations --html all.html"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "report", "show results on one page that needs no network", _EXAMPLES, _run)
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="results (.json), training logs (log.jsonl), or folders of them"
    )
    parser.add_argument("--html", type=page_path, required=True, metavar="FILE.html", help="the file to write")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.views import results_report

    print(f"written to {results_report(options.results).save(options.html)}")
