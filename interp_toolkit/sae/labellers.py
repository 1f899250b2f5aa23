"""Labellers: from the top activating examples of features to labels for them."""

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
from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Ask, ask_key
from interp_toolkit.sae.distinctive import Background, token_spans, word_labels
from interp_toolkit.sae.label_files import SAELabels

INACTIVE = "the feature is never active"
NO_LABEL = "the labeller returned no label"
QUESTION = (
    "Something in a language model reacts to the words that are marked «like this» in these passages:\n\n{passages}\n\n"
    "What do the marked words, or the passages around them, have in common? Answer with one short phrase of at most "
    "eight words and nothing else."
)
# Features labelled at a time: what an interruption can lose.
_SHARD = 64

LabelFunction = Callable[[pd.DataFrame], str | Sequence[str]]
"""A labeller of the user's: from the top examples of one feature to a label, or several with the best first.

The examples are a table with one row per example, best first, and columns ``text``, ``tokens`` and ``activations``. An
empty text or no label counts as a feature without a label."""


@dataclass(frozen=True)
class Labelled:
    """The labels of one feature.

    Attributes:
        labels: the best first, none twice; none where the labeller failed.
        reason: why there is none.
    """

    labels: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Labeller:
    """A labeller of many features at once, with a name and a cache key; see `from_function` for a simpler one.

    Attributes:
        name: such as ``"distinctive words"``; the labels carry it.
        label: from the top examples of some features, one table per feature (see `LabelFunction`), to the labels of
            each, in the same order.
        key: a text that differs where labels of the same examples may: of the question, the model, every setting.
            Labels that were cached under another key are not used. None: nothing is cached.
    """

    name: str
    label: Callable[[Sequence[pd.DataFrame]], Sequence[Labelled]]
    key: Callable[[], str] | None = lambda: ""

    @classmethod
    def from_function(cls, function: LabelFunction, name: str | None = None, key: str | None = None) -> Labeller:
        """Make a labeller of a function of one feature's examples.

        Args:
            function: from the examples to a label, or several; see `LabelFunction`.
            name: that its labels carry; by default the function's.
            key: a text that differs where the function's labels may, such as its version; None: nothing is cached.

        Example:
            >>> def first_token(examples):
            ...     return examples["tokens"].iloc[0][examples["peak"].iloc[0]]
            >>> label_features(Labeller.from_function(first_token, key="1"), examples.get, range(100), "cache")
        """

        def label(batch: Sequence[pd.DataFrame]) -> list[Labelled]:
            return [_labelled(function(examples)) for examples in batch]

        return cls(
            name or getattr(function, "__name__", type(function).__name__), label, None if key is None else lambda: key
        )


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Labels of many features, and which features have none.

    Attributes:
        labels: with the labeller's name as explainer.
        failed: columns ``feature``, ``reason``.
    """

    labels: SAELabels
    failed: pd.DataFrame


@renamed_arguments(contexts="examples")
def label_features(
    labeller: Labeller | LabelFunction,
    examples: Callable[[int], pd.DataFrame],
    features: Sequence[int],
    folder: str | Path | None = None,
    *,
    progress: bool = False,
) -> LabelledFeatures:
    """Label features by their top activating examples.

    With a folder, every label is cached there, and what is cached is not made again. Features that failed are tried
    again the next time. Other examples, or another name or key of the labeller, are labelled anew; a plain function has
    no key, and its labels are not cached.

    Args:
        labeller: for example `word_labeller` or `llm_labeller`, or a function of one feature's examples
            (`LabelFunction`).
        examples: from a feature's number to its examples, as `TopExamples.get`; without rows for an inactive feature.
        features: numbers, none twice.
        folder: the cache folder.
        progress: whether to show a bar, in features.

    Returns:
        the labels, and the features without a label with the reason. An error of the labeller's is raised.

    Raises:
        InterpToolkitError: a feature twice, or no labels for any.

    Example:
        >>> labelled = label_features(word_labeller(Background.from_texts(passages)), examples.get, range(100))
        >>> labelled.labels.by_feature()[7]
    """
    if len(set(features)) < len(features):
        raise InterpToolkitError("expected each feature once, got some twice")
    if not isinstance(labeller, Labeller):
        labeller = Labeller.from_function(labeller)
    cache = None if folder is None or labeller.key is None else JsonCache("labels", folder)
    labelled: dict[int, Labelled] = {}
    with tqdm(total=len(features), desc="labelling", unit="feature", disable=not progress) as bar:
        for start in range(0, len(features), _SHARD):
            shard = {int(feature): examples(feature) for feature in features[start : start + _SHARD]}
            labelled |= _label_shard(labeller, shard, cache)
            bar.update(len(shard))
    labels = {feature: result.labels for feature, result in labelled.items() if result.labels}
    failed = [(feature, result.reason) for feature, result in labelled.items() if not result.labels]
    if not labels:
        reason = failed[0][1] if failed else "no feature was asked for"
        raise InterpToolkitError(f"none of {len(features)} features got a label; the first: {reason}")
    table = pd.DataFrame(failed, columns=["feature", "reason"])
    return LabelledFeatures(SAELabels.from_dict(labels, labeller.name), table)


def word_labeller(background: Background) -> Labeller:
    """A labeller by the words of the examples, without any other model.

    Up to three labels per feature: the words on which it is most active; these with the words around them, where some
    are distinctive; and the phrase that many of its examples share. Distinctive are words that occur there more often
    than in text at large, see `log_odds`; an active word counts by its activation.

    Args:
        background: counts of text at large, such as random windows or neutral passages.

    Example:
        >>> labeller = word_labeller(Background.from_texts(read_passages("passages.jsonl.gz", "train")["text"]))
    """

    def label(batch: Sequence[pd.DataFrame]) -> list[Labelled]:
        return [Labelled(word_labels(examples, background)) for examples in batch]

    return Labeller("distinctive words", label, lambda: background.digest)


def llm_labeller(ask: Ask, name: str, *, shown: int = 10, question: str = QUESTION) -> Labeller:
    """A labeller by a chat model that is shown the top examples, with the active words marked.

    Args:
        ask: for example `ask_server` or `ask_model`; for a function of your own, whose settings are not known, change
            the name where it answers otherwise.
        name: of the model, which its labels carry.
        shown: number of examples in a prompt.
        question: with ``{passages}`` in it.

    Raises:
        InterpToolkitError: a question without ``{passages}``.

    Example:
        >>> llm_labeller(ask_server("http://localhost:8000/v1", "qwen"), "qwen")
    """
    if "{passages}" not in question:
        raise InterpToolkitError(f"expected a question with {{passages}} in it, got {question!r}")

    def label(batch: Sequence[pd.DataFrame]) -> list[Labelled]:
        lists = [
            "\n".join(f"{i}. {text}" for i, text in enumerate(_marked(examples.head(shown)), 1)) for examples in batch
        ]
        labelled = []
        for answer in ask([question.replace("{passages}", passages) for passages in lists]):
            text = tidy_label(answer.text)
            labelled.append(Labelled((text,)) if text else Labelled((), answer.reason or "the answer holds no label"))
        return labelled

    return Labeller(name, label, lambda: json.dumps([question, shown, ask_key(ask)]))


def tidy_label(answer: str) -> str:
    """The label in a chat model's answer: its first line, without a number, an introduction, quotes and the full stop.

    Example:
        >>> tidy_label('Label: "Names of rivers."')
        'Names of rivers'
    """
    line = next((line for line in answer.splitlines() if any(map(str.isalnum, line))), "")
    # Small models number their answer as the passages are numbered.
    line = re.sub(r"^\W*\d{1,2}[.)]\s+", "", line.strip())
    line = re.sub(r"^\W*(?:label|answer|phrase)\s*:", "", line, flags=re.IGNORECASE)
    # A quote inside would end a description that is written between quotes.
    return " ".join(line.replace('"', "'").split()).strip(" '\u201c\u201d*`.")


def _labelled(labels: str | Sequence[str]) -> Labelled:
    texts = [labels] if isinstance(labels, str) else list(labels)
    unique = tuple(dict.fromkeys(text for text in texts if text.strip()))
    return Labelled(unique, "" if unique else NO_LABEL)


def _label_shard(
    labeller: Labeller, examples: Mapping[int, pd.DataFrame], cache: JsonCache | None
) -> dict[int, Labelled]:
    """Label those of some features that have no cached label; a feature that failed is not cached."""
    labelled = {feature: Labelled((), INACTIVE) for feature, table in examples.items() if table.empty}
    keys: dict[int, Any] = {}
    if cache is not None:
        # Taken once: that of a model is a hash over all of its weights.
        labeller_key = labeller.key() if labeller.key else ""
        keys = {
            feature: _key(labeller.name, labeller_key, feature, table)
            for feature, table in examples.items()
            if not table.empty
        }
        for feature, key in keys.items():
            if (labels := cache.load(key)) is not None:
                labelled[feature] = Labelled(tuple(labels))
    todo = [feature for feature in examples if feature not in labelled]
    results = labeller.label([examples[feature] for feature in todo]) if todo else []
    if len(results) != len(todo):
        raise InterpToolkitError(
            f"expected labels from the labeller {labeller.name!r} for each of {len(todo)} features, got {len(results)}"
        )
    for feature, result in zip(todo, results):
        labelled[feature] = result
        if cache is not None and result.labels:
            cache.save(keys[feature], list(result.labels))
    return {feature: labelled[feature] for feature in examples}


def _key(name: str, labeller_key: str, feature: int, examples: pd.DataFrame) -> list[Any]:
    rows = [
        [text, list(tokens), [round(float(activation), 4) for activation in activations]]
        for text, tokens, activations in zip(examples["text"], examples["tokens"], examples["activations"])
    ]
    return [name, labeller_key, feature, rows]


def _marked(examples: pd.DataFrame) -> list[str]:
    """Examples on one line each, with tokens marked that are at least half as active as the most active one."""
    lines = []
    for text, tokens, activations in zip(examples["text"], examples["tokens"], examples["activations"]):
        half = max(activations) / 2
        spans = [span for span, a in zip(token_spans(text, tokens), activations) if a >= half > 0 and span[0] < span[1]]
        for start, end in reversed(spans):
            text = f"{text[:start]}«{text[start:end]}»{text[end:]}"
        lines.append(" ".join(text.replace("»«", "").split()))
    return lines
