"""Activations of several features on texts, drawn by circuitsvis."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.tables import escaped, visible
from interp_toolkit.views.frames import need, numbers
from interp_toolkit.views.libraries import CIRCUITSVIS, require_circuitsvis
from interp_toolkit.views.page import View, widget

_COLUMNS = ("text", "position", "token", "feature", "activation")


def activation_view(frame: pd.DataFrame, title: str = "Activations of features") -> View:
    """Colour texts by the activation of a feature that the reader chooses.

    circuitsvis draws it: a single text as its ``ColoredTokensMulti``, several texts as its ``TextNeuronActivations``.

    Args:
        frame: one row per token and feature, for all of them. Required: ``text`` (which text), ``position``,
            ``token``, ``feature`` (a number or a name) and ``activation``.
        title: caption of the view.

    Returns:
        the view.

    Raises:
        InterpToolkitError: circuitsvis is not installed, a column is missing, or a token lacks a feature.
    """
    require_circuitsvis()
    need(frame, _COLUMNS, "activation_view")
    if frame.empty:
        raise InterpToolkitError("activation_view takes a data frame with at least one row, got an empty one")
    features = list(dict.fromkeys(frame["feature"].tolist()))
    tokens, values = [], []
    for _, rows in frame.groupby("text", sort=False):
        text_tokens, text_values = _text(rows, features)
        tokens.append(text_tokens)
        values.append(text_values)
    labels = [visible(str(name))[:60] for name in features]
    if len(tokens) == 1:
        props: dict[str, Any] = dict(tokens=tokens[0], values=values[0], labels=labels)
        data = dict(component="ColoredTokensMulti", props=props)
    else:
        props = dict(
            tokens=tokens,
            activations=[[[row] for row in text] for text in values],
            firstDimensionName="Source",
            secondDimensionName="Feature",
            firstDimensionLabels=["all"],
            secondDimensionLabels=labels,
        )
        data = dict(component="TextNeuronActivations", props=props)
    return View(title, widget("circuits", data, title), frozenset((CIRCUITSVIS,)))


def _text(rows: pd.DataFrame, features: list[Any]) -> tuple[list[str], list[list[float]]]:
    """Return the tokens of a text and their activations, [tokens][features]."""
    token_at = dict(zip(rows["position"].tolist(), rows["token"].tolist()))
    values = numbers(rows["activation"].tolist(), "'activation' of activation_view")
    activation = dict(zip(zip(rows["position"].tolist(), rows["feature"].tolist()), values))
    positions = sorted(token_at)
    for position in positions:
        for feature in features:
            if activation.get((position, feature)) is None:
                raise InterpToolkitError(
                    f"activation_view takes the activation of every feature on every token; position {position} lacks "
                    f"that of feature {feature!r}; write 0 where it is not active"
                )
    # circuitsvis renders tokens as HTML.
    tokens = [escaped(str(token_at[position]), 60) for position in positions]
    return tokens, [[activation[position, feature] or 0.0 for feature in features] for position in positions]
