"""The command `info`: show an adapter's kind, size and contract."""

from __future__ import annotations

import argparse
import json
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.printing import add_shape

_EXAMPLES = """examples:
  interp-toolkit info smollm2_rank64
  interp-toolkit info ./my-adapter --json"""
# Characters of a list that still fit a terminal.
_LONGEST = 50


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "info", "show an adapter's kind, size and contract", _EXAMPLES, _run)
    parser.add_argument("adapter", metavar="ADAPTER", help="path, hub id or shipped name")
    add_shape(parser, "one object")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.shipped import find_stored

    adapter = find_stored(options.adapter)
    contract = adapter.contract
    facts: dict[str, Any] = {
        "kind": adapter.config.kind,
        "parameters": adapter.parameter_count,
        **{key: value for key, value in adapter.config.to_dict().items() if key != "kind" and value is not None},
        "digest": adapter.digest,
        "contract": contract.to_dict() if contract else None,
        "metadata": adapter.metadata,
    }
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if options.csv:
        import pandas as pd

        print(pd.DataFrame(_flat(facts), columns=["name", "value"]).to_csv(index=False), end="")
        return
    for key, value in _flat(facts):
        print(f"{key:<28} {_short(value)}")


def _flat(facts: dict[str, Any], under: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{under}{key}.")
        else:
            # A prompt holds line breaks, and each row is one line.
            rows.append((under + key, repr(value) if isinstance(value, str) and "\n" in value else value))
    return rows


def _short(value: Any) -> Any:
    """A value that fits a line: of a list of objects, or of many numbers, how long it is."""
    if isinstance(value, list) and len(repr(value)) > _LONGEST:
        return f"{len(value)} entries; --json shows them"
    return value
