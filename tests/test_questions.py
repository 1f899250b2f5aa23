"""Questions about vectors: how they are put, learnt and answered."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, SoftPrompt, TrainConfig, VectorLabelPairs, ask, train_adapter
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import folder
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.training import TrainingInterrupted, loop
from interp_toolkit.training.examples import Examples, epoch_batches, steps_of_epoch
from interp_toolkit.training.objective import validation_losses

PERSON, RIVER = "Is this a person?", "Is this a river?"
CHOICES = ["yes", "no", "the river"]
SHORT = TrainConfig(epochs=30, batch_size=8, lr=0.02, eval_every=10, warmup_steps=2, log_samples=2)


ANSWERS = {PERSON: ("yes", "no"), RIVER: ("river", "fox")}


def _pairs(count=48, seed=0, width=32):
    """Vectors of two traits, with a question about each."""
    drawn = torch.Generator().manual_seed(seed)
    vectors = 0.3 * torch.randn(count, width, generator=drawn)
    traits = torch.rand(2, count, generator=drawn) < 0.5
    vectors[traits[0], :8] += 3
    vectors[traits[1], 8:16] += 3
    sides = ["train" if i < count * 3 // 4 else "val" for i in range(count)]
    parts = []
    for (question, (yes, no)), trait in zip(ANSWERS.items(), traits.tolist()):
        labels = [yes if has else no for has in trait]
        parts.append(VectorLabelPairs.from_tensors(vectors, labels, splits=sides).with_questions(question))
    return VectorLabelPairs.concat(parts)


# How a question is put


def test_a_question_stands_before_the_slot_where_it_is_read_once(smollm, tiny_tokenizer):
    tokenizer = smollm.tokenizer
    prompt = SoftPrompt.for_chat(tokenizer)
    tokens = prompt.about(PERSON, tokenizer).tokens(tokenizer)
    assert PERSON in tokenizer.decode(tokens.prefix)
    assert len(tokens.slots) == 1
    assert tokenizer.decode(tokens.ids).endswith('<|im_start|>assistant\nThe answer is "')
    assert prompt.about(" ", tokenizer) is prompt
    plain = SoftPrompt.for_text(tiny_tokenizer)
    assert plain.about(PERSON, tiny_tokenizer).template.endswith(f'Question: {PERSON}\nText: "{{slot}}"\nAnswer: "')


def test_a_question_keeps_site_mode_stop_and_number_of_soft_tokens(smollm):
    tokenizer = smollm.tokenizer
    prompt = SoftPrompt.for_chat(tokenizer, tokens=3).at("blocks.2.hook_resid_post", "add")
    about = prompt.about(PERSON, tokenizer)
    assert (about.site, about.mode, about.stop, about.marker) == (prompt.site, prompt.mode, prompt.stop, prompt.marker)
    slots = about.tokens(tokenizer).slots
    assert list(slots) == list(range(slots[0], slots[0] + 3))


def test_a_text_of_ones_own_puts_the_question(tiny_prompt, tiny_tokenizer):
    text = f"{{question}} {tiny_prompt.marker} is "
    prompt = dataclasses.replace(tiny_prompt, asking=text)
    assert prompt.about(RIVER, tiny_tokenizer).template == f"{RIVER} {tiny_prompt.marker} is "
    assert prompt.with_questions(tiny_tokenizer) is prompt
    assert SoftPrompt.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt
    assert "asking" not in tiny_prompt.to_dict()
    with pytest.raises(InterpToolkitError, match=r"expected \{question\} and"):
        dataclasses.replace(tiny_prompt, asking="no slot")


def test_a_question_with_a_special_token_is_refused(tiny_prompt, tiny_tokenizer):
    for token in (tiny_prompt.marker, tiny_prompt.stop, "{slot}"):
        with pytest.raises(InterpToolkitError, match="expected a question without"):
            tiny_prompt.about(f"Is {token} it?", tiny_tokenizer)


# Pairs


def test_questions_stay_with_their_vectors(tmp_path):
    pairs = _pairs()
    assert pairs.questions == (PERSON,) * 48 + (RIVER,) * 48
    assert "2 questions" in repr(pairs)
    assert PERSON in pairs._repr_html_()
    assert pairs.take([50, 0]).questions == (RIVER, PERSON)
    pairs.save(tmp_path / "pairs")
    again = VectorLabelPairs.load(tmp_path / "pairs")
    assert again.questions == pairs.questions
    assert again.labels == pairs.labels
    both = VectorLabelPairs.concat([pairs, pairs.with_questions("")], [3.0, 1.0], seed=1)
    assert set(both.questions) == {PERSON, RIVER, ""}


def test_a_folder_with_questions_says_so_to_readers_that_know_none(tmp_path):
    pairs = _pairs()
    for name, saved, form in (("with", pairs, "v2"), ("without", pairs.with_questions(""), "v1")):
        saved.save(tmp_path / name)
        origin = json.loads((tmp_path / name / folder.ORIGIN).read_text())
        assert origin["format"] == f"vector_label_pairs_{form}"
        table = pd.read_parquet(tmp_path / name / folder.LABELS)
        assert ("question" in table) == (form == "v2")


def test_as_many_questions_as_vectors_are_taken(unchecked):
    with pytest.raises(InterpToolkitError, match="expected a question for each of 96 vectors, got 2"):
        _pairs().with_questions([PERSON, RIVER])
    with pytest.raises(InterpToolkitError, match="expected a text as the question of vector 95, got None"):
        _pairs().with_questions([PERSON] * 95 + [None])


# Training


def test_a_batch_has_one_question_and_an_epoch_all_examples_once(tiny, tiny_prompt):
    train = Examples.from_pairs(_pairs().split("train"), PromptRun(tiny(), tiny_prompt))
    lengths = [len(target) for target in train.targets]
    batches = list(epoch_batches(lengths, 8, 0, 0, train.questions))
    assert sorted(i for batch in batches for i in batch) == list(range(len(train)))
    assert all(len({train.questions[i] for i in batch}) == 1 for batch in batches)
    assert len(batches) == steps_of_epoch(train, 8) == 10
    # Mixed, not one question after the other.
    assert len({train.questions[batch[0]] for batch in batches[:6]}) == 2
    assert batches != list(epoch_batches(lengths, 8, 0, 1, train.questions))
    alone = [""] * len(lengths)
    assert list(epoch_batches(lengths, 8, 0, 0, alone)) == list(epoch_batches(lengths, 8, 0, 0))


@pytest.mark.slow
@pytest.mark.long
def test_answers_to_two_questions_about_the_same_vectors_are_learnt(smollm, tmp_path):
    config = TrainConfig(epochs=3, batch_size=8, lr=0.03, eval_every=54, warmup_steps=2, log_samples=0)
    start = Adapter.create("low_rank", d_model=576, rank=16)
    result = train_adapter(smollm, _pairs(96, width=576), start, config, progress=False)
    result.adapter.save_pretrained(tmp_path / "adapter")
    adapter = Adapter.from_pretrained(tmp_path / "adapter")
    held = _pairs(48, seed=1, width=576)
    for question, (yes, no) in ANSWERS.items():
        rows = [i for i, of in enumerate(held.questions) if of == question]
        frame = ask(held.take(rows).vectors, question, [yes, no], model=smollm, adapter=adapter)
        values = frame[frame.answer == yes].probability.to_numpy()
        truth = np.array([held.labels[i] == (yes,) for i in rows])
        # Three standard errors above chance; 0.87 to 1.0 in six runs of other settings.
        assert np.mean([(a > b) + (a == b) / 2 for a in values[truth] for b in values[~truth]]) > 0.75


def test_the_loss_is_that_of_each_question_in_its_prompt(tiny, tiny_prompt):
    pairs, start = _pairs(), Adapter.create("full_rank", d_model=32)
    config = dataclasses.replace(SHORT, max_steps=1, eval_every=1, lr=1e-12)
    result = train_adapter(tiny(), pairs, start, config, soft_prompt=tiny_prompt, progress=False)
    held, losses = pairs.split("val"), []
    prompt = tiny_prompt.with_questions(tiny().tokenizer)
    for i, ((label,), question) in enumerate(zip(held.labels, held.questions)):
        run = PromptRun(tiny(), prompt.about(question, tiny().tokenizer))
        target = prompt.targets(tiny().tokenizer, [label])
        losses.append(-score(run, start(held.gather([i])), target).mean().item())
    assert result.history.val_loss.iloc[0] == pytest.approx(np.mean(losses), abs=1e-5)
    assert result.adapter.contract.soft_prompt.asking == prompt.asking


def test_an_answer_is_compared_with_that_of_another_vector(tiny, tiny_prompt):
    # Two questions about the same vectors, in the same order.
    vectors = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    run = PromptRun(tiny(), tiny_prompt)
    adapter = Adapter.create("full_rank", d_model=32, init_scale=5.0)
    targets = tiny_prompt.targets(tiny().tokenizer, ["yes", "no", "a", "a", "yes", "no"] * 2)
    questions = [PERSON] * 6 + [RIVER] * 6
    rows = list(range(12))
    matched, shuffled = validation_losses(run, adapter, torch.cat([vectors, vectors]), targets, rows, questions)
    each = []
    for order in ([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]):
        soft_tokens = adapter(vectors[order])
        of_questions = [
            -score(run.about(question), soft_tokens, targets[i * 6 : i * 6 + 6]).mean().mean().item()
            for i, question in enumerate((PERSON, RIVER))
        ]
        each.append(sum(of_questions) / 2)
    assert (matched, shuffled) == pytest.approx(each, abs=1e-5)
    assert matched != pytest.approx(shuffled, abs=1e-4)


def test_a_run_with_questions_goes_on_and_knows_them(tiny, tiny_prompt, tmp_path, monkeypatch):
    config = dataclasses.replace(SHORT, max_steps=40)

    def run(path, pairs):
        settings = dict(soft_prompt=tiny_prompt, folder=path, progress=False)
        return train_adapter(tiny(), pairs, Adapter.create("full_rank", d_model=32), config, **settings)

    whole = run(tmp_path / "whole", _pairs())

    class _Stop:
        steps = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        @property
        def requested(self):
            self.steps += 1
            return self.steps == 25

    monkeypatch.setattr(loop, "StopRequest", _Stop)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "parts", _pairs())
    monkeypatch.undo()
    with pytest.raises(InterpToolkitError, match="questions"):
        run(tmp_path / "parts", _pairs().with_questions("Other?"))
    again = run(tmp_path / "parts", _pairs())
    assert again.adapter.digest == whole.adapter.digest


def test_a_start_by_regression_is_for_descriptions(tiny, tiny_prompt):
    config = dataclasses.replace(SHORT, ridge_init=0.1)
    with pytest.raises(InterpToolkitError, match="ridge_init fits soft tokens to labels that describe"):
        train_adapter(
            tiny(), _pairs(), Adapter.create("full_rank", d_model=32), config, soft_prompt=tiny_prompt, progress=False
        )


# Answers


def _hugging_face(hf, prompt, tokenizer, soft_token, target):
    """Sum of the log-probabilities of a target, by the whole prompt with its slot's embedding replaced."""
    tokens = prompt.tokens(tokenizer)
    embeddings = hf.get_input_embeddings()(torch.tensor([[*tokens.ids, *target]])).clone()
    embeddings[0, list(tokens.slots)] = soft_token
    steps = hf(inputs_embeds=embeddings).logits[0, len(tokens.ids) - 1 : -1].log_softmax(-1)
    return steps[torch.arange(len(target)), torch.tensor(target)].sum().item()


@torch.no_grad()
def test_probabilities_of_choices_are_those_of_hugging_face(tiny, tiny_hf, adapter, random_vectors, architecture):
    model, hf = tiny(architecture), tiny_hf(architecture)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer, vocabulary=len(hf.get_input_embeddings().weight))
    adapter.contract = Contract.from_facts(model_facts(model), None, prompt, None, adapter.config.normalize)
    vectors = random_vectors(3, adapter.config.width)
    frame = ask(vectors, PERSON, CHOICES, model=model, adapter=adapter)
    about = prompt.about(PERSON, model.tokenizer)
    targets = about.targets(model.tokenizer, CHOICES)
    rows = torch.cat([adapter.null()[None], adapter(vectors)])
    totals = np.array([[_hugging_face(hf, about, model.tokenizer, row, x) for x in targets] for row in rows])
    probability = np.exp(totals) / np.exp(totals).sum(1, keepdims=True)
    lengths = np.array([len(target) for target in targets])
    odds = np.log(probability / (1 - probability))
    got = {name: frame[name].to_numpy().reshape(3, 3) for name in frame.columns[6:]}
    assert frame.answer.tolist() == CHOICES * 3
    assert np.allclose(got["log_prob"], totals[1:] / lengths, atol=1e-4)
    assert np.allclose(got["evidence"], (totals[1:] - totals[0]) / lengths, atol=1e-4)
    assert np.allclose(got["probability"], probability[1:], atol=1e-4)
    assert np.allclose(got["null_probability"], probability[0], atol=1e-4)
    assert np.allclose(got["log_odds"], odds[1:], atol=2e-3)
    others = (odds[1:].sum(0) - odds[1:]) / 2
    assert np.allclose(got["contrast"], odds[1:] - others, atol=2e-3)
    against = random_vectors(4, adapter.config.width)
    fixed = ask(vectors, PERSON, CHOICES, model=model, adapter=adapter, against=against)
    rest = ask(against, PERSON, CHOICES, model=model, adapter=adapter).probability.to_numpy().reshape(4, 3)
    expected = odds[1:] - np.log(rest / (1 - rest)).mean(0)
    assert np.allclose(fixed.contrast.to_numpy().reshape(3, 3), expected, atol=2e-3)


def test_free_answers_are_texts_behind_the_question(tiny, adapter, random_vectors):
    model, vectors = tiny(), random_vectors(2, 32)
    frame = ask(vectors, [PERSON, RIVER], model=model, adapter=adapter)
    assert frame.question.tolist() == [PERSON] * 2 + [RIVER] * 2
    prompt = adapter.contract.soft_prompt
    for question, rows in frame.groupby("question"):
        run = PromptRun(model, prompt.about(question, model.tokenizer))
        texts = generate(run, adapter(vectors), null=adapter.null())
        assert rows.answer.tolist() == [text.text for (text,) in texts]
        assert np.allclose(rows.evidence, [text.evidence for (text,) in texts], atol=1e-5)


def test_prompts_are_asked_about_token_by_token(tiny, adapter):
    frame = ask("the quick brown fox", PERSON, ["yes", "no"], model=tiny(), adapter=adapter, positions="all")
    assert frame.position.tolist() == [i for i in range(len(frame) // 2) for _ in range(2)]
    assert np.allclose(frame.groupby("position").probability.sum(), 1)
    single = ask("the quick brown fox", PERSON, ["yes", "no"], model=tiny(), adapter=adapter)
    assert single.contrast.isna().all()


def test_what_makes_no_sense_is_refused(tiny, adapter, random_vectors, unchecked):
    vectors = random_vectors(2, 32)
    for choices in (["yes"], ["yes", "yes "], "yes", []):
        with pytest.raises(InterpToolkitError, match="expected at least two different choices"):
            ask(vectors, PERSON, choices, model=tiny(), adapter=adapter)
    for question in ("", [], ["", PERSON], 3):
        with pytest.raises(InterpToolkitError, match="expected a question or several"):
            ask(vectors, question, model=tiny(), adapter=adapter)
    with pytest.raises(
        InterpToolkitError,
        match=r"expected other vectors of shape \(m, 32\) in against, or spans of them, got \(1, 31\)",
    ):
        ask(vectors, PERSON, CHOICES, model=tiny(), adapter=adapter, against=torch.ones(1, 31))
    with pytest.raises(InterpToolkitError, match="against would have no effect"):
        ask(vectors, PERSON, model=tiny(), adapter=adapter, against=vectors)
