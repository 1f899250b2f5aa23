"""Answers whose truth is known, beside controls: a probe, the text itself, other vectors, no training."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from interp_toolkit import Adapter, InterpToolkitError, SoftPrompt, ask
from interp_toolkit.chat import encode
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.answers import (
    KnownAnswers,
    answer_table,
    best_answer_scale,
    probe_log_odds,
    text_log_odds,
)
from interp_toolkit.models import model_facts

QUESTION, CHOICES = "Is this a person?", ("yes", "no")
TEXTS = ("the quick fox", "a dog", "brown fox jumps", "the river", "a fox", "quick dog")


def _known(random_vectors, **changes):
    return dataclasses.replace(
        KnownAnswers(QUESTION, CHOICES, random_vectors(6, 32), [0, 1, 0, 1, 0, 1], TEXTS), **changes
    )


@torch.no_grad()
def test_a_text_stands_where_soft_tokens_would(tiny, tiny_hf, architecture):
    model, hf = tiny(architecture), tiny_hf(architecture)
    tokenizer = model.tokenizer
    prompt = SoftPrompt.for_tokenizer(tokenizer, vocabulary=len(hf.get_input_embeddings().weight))
    adapter = Adapter.create("full_rank", d_model=model_facts(model).d_model)
    adapter.contract = Contract.from_facts(model_facts(model), None, prompt, None, adapter.config.normalize)
    choices = ["yes", "no", "the river"]
    got = text_log_odds(model, adapter, QUESTION, choices, TEXTS)
    about = prompt.about(QUESTION, tokenizer)
    tokens = about.tokens(tokenizer)
    for row, text in zip(got, TEXTS):
        ids = [*tokens.ids[: tokens.slots[0]], *encode(tokenizer, text), *tokens.ids[tokens.slots[-1] + 1 :]]
        totals = []
        for target in about.targets(tokenizer, choices):
            steps = hf(torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
            totals.append(steps[torch.arange(len(target)), torch.tensor(target)].sum().item())
        p = np.exp(np.array(totals) - max(totals))
        p /= p.sum()
        assert np.allclose(row, np.log(p / (1 - p)), atol=2e-3)


def test_a_linear_probe_tells_what_is_in_vectors_and_nothing_else():
    drawn = torch.Generator().manual_seed(0)
    vectors, right = torch.randn(120, 16, generator=drawn), [0, 1, 2] * 40
    for i, number in enumerate(right):
        vectors[i, number] += 6
    train = KnownAnswers("Which?", ("a", "b", "c"), vectors[:90], right[:90])
    odds = probe_log_odds(train, vectors[90:])
    assert odds.argmax(1).tolist() == right[90:]
    p = 1 / (1 + np.exp(-odds))
    assert np.allclose(p.sum(1), 1)
    noise = KnownAnswers("Which?", ("a", "b", "c"), torch.randn(90, 16, generator=drawn), right[:90])
    assert np.mean(probe_log_odds(noise, torch.randn(300, 16, generator=drawn)).argmax(1) == [0, 1, 2] * 100) < 0.45
    few = KnownAnswers("Which?", ("a", "b", "c"), vectors[:9], right[:9])
    assert probe_log_odds(few, vectors) is None


def test_the_area_is_that_of_the_answers_log_odds(tiny, adapter, random_vectors):
    known = _known(random_vectors)
    table = answer_table(tiny(), adapter, known, untrained_scale=3.0).set_index("by")
    frame = ask(known.vectors, QUESTION, CHOICES, model=tiny(), adapter=adapter)
    odds = frame[frame.answer == "yes"].log_odds
    truth = [right == 0 for right in known.right]
    assert table.value["adapter"] == pytest.approx(roc_auc_score(truth, odds))
    texts = text_log_odds(tiny(), adapter, QUESTION, CHOICES, TEXTS)[:, 0]
    assert table.value["text shown"] == pytest.approx(roc_auc_score(truth, texts))
    for by in ("shuffled vectors", "untrained direction", "text shown"):
        assert table.value[f"adapter less {by}"] == pytest.approx(table.value["adapter"] - table.value[by])
    assert (table.n == 6).all()
    assert (table.low <= table.high).all()
    assert "linear probe" not in table.index
    alone = answer_table(tiny(), adapter, dataclasses.replace(known, texts=()))
    assert set(alone.by) == {"adapter", "shuffled vectors", "adapter less shuffled vectors"}


def test_of_several_choices_one_that_is_always_likely_gains_nothing(tiny, adapter, random_vectors):
    known = _known(random_vectors, choices=("yes", "no", "the river"), right=[0, 1, 2, 0, 1, 2])
    table = answer_table(tiny(), adapter, known).set_index("by")
    frame = ask(known.vectors, QUESTION, known.choices, model=tiny(), adapter=adapter)
    truth = np.array(known.right)[:, None] == np.arange(3)
    contrast = frame.contrast.to_numpy().reshape(6, 3)
    assert table.value["adapter"] == pytest.approx(roc_auc_score(truth.ravel(), contrast.ravel()))


def test_answers_of_an_adapter_that_tells_nothing_are_chance(tiny, adapter, random_vectors):
    blind = Adapter.create("bias_only", d_model=32)
    blind.contract = adapter.contract
    table = answer_table(tiny(), blind, _known(random_vectors)).set_index("by")
    assert table.value["adapter"] == 0.5


def test_the_best_length_is_one_of_those_tried(tiny, adapter, random_vectors):
    known = _known(random_vectors)
    scales = (0.1, 5.0, 50.0)
    by_scale = {}
    for scale in scales:
        table = answer_table(tiny(), adapter, known, untrained_scale=scale).set_index("by")
        by_scale[scale] = table.value["untrained direction"]
    assert best_answer_scale(tiny(), adapter, [known], scales) == max(by_scale, key=by_scale.get)


def test_what_cannot_be_measured_is_refused(tiny, adapter, random_vectors):
    with pytest.raises(InterpToolkitError, match="expected vectors of at least two answers, got one answer for all"):
        answer_table(tiny(), adapter, _known(random_vectors, right=[0] * 6))
    with pytest.raises(InterpToolkitError, match="for each of 6 vectors, got 5 answers and 6 texts"):
        _known(random_vectors, right=[0] * 5)
    with pytest.raises(InterpToolkitError, match="expected numbers of 2 choices as right answers, got 2"):
        _known(random_vectors, right=[0, 1, 2, 0, 1, 0])
    with pytest.raises(InterpToolkitError, match="text 1 is empty"):
        text_log_odds(tiny(), adapter, QUESTION, CHOICES, ["a", ""])
