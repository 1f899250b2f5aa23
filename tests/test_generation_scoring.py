"""Texts for labels, hits by two ways of counting, equal tries, and what is kept on disk."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_sae

from interp_toolkit.activations import read_activations
from interp_toolkit.chat import prompt_ids
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import plain_answers, sampled_answers
from interp_toolkit.sae.asking import Answer
from interp_toolkit.scoring import generation
from interp_toolkit.scoring.example_texts import GenerationConfig, write_texts
from interp_toolkit.scoring.generation import EMPTY_LABEL, generation_scores
from interp_toolkit.scoring.label_scores import BEST, CHOSEN, MEAN, best_labels, score_table
from interp_toolkit.scoring.label_sources import (
    check_rows,
    label_rows,
    paraphrases,
    random_labels,
    shuffled_labels,
)
from interp_toolkit.spans import contents

WRITING = GenerationConfig(texts=3, prompt="Say {label}", max_new_tokens=5, temperature=1.0, seed=7)
PROMPTS = ["Tell me about rivers.", "fox", "Tell me about Poland.", "Tell me", "a dog jumps over the lazy fox"]


@pytest.fixture
def sae(tiny):
    """Of the stream after block 2 of the tiny model, a ReLU a feature, about half of them active on a token."""
    return make_sae("standard", model_name=model_facts(tiny()).model_id)


def _written(monkeypatch, by_label):
    """Stand-in for the writing: these texts."""
    asked = []

    def write(model, counts, config, folder=None, progress=False):
        asked.append(dict(counts))
        return {label: by_label[label][:count] for label, count in counts.items()}, {}

    monkeypatch.setattr(generation, "write_texts", write)
    return asked


def test_samples_depend_on_prompt_seed_and_number_alone(tiny, backend):
    model = tiny("llama", backend)
    settings = dict(temperature=1.5, max_new_tokens=6)
    together = sampled_answers(model, PROMPTS, samples=3, seed=1, **settings)
    assert together == [sampled_answers(model, [prompt], samples=3, seed=1, **settings)[0] for prompt in PROMPTS]
    assert [own[:3] for own in sampled_answers(model, PROMPTS[::-1], samples=5, seed=1, **settings)] == together[::-1]
    assert together != sampled_answers(model, PROMPTS, samples=3, seed=2, **settings)
    assert len({text for own in together for text in own}) > len(PROMPTS)
    cold = sampled_answers(model, PROMPTS, samples=1, temperature=1e-4, max_new_tokens=6)
    assert [own[0] for own in cold] == plain_answers(model, PROMPTS, max_new_tokens=6)


def test_texts_are_kept_label_by_label(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("interp_toolkit.scoring.example_texts._SHARD", 2)
    asked = []

    def answers(model, prompts, **settings):
        asked.append(list(prompts))
        return sampled_answers(model, prompts, **settings)

    monkeypatch.setattr("interp_toolkit.scoring.example_texts.sampled_answers", answers)
    counts = {"a": 3, "bb": 3, "ccc": 3}
    texts, failed = write_texts(tiny(), counts, WRITING, tmp_path)
    assert asked == [["Say a", "Say bb"], ["Say ccc"]]
    assert not failed
    assert {label: len(own) for label, own in texts.items()} == counts
    assert write_texts(tiny(), {"ccc": 3, "a": 2}, WRITING, tmp_path)[0] == {"ccc": texts["ccc"], "a": texts["a"][:2]}
    assert len(asked) == 2
    # More texts of one label, and a damaged shard: only what is missing is written, and it is the same again.
    more = write_texts(tiny(), {"a": 6, "bb": 3}, WRITING, tmp_path)[0]
    assert asked[2:] == [["Say a"]]
    assert more["a"][:3] == texts["a"]
    assert write_texts(tiny(), counts, WRITING)[0] == texts
    for path in tmp_path.rglob("*.json"):
        path.write_text("[")
    assert write_texts(tiny(), counts, WRITING, tmp_path)[0] == texts
    assert write_texts(tiny(), counts, replace(WRITING, seed=8), tmp_path)[0] != texts


def test_activations_are_those_of_the_whole_sae_on_hugging_faces_own_stream(tiny, tiny_hf, sae, monkeypatch):
    model, tokenizer = tiny(), tiny().tokenizer
    texts = ["a river flows", "Poland", "the quick brown fox"]
    _written(monkeypatch, {"x": texts})
    for chat in (True, False):
        features = [3, 11, 40]
        thresholds = {3: 0.0, 11: 0.4, 40: 1.0}
        actual = generation_scores(
            model, sae, label_rows("s", {f: "x" for f in features}), thresholds, config=WRITING, chat=chat
        )
        for row in actual.itertuples():
            anywhere, content = [], []
            for text in texts:
                (ids,) = prompt_ids(tokenizer, [text], chat)
                own = tokenizer(text, add_special_tokens=False)["input_ids"]
                hidden = tiny_hf("llama")(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0]
                active = sae.encode(hidden).detach()[:, row.feature]
                start = next(i for i in range(len(ids)) if ids[i : i + len(own)] == own)
                anywhere.append(float(active[1:].max()))
                content.append(float(active[start : start + len(own)].max()))
            assert row.hits == tuple(x > 0 for x in anywhere)
            assert row.strict_hits == tuple(x > thresholds[row.feature] for x in content)
            assert row.rate == np.mean(row.hits)
            assert row.peak == pytest.approx(max(content), abs=1e-4)
            assert row.example == texts[int(np.argmax(content))]
        assert len({row.strict_rate for row in actual.itertuples()}) > 1


def test_a_feature_of_the_template_hits_by_the_papers_counting_alone(tiny, sae, monkeypatch):
    model = tiny()
    _written(monkeypatch, {"x": ["a river", "the fox", "Tell me"]})
    rows = prompt_ids(model.tokenizer, ["a river", "the fox", "Tell me"])
    spans = contents(model.tokenizer, rows, True)
    own = torch.cat([read_activations(model, [row], 2, range(*span)).vectors for row, span in zip(rows, spans)])
    # What stands before the text is the same whatever the text is: a feature along one of its tokens, above all others.
    header = read_activations(model, [rows[0]], 2, range(1, spans[0][0])).vectors
    directions = torch.nn.functional.normalize(header - own.mean(0), dim=-1)
    gaps = (header * directions).sum(-1) - (own @ directions.T).amax(0)
    assert gaps.max() > 0.1
    unit = directions[gaps.argmax()]
    with torch.no_grad():
        sae.W_enc[:, 0] = unit
        sae.b_dec.zero_()
        sae.b_enc[0] = -float((own @ unit).max() + gaps.max() / 2)
    actual = generation_scores(model, sae, label_rows("s", {0: "x"}), {0: 0.0}, config=WRITING).iloc[0]
    assert (actual.rate, actual.strict_rate) == (1.0, 0.0)


def test_a_label_twice_has_other_texts_and_a_shuffled_one_the_same(tiny, sae, tmp_path):
    rows = pd.concat([label_rows("one", {1: ["fox", "fox"], 2: ["dog", "cat"]})])
    rows = pd.concat([rows, shuffled_labels(rows)])
    assert rows["source"].tolist() == ["one"] * 4 + ["shuffled one"] * 4
    actual = generation_scores(tiny(), sae, rows, {1: 0.0, 2: 0.0}, config=WRITING, folder=tmp_path)
    texts = write_texts(tiny(), {"fox": 6, "dog": 3, "cat": 3}, WRITING, tmp_path)[0]
    lots = [texts["fox"][:3], texts["fox"][3:], texts["dog"], texts["cat"]]
    assert lots[0] != lots[1]
    assert all(example in lot for example, lot in zip(actual["example"], lots * 2))
    assert actual["feature"].tolist() == [1, 1, 2, 2, 2, 2, 1, 1]
    # Each row alone, from nothing kept, has the same score.
    for i in (2, 3, 6):
        own = rows.iloc[[i]].assign(number=0)
        alone = generation_scores(tiny(), sae, own, {1: 0.0, 2: 0.0}, config=WRITING).iloc[0]
        assert (alone.hits, alone.strict_hits) == (actual.hits[i], actual.strict_hits[i])
        assert alone.peak == pytest.approx(actual.peak[i], abs=1e-4)


def test_scores_are_kept_and_go_on_after_an_interruption(tiny, sae, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "_SHARD", 1)
    rows = label_rows("one", {1: "fox", 2: "dog", 3: "cat"})
    thresholds = {1: 0.0, 2: 0.0, 3: 0.0}
    truth = generation_scores(tiny(), sae, rows, thresholds, config=WRITING)
    calls, whole = [], generation.unchecked_activations

    def active(*args, **settings):
        calls.append(args[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args, **settings)

    monkeypatch.setattr(generation, "unchecked_activations", active)
    with pytest.raises(KeyboardInterrupt):
        generation_scores(tiny(), sae, rows, thresholds, config=WRITING, folder=tmp_path)
    actual = generation_scores(tiny(), sae, rows, thresholds, config=WRITING, folder=tmp_path)
    pd.testing.assert_frame_equal(actual, truth)
    assert calls == [[3], [2], [2], [1]]  # only the asked features, and none again
    # Another threshold needs no other pass; another SAE does.
    generation_scores(tiny(), sae, rows, {1: 9.0, 2: 9.0, 3: 9.0}, config=WRITING, folder=tmp_path)
    assert len(calls) == 4
    other = make_sae("standard", model_name=model_facts(tiny()).model_id, seed=1)
    generation_scores(tiny(), other, rows, thresholds, config=WRITING, folder=tmp_path)
    assert len(calls) == 7


def test_a_bad_row_has_its_reason_and_the_others_their_scores(tiny, sae):
    rows = label_rows("one", {1: "fox", 2: " ", 99: "cat", 3: "dog " * 300})
    actual = generation_scores(tiny(), sae, rows, {1: 0.0, 2: 0.0, 3: 0.0}, config=WRITING)
    assert actual["reason"].tolist()[:3] == ["", EMPTY_LABEL, "the SAE has no feature 99: it has 48"]
    assert actual["reason"].iloc[3].startswith("the label is too long: ")
    assert (actual["rate"].iloc[1], actual["hits"].iloc[1]) == (0.0, (False,) * 3)
    assert actual["rate"].isna().tolist() == [False, False, True, True]
    table = score_table(actual, "rate")
    assert set(table["n"]) == {2}
    assert set(table["failed"]) == {2}


def test_what_cannot_be_scored(tiny, sae):
    uneven = pd.concat([label_rows("a", {1: ["x", "y"]}), label_rows("b", {1: "x"})])
    with pytest.raises(InterpToolkitError, match="1 of 'b' for feature 1 and 2 of 'a' for feature 1; see paraphrases"):
        generation_scores(tiny(), sae, uneven, {1: 0.0})
    with pytest.raises(InterpToolkitError, match="a threshold for each feature, and feature 1 has none"):
        generation_scores(tiny(), sae, label_rows("a", {1: "x"}), {2: 0.0})
    with pytest.raises(InterpToolkitError, match="at least one label, got none"):
        check_rows(label_rows("a", {}))
    with pytest.raises(InterpToolkitError, match="label 0 of 'a' for feature 1 occurs twice"):
        check_rows(pd.concat([label_rows("a", {1: "x", 2: "z"}), label_rows("a", {1: "x", 2: "z"})]))
    with pytest.raises(InterpToolkitError, match=r"a prompt with \{label\} in it"):
        GenerationConfig(prompt="Write.")
    with pytest.raises(ContractError):
        generation_scores(tiny("gpt2"), make_sae("standard", width=16), label_rows("a", {1: "x"}), {1: 0.0})


def test_a_fixed_label_gets_as_many_wordings():
    actual = paraphrases({1: "rivers", 2: "{x} y"}, count=6)
    assert [own[0] for own in actual.values()] == ["rivers", "{x} y"]
    for label, own in zip(("rivers", "{x} y"), actual.values()):
        assert len(set(own)) == 6
        assert all(label in text for text in own)
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return [Answer("Rivers\nStreams.\nbodies of water\n"), Answer("", "busy")]

    result = paraphrases({1: "rivers", 2: "y"}, count=4, ask=ask)
    assert result[1] == ("rivers", "Streams", "bodies of water", "text about rivers")
    assert result[2][:2] == ("y", "text about y")
    assert "in 3 other ways" in asked[0]
    with pytest.raises(InterpToolkitError, match="label of feature 1 is empty"):
        paraphrases({1: ""})
    with pytest.raises(InterpToolkitError, match="count from 1 to 8, got 9"):
        paraphrases({1: "x"}, count=9)


def test_chance_has_labels_of_other_features():
    rows = label_rows("one", {f: [f"{f} a", f"{f} b"] for f in range(9)})
    actual = shuffled_labels(rows, seed=3)
    assert sorted(actual["label"]) == sorted(rows["label"])
    assert not any(label.startswith(f"{feature} ") for feature, label in zip(actual["feature"], actual["label"]))
    assert check_rows(pd.concat([rows, actual])) is not None
    assert not actual.equals(shuffled_labels(rows, seed=4))
    with pytest.raises(InterpToolkitError, match="at least two features of one"):
        shuffled_labels(rows[rows["feature"] == 1])
    drawn = random_labels([4, 5], [f"l{i}" for i in range(20)], count=6)
    assert drawn.groupby("feature")["label"].nunique().tolist() == [6, 6]
    assert drawn[drawn.feature == 4].label.tolist() == random_labels([4], [f"l{i}" for i in range(20)]).label.tolist()
    with pytest.raises(InterpToolkitError, match="at least 6 different labels, got 2"):
        random_labels([1], ["a", "b", "a"])


def _scores(hits):
    """Scores from hits by source, feature and label."""
    rows = [
        dict(
            source=source,
            feature=f,
            number=i,
            label=f"{f} {i}",
            hits=tuple(map(bool, own)),
            rate=float(np.mean(own)),
        )
        for source, features in hits.items()
        for f, labels in enumerate(features)
        for i, own in enumerate(labels)
    ]
    return pd.DataFrame(rows)


def test_the_table_has_the_mean_of_best_labels_and_what_they_are_worth():
    scores = _scores(
        {
            "a": [[[1, 1, 0, 0], [0, 0, 0, 0]], [[0, 1, 0, 0], [1, 0, 1, 0]]],
            "b": [[[0, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]],
        }
    )
    best = best_labels(scores, "rate").set_index(["source", "feature"])
    assert best["best"].tolist() == [0.5, 0.5, 0.25, 0.0]
    assert best["mean"].tolist() == [0.25, 0.375, 0.125, 0.0]
    assert best.loc[("a", 1), "label"] == "1 1"
    # Of feature 1 the even texts choose the second label, whose odd ones miss; the odd ones the first, likewise.
    assert best["chosen"].tolist() == [0.5, 0.0, pytest.approx(0.125), 0.0]
    table = score_table(scores, "rate", against="b", seed=2)
    cell = table.set_index(["source", "protocol", "what"])["value"]
    assert cell["a", BEST, "mean"] == 0.5
    assert cell["a", BEST, "less b"] == 0.375
    assert cell["b", MEAN, "mean"] == 0.0625
    assert len(table) == 3 * 3
    assert set(table["tries"]) == {2}
    assert set(table["seed"]) == {2}
    assert table["p"].notna().sum() == 3
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    with pytest.raises(InterpToolkitError, match="one of the sources a, b to compare with, got 'c'"):
        score_table(scores, "rate", against="c")
    with pytest.raises(InterpToolkitError, match="a column 'auroc' of scores"):
        score_table(scores, "auroc")
    with pytest.raises(InterpToolkitError, match="at least one row with a rate, got none"):
        score_table(scores.assign(rate=math.nan), "rate")


def test_the_best_of_many_wins_by_luck_unless_other_texts_choose_it():
    coin = np.random.default_rng(0).random((400, 6, 10)) < 0.3
    table = score_table(_scores({"coin": coin.astype(int).tolist()}), "rate").set_index("protocol")["value"]
    assert table[MEAN] == pytest.approx(0.3, abs=0.01)
    assert table[BEST] > 0.45
    assert table[CHOSEN] == pytest.approx(0.3, abs=0.02)


def test_the_real_model_writes_of_what_it_is_asked_for(smollm):
    texts, _ = write_texts(smollm, {"rivers and lakes": 4}, GenerationConfig(texts=4, max_new_tokens=40))
    words = ("river", "lake", "water", "stream", "shore")
    assert sum(any(word in text.lower() for word in words) for text in texts["rivers and lakes"]) >= 3
