"""Rows of a results file that belong together, as one row of a published table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from interp_toolkit.results import Row


def grouped(rows: Iterable[Row], columns: Sequence[str], name: Callable[[Row], Any]) -> list[dict[Any, Any]]:
    """One row for all that agree in some columns, with each of them under its name.

    Args:
        rows: in the order in which groups are wanted.
        columns: in which the rows of a group agree.
        name: of a row within its group.
    """
    groups: dict[tuple[Any, ...], dict[Any, Any]] = {}
    for row in rows:
        agreed = {column: row[column] for column in columns}
        groups.setdefault(tuple(agreed.values()), agreed)[name(row)] = row
    return list(groups.values())
