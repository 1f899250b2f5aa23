"""Agreement of an adapter's descriptions of features with their original labels, the farthest apart first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.confidence import word_overlap
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.scoring.label_scores import best_labels
from interp_toolkit.statistics import Interval, mean_interval, paired_difference, proportion_interval

LABEL, DESCRIPTION, TIE = "label", "description", "tie"
COLUMNS = (
    *("feature", "label", "description", "others", "similarity", "best_similarity", "chance", "overlap"),
    *("evidence", "label_score", "description_score", "winner", "disagreement"),
)
# Some embedding models refuse an empty text: this is embedded in its place.
_EMPTY = "-"


def agreement_table(
    labels: Mapping[int, str | Sequence[str]],
    descriptions: pd.DataFrame,
    embed: Callable[[list[str]], Tensor],
    *,
    scores: pd.DataFrame | None = None,
    score: str = "strict_rate",
    original: str = "original",
    adapter: str = "adapter",
) -> pd.DataFrame:
    """Compare each feature's original label with the adapter's description.

    The description compared is the one with the highest evidence, which is chosen without the label; of several labels
    the first is compared. Where both sources were scored, the higher of their best scores wins.

    Args:
        labels: the original ones, by feature.
        descriptions: columns ``feature``, ``description``, ``evidence`` (NaN for an empty one),
            several rows per feature.
        embed: from texts to their embeddings, [texts, width]; for example `Embedder`.
        scores: of `generation_scores` or `detection_scores`, with both sources in it.
        score: which of their columns.
        original: the source of the labels in ``scores``.
        adapter: that of the descriptions.

    Returns:
        one row per feature that has labels, by falling ``disagreement``, those without a description last: ``feature``,
        ``label``, ``description``, ``others`` (the feature's other descriptions, joined by ``" | "``), ``similarity``
        (cosine of the embeddings of the two shown), ``best_similarity`` (the highest of any label and any description),
        ``chance`` (mean similarity of the label to what is shown for the other features), ``overlap`` (words that both
        have, as a share of those that either has), ``evidence`` (of the description shown, nats per token),
        ``label_score``, ``description_score`` (best of as many tries; NaN where not scored), ``winner`` (``label``,
        ``description``, ``tie``, or empty where not scored), ``disagreement`` (1 less the similarity).

    Raises:
        InterpToolkitError: a column that is missing, no label, or a source that is not in the scores.

    Example:
        >>> table = agreement_table(labels.by_feature(), described, Embedder(), scores=scores)
        >>> table[table.winner == "description"].head(20)
    """
    if missing := [name for name in ("feature", "description", "evidence") if name not in descriptions]:
        raise InterpToolkitError(
            f"expected descriptions with columns feature, description, evidence, and {missing[0]} is missing"
        )
    if not labels:
        raise InterpToolkitError("expected the labels of at least one feature, got none")
    labels_of = {int(feature): [text] if isinstance(text, str) else list(text) for feature, text in labels.items()}
    described = _by_evidence(descriptions)
    texts_of = {feature: [text for _, text in described.get(feature, ())] for feature in labels_of}
    vectors = _embedded([text for group in (labels_of, texts_of) for texts in group.values() for text in texts], embed)
    shown = {feature: vectors[texts[0]] for feature, texts in texts_of.items() if texts}
    total = torch.stack(list(shown.values())).sum(0) if shown else torch.zeros(())
    best_scores = _best_scores(scores, score, original, adapter)
    rows = []
    for feature, feature_labels in labels_of.items():
        pair = [best_scores[source].get(feature, float("nan")) for source in (original, adapter)]
        row: dict[str, Any] = dict(feature=feature, label=feature_labels[0], description="", others="")
        row |= dict(zip(("label_score", "description_score"), pair), winner=_winner(*pair))
        if texts := texts_of[feature]:
            label = vectors[feature_labels[0]]
            similarity = float(label @ shown[feature])
            others = len(shown) - 1
            row |= dict(
                description=texts[0],
                others=" | ".join(texts[1:]),
                similarity=similarity,
                best_similarity=max(float(vectors[one] @ vectors[two]) for one in feature_labels for two in texts),
                chance=float(label @ (total - shown[feature])) / others if others else float("nan"),
                overlap=word_overlap(feature_labels[0], texts[0]),
                evidence=described[feature][0][0],
                disagreement=1 - similarity,
            )
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("disagreement", ascending=False, kind="stable", na_position="last", ignore_index=True)


def agreement_summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise how far descriptions and labels agree over all features, and which of them wins.

    Args:
        table: see `agreement_table`.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high`` (95%), ``n`` (features), ``seed``. Measures: ``similarity``,
        ``chance``, ``similarity less chance``, ``best_similarity``, ``overlap``, and, where both were scored, the
        shares ``description wins``, ``label wins``, ``tie``.

    Raises:
        InterpToolkitError: no feature with a description.
    """
    described = [row for row in table.to_dict("records") if row["similarity"] == row["similarity"]]
    if not described:
        raise InterpToolkitError("expected at least one feature with a label and a description, got none")
    columns = {
        name: [row[name] for row in described] for name in ("similarity", "chance", "best_similarity", "overlap")
    }
    if len(described) == 1:
        del columns["chance"]  # there is no other feature's description
    intervals: dict[str, Interval] = {name: mean_interval(values, seed=seed) for name, values in columns.items()}
    if "chance" in columns:
        intervals["similarity less chance"] = paired_difference(columns["similarity"], columns["chance"], seed=seed)
    winners = [winner for winner in table["winner"] if winner]
    if winners:
        for name, measure in ((DESCRIPTION, "description wins"), (LABEL, "label wins"), (TIE, "tie")):
            intervals[measure] = proportion_interval([winner == name for winner in winners])
    return pd.DataFrame(
        dict(measure=name, value=x.value, low=x.low, high=x.high, n=x.n, seed=seed) for name, x in intervals.items()
    )


def _embedded(texts: Sequence[str], embed: Callable[[list[str]], Tensor]) -> dict[str, Tensor]:
    """Embeddings of length one; no text is embedded twice."""
    unique = list(dict.fromkeys(texts))
    embeddings = embed([text.strip() or _EMPTY for text in unique]).double()
    return dict(zip(unique, torch.nn.functional.normalize(embeddings, dim=-1)))


def _by_evidence(descriptions: pd.DataFrame) -> dict[int, list[tuple[float, str]]]:
    """By feature evidence and text of its descriptions, the highest evidence first, those without evidence last."""
    described: dict[int, list[tuple[float, str]]] = {}
    for row in descriptions.to_dict("records"):
        described.setdefault(int(row["feature"]), []).append((float(row["evidence"]), str(row["description"])))
    for rows in described.values():
        rows.sort(key=lambda row: row[0] if row[0] == row[0] else -math.inf, reverse=True)
    return described


def _best_scores(scores: pd.DataFrame | None, score: str, original: str, adapter: str) -> dict[str, dict[int, float]]:
    if scores is None:
        return {original: {}, adapter: {}}
    best = best_labels(scores, score)
    scores_of = {}
    for source in (original, adapter):
        rows = best[best["source"] == source]
        if rows.empty:
            known = ", ".join(dict.fromkeys(best["source"])) or "none"
            raise InterpToolkitError(f"expected scores of the source {source!r}, got those of {known}")
        scores_of[source] = dict(zip(map(int, rows["feature"]), rows["best"]))
    return scores_of


def _winner(label: float, description: float) -> str:
    if label != label or description != description:
        return ""
    return TIE if label == description else LABEL if label > description else DESCRIPTION
