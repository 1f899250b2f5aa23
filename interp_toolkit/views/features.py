"""SAE features: original labels beside the model's own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.views.frames import need, numbers, plain
from interp_toolkit.views.page import View, widget

_FEATURE = ("feature", "label")
_DESCRIPTION = ("feature", "description")
_CONTEXT = ("feature", "tokens", "activations")
# Of a context or a description, these are drawn in their own way or say nothing to a reader.
_KNOWN = frozenset((*_FEATURE, *_DESCRIPTION, *_CONTEXT, "evidence", "sample", "token_ids", "text", "seed"))


def feature_view(
    features: pd.DataFrame,
    descriptions: pd.DataFrame | None = None,
    contexts: pd.DataFrame | None = None,
    *,
    title: str = "Features: labels and the model's own words",
) -> View:
    """A page of SAE features: label, descriptions with evidence and scores, and where the feature is active.

    The features that label and descriptions disagree on most come first; the page can be filtered by text and sorted
    by every score.

    Args:
        features: one row a feature. Required: ``feature`` (its number, each once) and ``label`` (a text, several, or
            missing). Optional: ``disagreement`` (the higher, the less label and descriptions agree) or else
            ``agreement`` (the other way round), by which they are sorted; other columns are shown as scores and facts.
            `agreement_table` is such a frame; its ``description``, ``evidence`` and ``others`` are shown unless there
            are ``descriptions``.
        descriptions: one row a description. Required: ``feature``, ``description``. Optional: ``evidence``; other
            columns of numbers are shown as scores.
        contexts: one row a context, in the order they are to be shown, such as `Contexts.of` gives. Required:
            ``feature``, ``tokens`` (texts), ``activations`` (numbers, one a token).
        title: its caption.

    Raises:
        InterpToolkitError: a column is missing, a feature is there twice, or a context's tokens and activations differ
            in number.

    Example:
        >>> labels = pd.DataFrame(dict(feature=[3, 5], label=["cats", "rivers"], disagreement=[0.1, 0.8]))
        >>> said = pd.DataFrame(dict(feature=[3, 5], description=["kittens", "money"], evidence=[2.1, 0.4]))
        >>> feature_view(labels, said).save("features.html")
    """
    need(features, _FEATURE, "feature_view(features)")
    if twice := [one for one, count in Counter(features["feature"].tolist()).items() if count > 1]:
        raise InterpToolkitError(
            f"expected one row a feature in feature_view(features); feature {twice[0]} is there twice"
        )
    if "disagreement" in features:
        features = features.sort_values("disagreement", ascending=False, kind="stable", na_position="last")
    elif "agreement" in features:
        features = features.sort_values("agreement", kind="stable", na_position="last")
    if descriptions is None and "description" in features:
        shown = [name for name in (*_DESCRIPTION, "evidence") if name in features]
        said = _descriptions(features[features["description"].notna()][shown])
    else:
        said = _descriptions(descriptions)
    where = _contexts(contexts)
    known = _KNOWN if descriptions is None else _KNOWN | {"others"}
    scores = [name for name in features if name not in known]
    cards = []
    for row in features.to_dict("records"):
        told = [[str(name), plain(row[name])] for name in scores]
        cards.append(
            dict(
                feature=plain(row["feature"]),
                label=plain(row["label"]),
                scores=[pair for pair in told if pair[1] not in (None, "")],
                descriptions=said.get(row["feature"], []),
                contexts=where.get(row["feature"], []),
            )
        )
    return View(title, widget("features", dict(features=cards), title), height=640)


def _descriptions(frame: Any) -> dict[Any, list[dict[str, Any]]]:
    told: dict[Any, list[dict[str, Any]]] = {}
    if frame is None:
        return told
    need(frame, _DESCRIPTION, "feature_view(descriptions)")
    scores = [name for name in frame if name not in _KNOWN and pd.api.types.is_numeric_dtype(frame[name])]
    for row in frame.to_dict("records"):
        one = [[str(name), plain(row[name])] for name in scores]
        told.setdefault(row["feature"], []).append(
            dict(
                text=plain(row["description"]),
                evidence=plain(row.get("evidence")),
                scores=[pair for pair in one if pair[1] is not None],
            )
        )
    return told


def _contexts(frame: Any) -> dict[Any, list[dict[str, Any]]]:
    told: dict[Any, list[dict[str, Any]]] = {}
    if frame is None:
        return told
    need(frame, _CONTEXT, "feature_view(contexts)")
    for feature, tokens, activations in _rows(frame):
        if len(tokens) != len(activations):
            raise InterpToolkitError(
                f"expected as many activations as tokens in a context of feature {feature}, got {len(activations)} "
                f"and {len(tokens)}"
            )
        values = numbers(activations, "'activations' of feature_view(contexts)")
        told.setdefault(feature, []).append(dict(tokens=[plain(str(x)) for x in tokens], values=values))
    return told


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, Any, Any]]:
    return zip(frame["feature"].tolist(), frame["tokens"].tolist(), frame["activations"].tolist())
