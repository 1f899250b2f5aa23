"""Several tokens of one text as one input: how their vectors are laid out, learnt, stored and asked about."""

import dataclasses

import numpy as np
import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, SoftPrompt, TrainConfig, VectorLabelPairs, ask, train_adapter
from interp_toolkit.adapters import soft_tokens_of
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.answers import KnownAnswers, answer_table
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import PromptRun, score

QUESTION, CHOICES = "Is this a person?", ["yes", "no"]


def _two_tokens(adapter, seed=3):
    """An adapter that makes two soft tokens of each vector, with the contract of another."""
    wide = Adapter.create("full_rank", 32, tokens=2, seed=seed).requires_grad_(False)
    wide.contract = dataclasses.replace(
        adapter.contract, soft_prompt=adapter.contract.require_soft_prompt().with_room(2)
    )
    return wide


def _spans(count=64, seed=0):
    """Spans of three vectors; the answer is whether the marks of the first and of the last are alike."""
    drawn = torch.Generator().manual_seed(seed)
    vectors = 0.1 * torch.randn(count, 3, 32, generator=drawn)
    marks = torch.rand(2, count, generator=drawn) < 0.5
    vectors[marks[0], 0, :8] += 3
    vectors[~marks[0], 0, :8] -= 3
    vectors[marks[1], 2, 8:16] += 3
    vectors[~marks[1], 2, 8:16] -= 3
    answers = ["yes" if first else "no" for first in marks[0].tolist()]
    sides = ["train" if i < count * 3 // 4 else "val" for i in range(count)]
    return VectorLabelPairs.from_tensors(vectors, answers, splits=sides).with_questions(QUESTION)


def test_room_for_a_span_is_slots_in_a_row(smollm):
    prompt = SoftPrompt.for_chat(smollm.tokenizer, tokens=2)
    one, three = prompt.tokens(smollm.tokenizer), prompt.with_room(3).tokens(smollm.tokenizer)
    assert len(three.slots) == 3 * len(one.slots)
    assert three.slots[:6] == tuple(range(one.slots[0], one.slots[0] + 6))
    # Nothing else of the text changes.
    rest = [[x for i, x in enumerate(tokens.ids) if i not in tokens.slots] for tokens in (one, three)]
    assert rest[0] == rest[1]
    assert prompt.with_room(1) == prompt
    about = prompt.with_questions(smollm.tokenizer)
    assert about.with_room(3).about(QUESTION, smollm.tokenizer) == about.about(QUESTION, smollm.tokenizer).with_room(3)
    with pytest.raises(InterpToolkitError, match="expected room for at least one vector, got 0"):
        prompt.with_room(0)


def test_each_vector_of_a_span_becomes_soft_tokens_of_its_own(adapter, random_vectors, unchecked):
    spans = random_vectors(12).view(4, 3, 32)
    assert torch.equal(soft_tokens_of(adapter, spans), torch.stack([adapter(span) for span in spans]))
    wide = _two_tokens(adapter)
    assert soft_tokens_of(wide, spans).shape == (4, 6, 32)
    assert torch.allclose(soft_tokens_of(wide, spans)[1], wide(spans[1]).flatten(0, 1), atol=1e-6)
    assert torch.equal(soft_tokens_of(wide, spans[1], 2.0), wide(spans[1], 2.0))
    # Two vectors would fill the two slots of a prompt that is meant for one.
    with pytest.raises(InterpToolkitError, match=r"expected vectors of shape \(n, 32\)"):
        adapter(spans[:, :2])


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2])
def test_choices_about_spans_are_those_of_hugging_face(tiny, tiny_hf, adapter, random_vectors, architecture, tokens):
    model, hf = tiny(architecture), tiny_hf(architecture)
    rows = len(hf.get_input_embeddings().weight)
    one = SoftPrompt.for_tokenizer(model.tokenizer, tokens, vocabulary=rows)
    asked = adapter if tokens == 1 else _two_tokens(adapter)
    asked.contract = Contract.from_facts(model_facts(model), None, one, None, asked.config.normalize)
    spans = random_vectors(9).view(3, 3, 32)
    frame = ask(spans, QUESTION, CHOICES, model=model, adapter=asked)
    prompt = one.about(QUESTION, model.tokenizer).with_room(3)
    targets, ids = prompt.targets(model.tokenizer, CHOICES), prompt.tokens(model.tokenizer)
    expected = []
    for span in [torch.zeros(3, 32), *spans]:
        for target in targets:
            embeddings = hf.get_input_embeddings()(torch.tensor([[*ids.ids, *target]])).clone()
            soft_tokens = torch.cat([asked(vector).view(-1, 32) for vector in span])
            embeddings[0, list(ids.slots)] = soft_tokens.repeat(len(ids.slots) // len(soft_tokens), 1)
            steps = hf(inputs_embeds=embeddings).logits[0, len(ids.ids) - 1 : -1].log_softmax(-1)
            expected.append(steps[torch.arange(len(target)), torch.tensor(target)].mean().item())
    expected = np.array(expected).reshape(4, 2)
    assert np.allclose(frame.log_prob.to_numpy().reshape(3, 2), expected[1:], atol=1e-4)
    assert np.allclose(frame.evidence.to_numpy().reshape(3, 2), expected[1:] - expected[0], atol=1e-4)
    assert frame.source.tolist() == [f"span {i}" for i in range(3) for _ in CHOICES]
    assert ask(spans[:0], QUESTION, CHOICES, model=model, adapter=asked).empty
    alone = ask(spans[0], QUESTION, CHOICES, model=model, adapter=asked)
    assert len(alone) == 6
    assert not np.allclose(alone.log_prob[:2], frame.log_prob[:2], atol=1e-3)


def test_tokens_of_a_prompt_are_asked_about_together(tiny, adapter):
    texts = ["the quick brown fox", "a river", "the lazy dog jumps"]
    settings = dict(model=tiny(), adapter=adapter, positions="content", chat=False)
    together = ask(texts, QUESTION, CHOICES, together=True, **settings)
    assert together.source.tolist() == [text for text in texts for _ in CHOICES]
    each = ask(texts, QUESTION, CHOICES, **settings)
    last = each.groupby("source", sort=False).tail(2)
    assert together.position.tolist() == last.position.tolist()
    assert together.token.tolist() == last.token.tolist()
    # Each as alone, whatever the lengths of the others; its contrast needs them.
    for i, text in enumerate(texts):
        (rows,) = [frame for _, frame in together.groupby("source") if frame.source.iloc[0] == text]
        alone = ask(text, QUESTION, CHOICES, together=True, **settings)
        assert np.allclose(alone.log_odds, rows.log_odds, atol=1e-4)
        assert alone.contrast.isna().all()
        others = together.drop(rows.index).log_odds.to_numpy().reshape(-1, 2).mean(0)
        assert np.allclose(rows.contrast, rows.log_odds - others, atol=1e-4), i
    free = ask(texts, QUESTION, together=True, **settings)
    assert free.source.tolist() == texts
    assert free.answer.tolist()[1] == ask(texts[1], QUESTION, together=True, **settings).answer[0]
    against = torch.randn(4, 3, 32, generator=torch.Generator().manual_seed(2))
    fixed = ask(texts, QUESTION, CHOICES, together=True, against=against, **settings)
    rest = ask(against, QUESTION, CHOICES, model=tiny(), adapter=adapter).log_odds.to_numpy().reshape(4, 2)
    assert np.allclose(fixed.contrast, fixed.log_odds - np.tile(rest.mean(0), 3), atol=1e-4)


def test_more_than_sixteen_tokens_together_are_refused(tiny, adapter):
    text = "the quick brown fox jumps over the lazy dog " * 3
    with pytest.raises(InterpToolkitError, match=r"expected at most 16 tokens of a text together, got \d+ of 'the qu"):
        ask(text, QUESTION, CHOICES, model=tiny(), adapter=adapter, positions="content", chat=False, together=True)


def test_pairs_of_spans_are_stored_and_mixed_with_their_like_alone(tmp_path):
    pairs = _spans()
    assert "64 spans of 3 vectors of width 32" in repr(pairs)
    pairs.save(tmp_path / "pairs")
    again = VectorLabelPairs.load(tmp_path / "pairs")
    assert torch.equal(again.vectors, pairs.vectors)
    assert torch.equal(again.gather([5, 2]), pairs.vectors[[5, 2]])
    assert torch.equal(VectorLabelPairs.concat([pairs, again]).vectors[64:], pairs.vectors)
    batches = [(pairs.vectors[:40], pairs.labels[:40]), (pairs.vectors[40:], pairs.labels[40:])]
    assert torch.equal(VectorLabelPairs.from_batches(tmp_path / "batches", batches).vectors, pairs.vectors)
    single = VectorLabelPairs.from_tensors(pairs.vectors[:, 0], pairs.labels, splits=pairs.splits)
    with pytest.raises(InterpToolkitError, match=r"expected single vectors to mix, or spans of one length"):
        VectorLabelPairs.concat([pairs, single])
    shorter = [batches[0], (batches[1][0][:, :2], batches[1][1])]
    with pytest.raises(InterpToolkitError, match="expected vectors of width 3 x 32, got 2 x 32 from row 40 on"):
        VectorLabelPairs.from_batches(tmp_path / "uneven", shorter)
    for value, text in ((0.0, "vector 7 is zero"), (torch.nan, "vector 7 holds NaN")):
        broken = pairs.vectors
        broken[7, 1] = value
        with pytest.raises(InterpToolkitError, match=text):
            VectorLabelPairs.from_tensors(broken, pairs.labels)


def test_training_on_spans_minimises_the_loss_in_their_prompt(tiny, tiny_prompt):
    pairs, start = _spans(), Adapter.create("full_rank", d_model=32)
    config = TrainConfig(epochs=1, max_steps=1, eval_every=1, lr=1e-12, batch_size=8, warmup_steps=0, log_samples=1)
    result = train_adapter(tiny(), pairs, start, config, soft_prompt=tiny_prompt, progress=False)
    held, tokenizer = pairs.split("val"), tiny().tokenizer
    run = PromptRun(tiny(), tiny_prompt.about(QUESTION, tokenizer).with_room(3))
    targets = run.soft_prompt.targets(tokenizer, [label for (label,) in held.labels])
    expected = -score(run, soft_tokens_of(start, held.vectors), targets).mean().mean().item()
    assert result.history.val_loss.iloc[0] == pytest.approx(expected, abs=1e-5)
    # The prompt that is stored has the slots of one vector: a span may have any length.
    assert result.adapter.contract.soft_prompt == tiny_prompt.with_questions(tokenizer)
    with pytest.raises(InterpToolkitError, match="ridge_init fits the soft tokens of single vectors"):
        train_adapter(tiny(), pairs, start, dataclasses.replace(config, ridge_init=0.1), soft_prompt=tiny_prompt)


def test_what_stands_in_the_first_vector_of_a_span_is_learnt_and_measured(tiny, tiny_prompt):
    pairs = _spans(96)
    config = TrainConfig(epochs=25, eval_every=20, lr=0.02, batch_size=8, warmup_steps=2, log_samples=0)
    start = Adapter.create("full_rank", d_model=32)
    adapter = train_adapter(tiny(), pairs, start, config, soft_prompt=tiny_prompt, progress=False).adapter
    held, train = _spans(60, seed=1), pairs

    def known(of):
        return KnownAnswers(QUESTION, CHOICES, of.vectors, [CHOICES.index(label) for (label,) in of.labels])

    pytest.importorskip("sklearn")
    table = answer_table(tiny(), adapter, known(held), train=known(train), untrained_scale=3.0).set_index("by")
    assert table.value["adapter"] > 0.9
    assert table.value["linear probe"] > 0.9
    assert 0.25 < table.value["shuffled vectors"] < 0.75
