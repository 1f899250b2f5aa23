"""Of the labels that several sources have for a feature the one that fits texts best, measured on other texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.scoring.detection import Examples, Judge, detection_scores
from interp_toolkit.scoring.label_sources import label_rows

_COLUMNS = ["feature", "label", "source", "auroc", "choosing_auroc", "sources"]


def merge_labels(
    sources: Mapping[str, Mapping[int, str]], examples: Mapping[int, Examples], judge: Judge
) -> pd.DataFrame:
    """Choose for each feature the label that best tells texts in which it is active from others.

    One half of a feature's texts chooses, and the other measures what was chosen, so that luck in choosing does not
    count. Where texts cannot choose, the first source that has a label is taken.

    Args:
        sources: by name of a source a label for each of some features; of equals the one of the earlier source is
            taken, so name the most trusted first.
        examples: texts of features, see `read_examples`; those that labels were made from favour these labels.
        judge: as of `detection_scores`.

    Returns:
        one row for each feature with a label, in order: ``feature``, ``label``, ``source``; ``auroc`` on the half that
        measures and ``choosing_auroc`` on the half that chose (chance 0.5; NaN without texts); ``sources``, how many
        have a label.

    Raises:
        InterpToolkitError: no label at all, another number of judgements than of pairs, or scikit-learn is missing.

    Example:
        >>> merge_labels({"description": described, "words": words}, examples, embedding_judge(Embedder()))
    """
    filled = {
        name: {int(f): text.strip() for f, text in labels.items() if text.strip()} for name, labels in sources.items()
    }
    features = sorted({feature for labels in filled.values() for feature in labels})
    if not features:
        raise InterpToolkitError("expected a label of at least one feature, got none")
    # A source without a label for a feature has an empty one there, which is never chosen.
    rows = pd.concat(
        [label_rows(name, {f: labels.get(f, "") for f in features}) for name, labels in filled.items()],
        ignore_index=True,
    )
    halves = []
    for first in (0, 1):
        texts = {f: examples.get(f, Examples((), ())) for f in features}
        half = {f: Examples(x.active[first::2], x.inactive[first::2]) for f, x in texts.items()}
        halves.append(detection_scores(rows, half, judge)["auroc"])
    scored: Any = rows.assign(choosing_auroc=halves[0], auroc=halves[1])
    scored = scored[scored["label"] != ""]
    counts = scored.groupby("feature").size()
    # Stable: of equals, and of those without a score, the first source.
    best = scored.sort_values("choosing_auroc", ascending=False, kind="stable", na_position="last")
    best = best.drop_duplicates("feature").sort_values("feature", ignore_index=True)
    return best.assign(sources=best["feature"].map(counts))[_COLUMNS]
