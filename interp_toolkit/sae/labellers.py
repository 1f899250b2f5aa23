"""Labellers: from the contexts in which a feature is active to labels for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit.cache import JsonCache
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Ask, ask_key
from interp_toolkit.sae.distinctive import Background, token_spans, word_labels
from interp_toolkit.sae.label_files import SAELabels

NEVER_FIRES = "the feature never fires"
QUESTION = (
    "Something in a language model reacts to the words that are marked «like this» in these passages:\n\n{passages}\n\n"
    "What do the marked words, or the passages around them, have in common? Answer with one short phrase of at most "
    "eight words and nothing else."
)
# Features labelled at a time and kept on disk: what an interruption can lose.
_SHARD = 64


@dataclass(frozen=True)
class Labelled:
    """What a labeller made of one feature.

    Attributes:
        labels: the best first, none twice; none where it failed.
        reason: why there is none.
    """

    labels: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Labeller:
    """A way of labelling features, with the name that its labels carry.

    Attributes:
        name: such as ``"distinctive words"``.
        label: from the contexts of each of some features to what it makes of them. Contexts are a frame with a row
            each, best first, and columns ``text``, ``tokens``, ``activations``; none is without rows.
        key: a text that differs where labels of the same contexts may: of the question, the model, every setting.
            Labels that were kept under another key are not taken.
    """

    name: str
    label: Callable[[Sequence[pd.DataFrame]], Sequence[Labelled]]
    key: Callable[[], str] = lambda: ""


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Labels of many features, and which have none.

    Attributes:
        labels: with the labeller's name as explainer.
        failed: columns ``feature``, ``reason``.
    """

    labels: SAELabels
    failed: pd.DataFrame


def label_features(
    labeller: Labeller,
    contexts: Callable[[int], pd.DataFrame],
    features: Sequence[int],
    folder: str | Path | None = None,
    *,
    progress: bool = False,
) -> LabelledFeatures:
    """Label features by their contexts.

    With a folder, labels are kept there shard by shard, and what is there is not made again: an interruption loses one
    shard at most. Features that failed are tried again the next time. Other contexts, another labeller's name or
    another key of it (another question, model or setting) make other files.

    Args:
        labeller: for example `word_labeller` or `asked_labeller`.
        contexts: from a feature's number to its contexts, as `Contexts.of`; without rows where it never fires.
        features: numbers, none twice.
        folder: where to keep labels.
        progress: whether to show a bar, in features.

    Raises:
        InterpToolkitError: a feature twice, or no labels for any.

    Example:
        >>> found = label_features(word_labeller(Background.of(passages)), contexts.of, range(100), "labels")
        >>> found.labels.by_feature()[7]
    """
    if len(set(features)) < len(features):
        raise InterpToolkitError("expected each feature once, got some twice")
    told: dict[int, Labelled] = {}
    with tqdm(total=len(features), desc="labelling", unit="feature", disable=not progress) as bar:
        for start in range(0, len(features), _SHARD):
            shard = {int(feature): contexts(feature) for feature in features[start : start + _SHARD]}
            told |= _label_shard(labeller, shard, None if folder is None else JsonCache("labels", folder))
            bar.update(len(shard))
    labels = {feature: own.labels for feature, own in told.items() if own.labels}
    failed = [(feature, own.reason) for feature, own in told.items() if not own.labels]
    if not labels:
        reason = failed[0][1] if failed else "no feature was asked for"
        raise InterpToolkitError(f"none of {len(features)} features got a label; the first: {reason}")
    return LabelledFeatures(SAELabels.of(labels, labeller.name), pd.DataFrame(failed, columns=["feature", "reason"]))


def word_labeller(background: Background) -> Labeller:
    """Labels from the words themselves, without any other model.

    Up to three labels a feature: the words on which it is most active; these with the words around them, where some are
    distinctive; and the phrase that many of its contexts share. Distinctive are words that stand there more often than
    in text at large, see `log_odds`; an active word counts by its activation.

    Args:
        background: counts of text at large, such as random windows or neutral passages.

    Example:
        >>> labeller = word_labeller(Background.of(read_passages("passages.jsonl.gz", "train")["text"]))
    """

    def label(batch: Sequence[pd.DataFrame]) -> list[Labelled]:
        return [Labelled(word_labels(contexts, background)) for contexts in batch]

    return Labeller("distinctive words", label, lambda: background.digest)


def asked_labeller(ask: Ask, name: str, *, shown: int = 10, question: str = QUESTION) -> Labeller:
    """Labels from a chat model that is shown the best contexts, with the active words marked.

    Args:
        ask: for example `ask_server` or `ask_model`; for a function of your own, which does not say what its answers
            depend on, change the name where it answers otherwise.
        name: of the model, which its labels carry.
        shown: how many contexts.
        question: with ``{passages}`` in it.

    Raises:
        InterpToolkitError: a question without ``{passages}``.

    Example:
        >>> asked_labeller(ask_server("http://localhost:8000/v1", "qwen"), "qwen")
    """
    if "{passages}" not in question:
        raise InterpToolkitError(f"expected a question with {{passages}} in it, got {question!r}")

    def label(batch: Sequence[pd.DataFrame]) -> list[Labelled]:
        lists = ["\n".join(f"{i}. {text}" for i, text in enumerate(_marked(own.head(shown)), 1)) for own in batch]
        prompts = [question.replace("{passages}", passages) for passages in lists]
        told = []
        for answer in ask(prompts):
            text = tidy_label(answer.text)
            told.append(Labelled((text,)) if text else Labelled((), answer.reason or "the answer holds no label"))
        return told

    return Labeller(name, label, lambda: json.dumps([question, shown, ask_key(ask)]))


def tidy_label(answer: str) -> str:
    """The label in a chat model's answer: its first line, without what announces it, quotes and the full stop.

    Example:
        >>> tidy_label('Label: "Names of rivers."')
        'Names of rivers'
    """
    line = next((line for line in answer.splitlines() if any(map(str.isalnum, line))), "")
    line = re.sub(r"^\W*(?:label|answer|phrase)\s*:", "", line.strip(), flags=re.IGNORECASE)
    # A quote inside would end a description that is written between quotes.
    return " ".join(line.replace('"', "'").split()).strip(" '\u201c\u201d*`.")


def _label_shard(
    labeller: Labeller, contexts: Mapping[int, pd.DataFrame], cache: JsonCache | None
) -> dict[int, Labelled]:
    """Label some features, those without a cached label alone; a feature that failed is not cached."""
    labelled = {feature: Labelled((), NEVER_FIRES) for feature, rows in contexts.items() if rows.empty}
    keys: dict[int, Any] = {}
    if cache is not None:
        keys = {feature: _key(labeller, feature, rows) for feature, rows in contexts.items() if not rows.empty}
        for feature, key in keys.items():
            if (labels := cache.load(key)) is not None:
                labelled[feature] = Labelled(tuple(labels))
    todo = [feature for feature in contexts if feature not in labelled]
    results = labeller.label([contexts[feature] for feature in todo]) if todo else []
    if len(results) != len(todo):
        raise InterpToolkitError(
            f"expected something of the labeller {labeller.name!r} for each of {len(todo)} features, got {len(results)}"
        )
    for feature, result in zip(todo, results):
        labelled[feature] = result
        if cache is not None and result.labels:
            cache.save(keys[feature], list(result.labels))
    return {feature: labelled[feature] for feature in contexts}


def _key(labeller: Labeller, feature: int, contexts: pd.DataFrame) -> list[Any]:
    rows = [
        [text, list(tokens), [round(float(activation), 4) for activation in activations]]
        for text, tokens, activations in zip(contexts["text"], contexts["tokens"], contexts["activations"])
    ]
    return [labeller.name, labeller.key(), feature, rows]


def _marked(contexts: pd.DataFrame) -> list[str]:
    """Contexts on one line each, with tokens marked that are at least half as active as the most active one."""
    told = []
    for text, tokens, activations in zip(contexts["text"], contexts["tokens"], contexts["activations"]):
        half = max(activations) / 2
        spans = [span for span, a in zip(token_spans(text, tokens), activations) if a >= half > 0 and span[0] < span[1]]
        for start, end in reversed(spans):
            text = f"{text[:start]}«{text[start:end]}»{text[end:]}"
        told.append(" ".join(text.replace("»«", "").split()))
    return told
