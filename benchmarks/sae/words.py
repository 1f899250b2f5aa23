"""Original labels: distinctive words of every second top activating example of a feature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interp_toolkit.cache import cache_folder
from interp_toolkit.sae import (
    Background,
    SAELabels,
    SAERecipe,
    TopExamples,
    label_features,
    read_passages,
    word_labeller,
)
from interp_toolkit.sae.labellers import LabelledFeatures

# Passages whose words are text at large for the labeller.
_PASSAGES = 1000


def text_at_large(recipe: SAERecipe, data: Path) -> Background:
    """What words are distinctive against."""
    return Background.from_texts(read_passages(data / recipe.passages, "train", _PASSAGES)["text"])


def word_labels(background: Background, contexts: TopExamples, features: Sequence[int]) -> LabelledFeatures:
    """Labels of these features, kept in the cache folder; the contexts between are left for detection."""
    return label_features(
        word_labeller(background),
        lambda feature: contexts.get(feature).iloc[::2],
        features,
        cache_folder(),
        progress=True,
    )


def first_labels(labels: SAELabels) -> dict[int, str]:
    """Each labelled feature's first label."""
    return {feature: texts[0] for feature, texts in labels.by_feature().items()}
