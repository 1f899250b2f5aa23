"""SAE features: labels beside the model's descriptions."""

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
# Columns that have their own place on a card, or that say nothing to a reader.
_KNOWN = frozenset((*_FEATURE, *_DESCRIPTION, *_CONTEXT, "evidence", "sample", "token_ids", "text", "seed"))


def feature_view(
    features: pd.DataFrame,
    descriptions: pd.DataFrame | None = None,
    contexts: pd.DataFrame | None = None,
    *,
    title: str = "Features: labels and the model's own words",
) -> View:
    """Show SAE features as cards: label, descriptions with evidence and scores, and top activating examples.

    Features whose label and descriptions disagree most come first. Readers filter the cards by text and sort them by
    any score.

    Args:
        features: one row per feature. Required: ``feature`` (its number, without repeats) and ``label`` (a text,
            several texts, or missing). Optional: ``disagreement`` (higher where label and descriptions agree less) or
            ``agreement`` (the opposite), which sorts the cards; other columns are shown as scores and facts.
            `agreement_table` returns such a frame; its ``description``, ``evidence`` and ``others`` are shown unless
            ``descriptions`` is given.
        descriptions: one row per description. Required: ``feature``, ``description``. Optional: ``evidence``; other
            columns of numbers are shown as scores.
        contexts: one row per top activating example, in the order of the card. Required: ``feature``, ``tokens``
            (texts), ``activations`` (one number per token).
        title: caption of the view.

    Returns:
        the view.

    Raises:
        InterpToolkitError: a column is missing, a feature is there twice, or the tokens and activations of an example
            differ in number.

    Example:
        >>> labels = pd.DataFrame(dict(feature=[3, 5], label=["cats", "rivers"], disagreement=[0.1, 0.8]))
        >>> descriptions = pd.DataFrame(dict(feature=[3, 5], description=["kittens", "money"], evidence=[2.1, 0.4]))
        >>> feature_view(labels, descriptions).save("features.html")
    """
    need(features, _FEATURE, "feature_view(features)")
    if twice := [one for one, count in Counter(features["feature"].tolist()).items() if count > 1]:
        raise InterpToolkitError(
            f"expected one row per feature in feature_view(features); feature {twice[0]} is there twice"
        )
    if "disagreement" in features:
        features = features.sort_values("disagreement", ascending=False, kind="stable", na_position="last")
    elif "agreement" in features:
        features = features.sort_values("agreement", kind="stable", na_position="last")
    if descriptions is None and "description" in features:
        shown = [name for name in (*_DESCRIPTION, "evidence") if name in features]
        texts = _descriptions(features[features["description"].notna()][shown])
    else:
        texts = _descriptions(descriptions)
    examples = _contexts(contexts)
    known = _KNOWN if descriptions is None else _KNOWN | {"others"}
    scores = [name for name in features if name not in known]
    cards = []
    for row in features.to_dict("records"):
        score_pairs = [[str(name), plain(row[name])] for name in scores]
        cards.append(
            dict(
                feature=plain(row["feature"]),
                label=plain(row["label"]),
                scores=[pair for pair in score_pairs if pair[1] not in (None, "")],
                descriptions=texts.get(row["feature"], []),
                contexts=examples.get(row["feature"], []),
            )
        )
    return View(title, widget("features", dict(features=cards), title), height=640)


def _descriptions(frame: Any) -> dict[Any, list[dict[str, Any]]]:
    by_feature: dict[Any, list[dict[str, Any]]] = {}
    if frame is None:
        return by_feature
    need(frame, _DESCRIPTION, "feature_view(descriptions)")
    scores = [name for name in frame if name not in _KNOWN and pd.api.types.is_numeric_dtype(frame[name])]
    for row in frame.to_dict("records"):
        score_pairs = [[str(name), plain(row[name])] for name in scores]
        by_feature.setdefault(row["feature"], []).append(
            dict(
                text=plain(row["description"]),
                evidence=plain(row.get("evidence")),
                scores=[pair for pair in score_pairs if pair[1] is not None],
            )
        )
    return by_feature


def _contexts(frame: Any) -> dict[Any, list[dict[str, Any]]]:
    by_feature: dict[Any, list[dict[str, Any]]] = {}
    if frame is None:
        return by_feature
    need(frame, _CONTEXT, "feature_view(contexts)")
    for feature, tokens, activations in _rows(frame):
        if len(tokens) != len(activations):
            raise InterpToolkitError(
                f"expected as many activations as tokens in a context of feature {feature}, got {len(activations)} "
                f"and {len(tokens)}"
            )
        values = numbers(activations, "'activations' of feature_view(contexts)")
        by_feature.setdefault(feature, []).append(dict(tokens=[plain(str(x)) for x in tokens], values=values))
    return by_feature


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, Any, Any]]:
    return zip(frame["feature"].tolist(), frame["tokens"].tolist(), frame["activations"].tolist())
