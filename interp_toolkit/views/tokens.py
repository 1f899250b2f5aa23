"""Texts with their tokens coloured, and the descriptions of each token."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.views.frames import need, numbers, plain
from interp_toolkit.views.page import View, widget


def token_view(
    frame: pd.DataFrame, *, value: str = "evidence", title: str = "What the model says of each token"
) -> View:
    """Show texts with their tokens coloured by a value, and the description of each token's vector below it.

    Where a token has several descriptions, the one with the highest value stands below it and colours it; the others
    appear for the token under the pointer or the keyboard focus. `Grid.cells` is such a frame.

    Args:
        frame: one row per token, or one row per description of a token. Required: ``position`` (in the text), ``token``
            and the column that ``value`` names. Optional: ``description``; ``prompt`` or ``source`` (which text;
            readers choose one of several); ``site`` (likewise).
        value: the column that colours: ``evidence``, ``activation``, ...; missing values have no colour.
        title: caption of the view.

    Returns:
        the view.

    Raises:
        InterpToolkitError: a column is missing, or the frame is empty.

    Example:
        >>> token_view(describe_grid(model, ["The capital of Poland is"], adapter).cells)
    """
    need(frame, ("position", "token", value), "token_view")
    if frame.empty:
        raise InterpToolkitError("token_view takes a data frame with at least one row, got an empty one")
    frame = frame.assign(_value=numbers(frame[value].tolist(), f"{value!r} of token_view"))
    by = next((name for name in ("prompt", "source") if name in frame), None)
    texts = [(None, frame)] if by is None else list(frame.groupby(by, sort=False))
    data = dict(
        value=value,
        texts=[
            dict(
                name=_name(by, key),
                layers=[dict(name=str(site or ""), tokens=_tokens(rows)) for site, rows in _sites(x)],
            )
            for key, x in texts
        ],
    )
    return View(title, widget("tokens", data, title))


def _name(by: str | None, key: Any) -> str:
    return "" if by is None else plain(key[:200]) if isinstance(key, str) else f"prompt {key}"


def _sites(frame: pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    return list(frame.groupby("site", sort=False)) if "site" in frame else [(None, frame)]


def _tokens(frame: pd.DataFrame) -> list[dict[str, Any]]:
    tokens = []
    for _, rows in frame.groupby("position"):
        best = rows.sort_values("_value", ascending=False, kind="stable")
        values = [None if x != x else x for x in best["_value"].tolist()]
        notes = [[plain(x), v] for x, v in zip(best["description"].tolist(), values)] if "description" in best else []
        token = str(best["token"].iloc[0])
        tokens.append(dict(text=plain(token), breaks=token.endswith("\n"), value=values[0], notes=notes))
    return tokens
