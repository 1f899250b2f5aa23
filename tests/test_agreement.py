"""Labels and descriptions side by side: similarity, evidence, scores, and who wins."""

import math

import pandas as pd
import pytest
import torch

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.scoring.agreement import agreement_summary, agreement_table, word_overlap

LABELS = {1: ["rivers", "lakes"], 2: ("bread",), 3: "cats", 4: "snow"}
SAID = pd.DataFrame(
    [
        (1, "bread", 0.5),
        (1, "rivers", 2.0),
        (1, "", math.nan),
        (2, "cats", 1.0),
        (2, "Bread", 0.1),
        (3, "cats", -0.2),
        (9, "nothing", 1.0),
    ],
    columns=["feature", "description", "evidence"],
)


def _embed(texts):
    """Orthogonal where texts differ in anything but case."""
    names = ["rivers", "lakes", "bread", "cats", "snow", "-", "nothing"]
    return torch.tensor([[2.0 * (text.casefold() == name) for name in names] for text in texts])


def _scores(values):
    rows = [(source, f, i, score) for (source, f), own in values.items() for i, score in enumerate(own)]
    return pd.DataFrame(rows, columns=["source", "feature", "number", "auroc"]).assign(label="x")


def test_the_widest_apart_come_first_and_the_undescribed_last():
    table = agreement_table(LABELS, SAID, _embed)
    assert table["feature"].tolist() == [2, 1, 3, 4]
    cell = table.set_index("feature")
    assert cell.loc[1, ["label", "description", "others"]].tolist() == ["rivers", "rivers", "bread | "]
    assert cell.loc[2, ["description", "others"]].tolist() == ["cats", "Bread"]
    assert cell["similarity"].tolist()[:3] == [0.0, 1.0, 1.0]
    assert cell["disagreement"].tolist()[:3] == [1.0, 0.0, 0.0]
    assert cell["best_similarity"].tolist()[:3] == [1.0, 1.0, 1.0]
    assert cell["evidence"].tolist()[:3] == [1.0, 2.0, -0.2]
    assert cell["overlap"].tolist()[:3] == [0.0, 1.0, 1.0]
    # Feature 3 is labelled as feature 2 is described, so half of the others agree with it.
    assert cell["chance"].tolist()[:3] == [0.0, 0.0, 0.5]
    assert cell.loc[4, "description"] == ""
    assert math.isnan(cell.loc[4, "similarity"])
    assert set(table["winner"]) == {""}


def test_the_higher_of_the_best_scores_wins():
    scores = _scores(
        {
            ("original", 1): [0.5, 0.9],
            ("adapter", 1): [0.8, 0.7],
            ("original", 2): [0.5, math.nan],
            ("adapter", 2): [0.6, 0.1],
            ("original", 3): [0.5, 0.4],
            ("adapter", 3): [0.5, 0.5],
            ("original", 4): [0.9, 0.9],
            ("shuffled", 4): [1.0, 1.0],
        }
    )
    table = agreement_table(LABELS, SAID, _embed, scores=scores, score="auroc").set_index("feature")
    assert table["winner"].to_dict() == {1: "label", 2: "description", 3: "tie", 4: ""}
    assert table.loc[1, ["label_score", "description_score"]].tolist() == [0.9, 0.8]
    summary = agreement_summary(table.reset_index(), seed=3).set_index("measure")
    assert summary.loc["similarity", ["value", "n"]].tolist() == [pytest.approx(2 / 3), 3]
    assert summary.loc["similarity less chance", "value"] == pytest.approx(2 / 3 - 0.5 / 3)
    assert summary.loc[["description wins", "label wins", "tie"], "value"].tolist() == [pytest.approx(1 / 3)] * 3
    assert (summary["low"] <= summary["value"]).all()
    assert (summary["value"] <= summary["high"]).all()
    assert set(summary["seed"]) == {3}
    with pytest.raises(
        InterpToolkitError, match="scores of the source 'mine', got those of original, adapter, shuffled"
    ):
        agreement_table(LABELS, SAID, _embed, scores=scores, score="auroc", adapter="mine")


def test_without_scores_nobody_wins():
    measures = agreement_summary(agreement_table(LABELS, SAID, _embed))["measure"].tolist()
    assert measures == ["similarity", "chance", "best_similarity", "overlap", "similarity less chance"]
    one = agreement_summary(agreement_table({1: "rivers"}, SAID, _embed))["measure"].tolist()
    assert one == ["similarity", "best_similarity", "overlap"]  # with one feature there are no others


def test_words_in_common():
    assert word_overlap("Names of rivers", "rivers and lakes") == pytest.approx(0.2)
    assert word_overlap("Rivers!", "rivers") == 1.0
    assert word_overlap("", "...") == 0.0


def test_what_cannot_be_compared():
    with pytest.raises(InterpToolkitError, match="columns feature, description, evidence, and evidence is missing"):
        agreement_table(LABELS, SAID.drop(columns="evidence"), _embed)
    with pytest.raises(InterpToolkitError, match="labels of at least one feature"):
        agreement_table({}, SAID, _embed)
    with pytest.raises(InterpToolkitError, match="at least one feature with a label and a description"):
        agreement_summary(agreement_table({4: "snow"}, SAID, _embed))
