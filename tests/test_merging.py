"""Of several labels the one that fits texts best: chosen by one half of them, measured on the other."""

import pandas as pd
import pytest

from interp_toolkit import InterpToolkitError
from interp_toolkit.scoring import merge_labels
from interp_toolkit.scoring.detection import Examples


def _judge(pairs):
    """How many of the label's letters a text has."""
    return [float(sum(letter in text for letter in label)) for label, text in pairs]


TEXTS = {1: Examples(("aa", "aa", "ab", "ab"), ("cc", "cc", "cc", "cc")), 2: Examples(("zz", "zz"), ("aa", "aa"))}


def test_the_label_that_fits_is_taken_and_measured_on_other_texts():
    # By the half that chooses (texts 0 and 2) both tell all texts apart at "a"; "b" is in every second of them.
    merged = merge_labels({"words": {1: "c", 2: "z"}, "llm": {1: "a", 2: "a"}}, TEXTS, _judge)
    assert merged["label"].tolist() == ["a", "z"]
    assert merged["source"].tolist() == ["llm", "words"]
    assert merged["auroc"].tolist() == [1.0, 1.0]
    assert merged["sources"].tolist() == [2, 2]
    texts = {1: Examples(("b", "a", "b", "a"), ("c", "c", "c", "c"))}
    merged = merge_labels({"one": {1: "a"}, "other": {1: "b"}}, texts, _judge)
    # "b" is in those that choose, and in none of those that measure.
    assert (merged["label"][0], merged["choosing_auroc"][0], merged["auroc"][0]) == ("b", 1.0, 0.5)


def test_of_equals_and_without_texts_the_first_source_is_taken():
    merged = merge_labels({"one": {1: "a", 7: "x"}, "other": {1: "aa", 7: "y", 8: "z", 9: " "}}, TEXTS, _judge)
    assert dict(zip(merged["feature"], merged["source"])) == {1: "one", 7: "one", 8: "other"}
    assert merged["auroc"].isna().tolist() == [False, True, True]
    assert dict(zip(merged["feature"], merged["sources"])) == {1: 2, 7: 2, 8: 1}
    pd.testing.assert_series_equal(merged["feature"], pd.Series([1, 7, 8], name="feature"))


def test_no_label_is_refused():
    with pytest.raises(InterpToolkitError, match="expected a label of at least one feature"):
        merge_labels({"one": {}}, TEXTS, _judge)
