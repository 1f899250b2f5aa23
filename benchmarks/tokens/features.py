"""Features of an SAE as questions: whether a description names a word at which its feature peaks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arguments import CONFIGS
from benchmarks.data import need_whole_corpus
from benchmarks.tokens.questions import Questions
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.pairs.phrases import split_words
from interp_toolkit.sae import SAERecipe, sae_vectors
from interp_toolkit.sites import Site

_RECIPE = CONFIGS / "smollm2_sae_layer10.yaml"
# A feature is taken that is active on so many tokens, and of whose first examples so many peak in a content word.
_ACTIVE, _EXAMPLES, _IN_WORDS = 50, 10, 3
# Features that a confidence is fitted on; as many others measure it.
_FITTED = 500


def feature_questions(context: EvalContext, data: Path) -> list[Questions]:
    """Features of an SAE at a site that the adapter for any token reads alone, which is trained here if it is not yet.

    A description is right that names the word in which one of the feature's ten top activating examples peaks.

    Args:
        context: with the model.
        data: folder of the data.

    Returns:
        those on which a confidence is fitted, and others.

    Raises:
        InterpToolkitError: the data are the sample that comes with the repository.
    """
    need_whole_corpus(data)
    recipe = SAERecipe.read(_RECIPE)
    result = recipe.run(data, context.model, progress=context.progress)
    examples = result.top_examples
    active = examples.features.loc[examples.features["active_tokens"] >= _ACTIVE, "feature"].tolist()
    random.Random(SEED).shuffle(active)
    chosen, words = [], []
    for feature in active:
        at_peaks = peak_words(examples.get(feature, _EXAMPLES))
        if len(at_peaks) >= _IN_WORDS:
            chosen.append(feature)
            words.append(tuple(dict.fromkeys(at_peaks)))
        if len(chosen) == 2 * _FITTED:
            break
    vectors = sae_vectors(result.sae, chosen).vectors
    site = Site.parse(recipe.site)
    return [
        Questions("direction", vectors[part], words=words[part], site=site)
        for part in (slice(_FITTED), slice(_FITTED, None))
    ]


def peak_words(examples: pd.DataFrame) -> list[str]:
    """The content word in which each top activating example peaks, where there is one."""
    peaks: Any = zip(examples["tokens"], examples["peak"])
    return [word for tokens, peak in peaks if (word := _word_at(tokens, peak))]


def _word_at(tokens: Sequence[str], peak: int) -> str:
    """The content word that a token is part of; empty where it is of none."""
    text, ends = "".join(tokens), list(accumulate(map(len, tokens)))
    start, end = ends[peak] - len(tokens[peak].lstrip()), ends[peak]
    inside = (word for word in split_words(text) if word.is_content and word.start < end and start < word.end)
    return next((word.text for word in inside), "")
