"""Labels of features by their source, equally many per source: what generation and detection scoring compare."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Ask
from interp_toolkit.sae.labellers import tidy_label

TRIES = 6
REWORD = (
    "Say the following in {count} other ways, each on a line of its own, as short as it is, and write nothing else:\n"
    "{label}"
)
# A frame adds nothing to the label and takes nothing from it.
_FRAMES = (
    "{}",
    "text about {}",
    "something with {} in it",
    "an example of {}",
    "the topic of {}",
    "a passage in which {} matters",
    "a mention of {}",
    "{} as the main subject",
)


class LabelRow(NamedTuple):
    """A label of a feature.

    Attributes:
        source: where it comes from.
        feature: the feature's number.
        number: from 0, within source and feature.
        label: without spaces around it.
    """

    source: str
    feature: int
    number: int
    label: str


def label_rows(source: str, labels: Mapping[int, str | Sequence[str]]) -> pd.DataFrame:
    """Labels of some features from one source, to be joined with those of other sources by ``pandas.concat``.

    Args:
        source: such as ``"adapter"`` or ``"original"``.
        labels: for each feature its labels, as many for one as for another.

    Returns:
        one row per label: ``source``, ``feature``, ``number`` (from 0, within the feature), ``label``. A label may
        occur twice, and may be empty: that is a try, too.

    Example:
        >>> rows = pd.concat([label_rows("adapter", described), label_rows("original", paraphrases(labels))])
    """
    rows = []
    for feature, value in labels.items():
        texts = [value] if isinstance(value, str) else list(value)
        rows += [(source, int(feature), number, text) for number, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=list(LabelRow._fields))


def paraphrases(labels: Mapping[int, str], count: int = TRIES, ask: Ask | None = None) -> dict[int, tuple[str, ...]]:
    """Reword labels, so that a source with one label per feature has as many tries as one with several.

    The best of six is higher than one by luck alone, so a label that is measured once would lose to six guesses. The
    label itself comes first, then the wordings of a chat model if there is one, then plain frames such as
    ``"text about {label}"``.

    Args:
        labels: one per feature.
        count: wordings per label.
        ask: a chat model, for example `ask_server` or `ask_model`.

    Returns:
        for each feature its wordings.

    Raises:
        InterpToolkitError: a count for which there are not enough frames, or an empty label.

    Example:
        >>> paraphrases({7: "rivers"}, count=3)
        {7: ('rivers', 'text about rivers', 'something with rivers in it')}
    """
    if not 1 <= count <= len(_FRAMES):
        raise InterpToolkitError(f"expected a count from 1 to {len(_FRAMES)}, got {count}")
    if empty := [feature for feature, label in labels.items() if not label.strip()]:
        raise InterpToolkitError(f"the label of feature {empty[0]} is empty; leave the feature out")
    reworded: list[list[str]] = [[] for _ in labels]
    if ask is not None and count > 1:
        prompts = [REWORD.replace("{count}", str(count - 1)).replace("{label}", label) for label in labels.values()]
        reworded = [[tidy_label(line) for line in answer.text.splitlines()] for answer in ask(prompts)]
    paraphrased = {}
    for (feature, label), lines in zip(labels.items(), reworded):
        # A model may well repeat the label, or itself.
        wordings: dict[str, str] = {}
        for text in [label, *lines, *(frame.format(label) for frame in _FRAMES)]:
            wordings.setdefault(text.casefold(), text)
        paraphrased[feature] = tuple(text for text in wordings.values() if text)[:count]
    return paraphrased


def shuffled_labels(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Give each feature of each source the labels of another feature: how often such labels hit by chance.

    Args:
        rows: see `label_rows`.
        seed: of the draw.

    Returns:
        rows of the sources ``"shuffled NAME"``.

    Raises:
        InterpToolkitError: a source with a single feature.
    """
    shuffled = []
    for source, source_rows in rows.groupby("source", sort=False):
        features = sorted(set(source_rows["feature"]))
        if len(features) < 2:
            raise InterpToolkitError(f"expected at least two features of {source}, so that each can have another's")
        random.Random(seed).shuffle(features)
        taker = dict(zip(features, features[1:] + features[:1]))
        receivers = [taker[feature] for feature in source_rows["feature"]]
        shuffled.append(source_rows.assign(source=f"shuffled {source}", feature=receivers))
    return pd.concat(shuffled, ignore_index=True)


def random_labels(features: Sequence[int], pool: Sequence[str], count: int = TRIES, seed: int = 0) -> pd.DataFrame:
    """Give each feature labels drawn from a pool, such as the labels of features that are not scored.

    Args:
        features: numbers.
        pool: texts, at least ``count`` different ones.
        count: labels per feature.
        seed: of the draw.

    Returns:
        rows of the source ``"random labels"``.

    Raises:
        InterpToolkitError: a pool that is too small.
    """
    texts = sorted(set(pool))
    if len(texts) < count:
        raise InterpToolkitError(f"expected a pool of at least {count} different labels, got {len(texts)}")
    drawn = {feature: random.Random(f"{seed} {feature}").sample(texts, count) for feature in features}
    return label_rows("random labels", drawn)


def check_rows(rows: pd.DataFrame) -> list[LabelRow]:
    """The rows in order, where every source has as many labels for every feature.

    Raises:
        InterpToolkitError: no rows, a column that is missing, a number that occurs twice, or numbers of tries that
            differ.
    """
    if missing := [name for name in LabelRow._fields if name not in rows]:
        raise InterpToolkitError(f"expected the columns {', '.join(LabelRow._fields)}, and {missing[0]} is missing")
    labels = [
        LabelRow(str(row["source"]), int(row["feature"]), int(row["number"]), str(row["label"]).strip())
        for row in rows.to_dict("records")
    ]
    if not labels:
        raise InterpToolkitError("expected at least one label, got none")
    seen: set[tuple[str, int, int]] = set()
    for row in labels:
        if row[:3] in seen:
            raise InterpToolkitError(f"label {row.number} of {row.source!r} for feature {row.feature} occurs twice")
        seen.add(row[:3])
    tries = Counter((row.source, row.feature) for row in labels)
    low, high = (choose(tries, key=lambda key: tries[key]) for choose in (min, max))
    if tries[low] < tries[high]:
        raise InterpToolkitError(
            f"expected as many labels for every source and feature, since the best of many wins by luck, got "
            f"{tries[low]} of {low[0]!r} for feature {low[1]} and {tries[high]} of {high[0]!r} for feature {high[1]}; "
            f"see paraphrases"
        )
    return labels
