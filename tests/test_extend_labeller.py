"""A labeller of one's own: a plain function from a feature's top examples to a label, as docs/how-to shows it."""

import pandas as pd
import pytest

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae import Labeller, label_features
from interp_toolkit.sae.labellers import INACTIVE, NO_LABEL

EXAMPLES = {
    1: pd.DataFrame(
        [
            dict(text="the Danube flows", tokens=("the", " Danube", " flows"), activations=(0.0, 2.0, 0.5)),
            dict(text="the Rhine", tokens=("the", " Rhine"), activations=(0.0, 1.0)),
        ]
    ),
    2: pd.DataFrame(columns=["text", "tokens", "activations"]),
    3: pd.DataFrame([dict(text="?", tokens=("?",), activations=(1.0,))]),
}


def peak_words(examples: pd.DataFrame) -> list[str]:
    """The most active token of each example, where it is a word."""
    peaks = [
        max(zip(activations, tokens))[1].strip()
        for tokens, activations in zip(examples["tokens"], examples["activations"])
    ]
    return [word for word in peaks if word.isalpha()]


def test_a_function_labels_features():
    labelled = label_features(peak_words, EXAMPLES.get, [1, 2, 3])
    assert labelled.labels.by_feature() == {1: ("Danube", "Rhine")}
    assert set(labelled.labels.table["explainer"]) == {"peak_words"}
    assert labelled.failed.values.tolist() == [[2, INACTIVE], [3, NO_LABEL]]


def test_one_label_may_be_a_text_and_none_stands_twice():
    assert label_features(lambda examples: "rivers", EXAMPLES.get, [1]).labels.by_feature() == {1: ("rivers",)}
    labels = label_features(lambda examples: ["a", "", "b", "a"], EXAMPLES.get, [1]).labels
    assert labels.by_feature() == {1: ("a", "b")}


def test_labels_of_a_function_are_cached_by_its_key_alone(tmp_path):
    calls = []

    def label(examples):
        calls.append(len(examples))
        return "x"

    for _ in range(2):
        label_features(label, EXAMPLES.get, [1], tmp_path)
    assert len(calls) == 2  # nothing says whether the function is still the same
    for key, expected in (("1", 3), ("1", 3), ("2", 4)):
        label_features(Labeller.from_function(label, "mine", key), EXAMPLES.get, [1], tmp_path)
        assert len(calls) == expected


def test_an_error_of_the_function_is_raised():
    with pytest.raises(ZeroDivisionError):
        label_features(lambda examples: 1 / 0, EXAMPLES.get, [1])
    with pytest.raises(InterpToolkitError, match="none of 1 features got a label; the first: the labeller returned no"):
        label_features(lambda examples: "", EXAMPLES.get, [1])
