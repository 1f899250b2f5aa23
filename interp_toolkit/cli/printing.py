"""Print tables: as text, or as JSON or CSV for programs."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def add_shape(parser: argparse.ArgumentParser, rows: str) -> Any:
    """Add the options ``--json`` and ``--csv``, which exclude each other, and return their group."""
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help=f"print JSON, {rows}")
    shape.add_argument("--csv", action="store_true", help="print CSV")
    return shape


def print_tables(options: argparse.Namespace, tables: Mapping[str, pd.DataFrame], note: str = "") -> None:
    """Print tables in the form that the options of `add_shape` choose.

    JSON is one object with a list of rows per title, and null where a number is missing. CSV is one table, with the
    titles in a column ``table`` where there are several.

    Args:
        options: the parsed options of a command, with ``json`` and ``csv``.
        tables: data frames by title.
        note: a line below the text; JSON and CSV leave it out.
    """
    import pandas as pd

    from interp_toolkit.tables import frame_text

    if options.json:
        # to_json writes null where a number is missing; json.dumps would write NaN, which is invalid JSON.
        rows = {
            title: json.loads(table.to_json(orient="records", double_precision=15) or "[]")
            for title, table in tables.items()
        }
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif options.csv:
        whole = pd.concat(dict(tables), names=["table"]).reset_index(level="table")
        shown = whole if len(tables) > 1 else whole.drop(columns="table")
        print(shown.to_csv(index=False), end="")
    else:
        width = shutil.get_terminal_size().columns
        for title, table in tables.items():
            print(f"{title}\n{frame_text(table, width)}\n")
        if note:
            print(note)
