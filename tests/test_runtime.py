"""Scoring and generation against Hugging Face's own model fed with edited embeddings, prompt by prompt."""

import sys
from dataclasses import replace

import pytest
import torch

from interp_toolkit import InterpToolkitError, Site, SoftPrompt
from interp_toolkit.models import backend_of, batches
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.runtime.generate import closing_quote, described
from interp_toolkit.runtime.log_probs import token_log_probs

LABELS = ["rivers", "the history of Poland", "a", "a quick brown fox", "baseball, and so on"]


def _edited(hf, run, soft_token, target=()):
    """Embeddings of prompt and target with the soft token at the slots."""
    embeddings = hf.get_input_embeddings()(torch.tensor([[*run.tokens.ids, *target]])).clone()
    embeddings[0, list(run.tokens.slots)] = soft_token
    return embeddings


def _truth(hf, run, soft_tokens, targets, owners=None):
    """Mean log-probability of each target: the whole prompt every time, logits everywhere."""
    owners = range(len(targets)) if owners is None else owners
    means = []
    for owner, target in zip(owners, targets):
        logits = hf(inputs_embeds=_edited(hf, run, soft_tokens[owner], target)).logits[0]
        steps = logits[len(run.tokens.ids) - 1 : -1].log_softmax(-1)
        means.append(steps[torch.arange(len(target)), torch.tensor(target)].mean())
    return torch.stack(means)


def _case(model, prompt, vectors):
    run = PromptRun(model, prompt)
    return run, vectors * 0.7, prompt.targets(model.tokenizer, LABELS)


def test_scores_and_gradients_are_those_of_edited_embeddings(
    tiny, tiny_hf, tiny_prompt, random_vectors, architecture, backend
):
    run, vectors, targets = _case(tiny(architecture, backend), tiny_prompt, random_vectors(5))
    ours, theirs = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    got, truth = score(run, ours, targets).mean(), _truth(tiny_hf(architecture), run, theirs, targets)
    assert torch.allclose(got, truth, atol=1e-4, rtol=0)
    got.sum().backward()
    truth.sum().backward()
    assert theirs.grad.norm() > 1e-3
    assert (ours.grad - theirs.grad).norm() / theirs.grad.norm() < 1e-4


def test_scores_of_the_embedded_model(smollm, smollm_hf, random_vectors):
    run, vectors, targets = _case(smollm, SoftPrompt.for_chat(smollm.tokenizer), random_vectors(5, 576) / 5)
    ours, theirs = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    got, truth = score(run, ours, targets).mean(), _truth(smollm_hf, run, theirs, targets)
    assert torch.allclose(got, truth, atol=1e-4, rtol=0)
    got.mean().backward()
    truth.mean().backward()
    assert (ours.grad - theirs.grad).norm() / theirs.grad.norm() < 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_log_probs_of_many_tokens_are_those_of_their_logits(tiny, architecture, backend, smoothing):
    own = backend_of(tiny(architecture, backend))
    # Some so large that most probabilities are too small for float32; their logarithms are not.
    states = (
        torch.randn(40, own.d_model, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3000, 40)[:, None]
    )
    logits = own.logits(states)
    assert (logits.softmax(-1) == 0).any() or own.logit_transform
    tokens = torch.arange(40) % logits.shape[-1]
    ours, theirs = states.clone().requires_grad_(), states.clone().requires_grad_()
    got = token_log_probs(own, ours, tokens, smoothing)
    truth = -torch.nn.functional.cross_entropy(own.logits(theirs), tokens, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(got, truth, rtol=1e-5, atol=1e-4)
    assert torch.equal(token_log_probs(own, states, tokens, smoothing), got)
    weights = torch.linspace(-1, 2, 40)
    (got * weights).sum().backward()
    (truth * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * theirs.grad.abs().max().item())


def test_targets_that_share_a_soft_token_score_the_same(
    tiny, tiny_hf, tiny_prompt, random_vectors, architecture, backend
):
    run, vectors, targets = _case(tiny(architecture, backend), tiny_prompt, random_vectors(3))
    owners = [2, 0, 2, 1, 0]
    ours = vectors.clone().requires_grad_()
    got = score(run, ours, targets, owners)
    assert got.lengths == tuple(map(len, targets))
    assert torch.allclose(got.mean(), _truth(tiny_hf(architecture), run, vectors, targets, owners), atol=1e-4, rtol=0)
    theirs = vectors.clone().requires_grad_()
    got.mean().sum().backward()
    score(run, theirs[torch.tensor(owners)], targets).mean().sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_batch_size_and_order_change_no_score(tiny, tiny_prompt, random_vectors, monkeypatch, rows, backend):
    run, vectors, targets = _case(tiny("llama", backend), tiny_prompt, random_vectors(5))
    whole = score(run, vectors, targets)
    monkeypatch.setattr(batches, "_ON_CPU", replace(batches._ON_CPU, rows=rows, logits=rows))
    assert torch.allclose(score(run, vectors, targets).log_probs, whole.log_probs, atol=1e-5)
    turned = score(run, vectors.flip(0), targets[::-1]).mean().flip(0)
    assert torch.allclose(turned, whole.mean(), atol=1e-5)
    shared = [score(run, vectors[:1], targets, [0] * 5).mean(), score(run, vectors[:1].expand(5, -1), targets).mean()]
    assert torch.allclose(*shared, atol=1e-5)


@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize("where", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"])
def test_injection_inside_the_model(tiny, tiny_hf, tiny_prompt, random_vectors, architecture, backend, where, mode):
    """Against a hook on Hugging Face's own layer, whole prompts at a time."""
    hf = tiny_hf(architecture)
    run, vectors, targets = _case(tiny(architecture, backend), tiny_prompt.at(where, mode), random_vectors(5))
    layers = hf.transformer.h if architecture == "gpt2" else hf.model.layers
    site, slots = Site.parse(where), list(run.tokens.slots)
    layer = layers[site.layer + (site.hook == "hook_resid_post")]

    def truth(vector, target):
        def write(module, arguments):
            stream = arguments[0].clone()
            stream[0, slots] = vector if mode == "replace" else stream[0, slots] + vector
            return (stream, *arguments[1:])

        handle = layer.register_forward_pre_hook(write)
        try:
            logits = hf(torch.tensor([[*run.tokens.ids, *target]])).logits[0]
        finally:
            handle.remove()
        return logits[len(run.tokens.ids) - 1 : -1].log_softmax(-1)[torch.arange(len(target)), target].mean()

    expected = torch.stack([truth(vector, target) for vector, target in zip(vectors, targets)])
    assert torch.allclose(score(run, vectors, targets).mean(), expected, atol=1e-4, rtol=0)


def test_what_cannot_be_scored(tiny, tiny_prompt, random_vectors):
    run, vectors, targets = _case(tiny(), tiny_prompt, random_vectors(5))
    with pytest.raises(InterpToolkitError, match="a soft token for each of 5 targets, got 3"):
        score(run, vectors[:3], targets)
    with pytest.raises(InterpToolkitError, match="target 1 has no tokens"):
        score(run, vectors[:2], [[3], []])
    with pytest.raises(InterpToolkitError, match=r"blocks\.9\.hook_resid_pre does not exist"):
        PromptRun(tiny(), tiny_prompt.at("blocks.9.hook_resid_pre"))


def test_a_hook_inside_the_attention_is_heard_and_changes_no_number(tiny, tiny_prompt, random_vectors, architecture):
    """Such hooks put the bridge's own attention in the place of the shared one; both give the same scores."""
    model = tiny(architecture)
    run, vectors, targets = _case(model, tiny_prompt, random_vectors(5))
    fast, heard = score(run, vectors, targets).log_probs, []
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda x, hook: heard.append(x.shape))]):
        slow = score(run, vectors, targets).log_probs
        owned = score(run, vectors, targets, [0, 1, 0, 2, 1]).log_probs
    assert len(heard) >= 3
    assert torch.allclose(fast, slow, atol=1e-4)
    assert torch.allclose(score(run, vectors, targets, [0, 1, 0, 2, 1]).log_probs, owned, atol=1e-4)


# Generation.


def _hf_greedy(hf, run, soft_token, count):
    """Hugging Face's own generate on edited embeddings, one prompt alone."""
    out = hf.generate(
        inputs_embeds=_edited(hf, run, soft_token),
        attention_mask=torch.ones(1, len(run.tokens.ids), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=[2, 4],
        pad_token_id=0,
    )[0].tolist()
    ends = [i for i, token in enumerate(out) if token in (2, 4)]
    return tuple(out[: ends[0]] if ends else out)


def test_greedy_text_is_that_of_edited_embeddings(tiny, tiny_hf, tiny_prompt, random_vectors, architecture, backend):
    run, vectors, _ = _case(tiny(architecture, backend), tiny_prompt, random_vectors(6))
    got = generate(run, vectors, max_new_tokens=12, until="stop")
    assert [row[0].token_ids for row in got] == [_hf_greedy(tiny_hf(architecture), run, v, 12) for v in vectors]


def test_greedy_text_of_the_embedded_model(smollm, smollm_hf, random_vectors):
    run = PromptRun(smollm, SoftPrompt.for_chat(smollm.tokenizer))
    vectors = random_vectors(4, 576) * 0.1
    got = generate(run, vectors, max_new_tokens=10, until="stop")
    truth = []
    for vector in vectors:
        ids = smollm_hf.generate(
            inputs_embeds=_edited(smollm_hf, run, vector),
            attention_mask=torch.ones(1, len(run.tokens.ids), dtype=torch.long),
            max_new_tokens=10,
            do_sample=False,
        )[0].tolist()
        truth.append(tuple(ids[: ids.index(2)] if 2 in ids else ids))
    assert [row[0].token_ids for row in got] == truth


def test_log_probs_of_a_text_are_its_score(tiny, tiny_prompt, random_vectors, backend):
    run, vectors, _ = _case(tiny("qwen2", backend), tiny_prompt, random_vectors(4))
    rows = generate(run, vectors, samples=3, temperature=1.3, top_p=0.8, max_new_tokens=8, until="stop")
    texts = [text for row in rows for text in row if text.token_ids]
    owners = [i for i, row in enumerate(rows) for text in row if text.token_ids]
    result = score(run, vectors, [text.token_ids for text in texts], owners)
    assert torch.allclose(result.log_probs, torch.tensor([x for text in texts for x in text.log_probs]), atol=1e-4)


def test_samples_depend_on_vector_seed_and_number_alone(tiny, tiny_prompt, random_vectors, monkeypatch, backend):
    run, vectors, _ = _case(tiny("llama", backend), tiny_prompt, random_vectors(6))
    settings = dict(samples=4, temperature=1.0, top_p=0.9, seed=3, max_new_tokens=8)
    whole = generate(run, vectors, **settings)
    assert _same_text(generate(run, vectors.flip(0), **settings)[::-1], whole)
    assert _same_text([generate(run, vectors[i : i + 1], **settings)[0] for i in range(6)], whole)
    module = sys.modules["interp_toolkit.runtime.generate"]
    monkeypatch.setattr(module, "_ROWS", 5)
    assert _same_text(generate(run, vectors, **settings), whole)
    monkeypatch.setattr(module, "_FINISHED_SHARE", 1.0)  # finished rows are carried along
    assert _same_text(generate(run, vectors, **settings), whole)
    assert not _same_text(generate(run, vectors, **{**settings, "seed": 4}), whole)
    fewer = generate(run, vectors, **{**settings, "samples": 2})
    assert _same_text(fewer, [row[:2] for row in whole])


def _same_text(one, two):
    return [[text.token_ids for text in row] for row in one] == [[text.token_ids for text in row] for row in two]


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_samples_follow_the_models_distribution(tiny, tiny_hf, tiny_prompt, random_vectors, top_p):
    run, vectors, _ = _case(tiny("llama"), tiny_prompt, random_vectors(1))
    logits = tiny_hf("llama")(inputs_embeds=_edited(tiny_hf("llama"), run, vectors[0])).logits[0, -1]
    probs = (logits / 0.7).softmax(-1)
    order = probs.argsort(descending=True)
    kept = order[: int((probs[order].cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
    expected = torch.zeros_like(probs).index_copy(0, kept, probs[kept] / probs[kept].sum())
    n = 3000
    rows = generate(run, vectors, samples=n, temperature=0.7, top_p=top_p, max_new_tokens=1, until="stop", seed=1)[0]
    drawn = torch.tensor([text.token_ids[0] if text.token_ids else -1 for text in rows])
    stops = torch.tensor([2, 4])
    for token in kept[:8].tolist():
        if token in stops:
            continue
        share = (drawn == token).float().mean().item()
        p = expected[token].item()
        assert abs(share - p) < 4.5 * (p * (1 - p) / n) ** 0.5 + 1e-6
    assert set(drawn.tolist()) <= set(kept.tolist()) | {-1}


def test_draws_are_looked_up_in_the_cumulated_weights():
    from interp_toolkit.runtime.next_tokens import _invert

    weights = torch.rand(50, 1000, generator=torch.Generator().manual_seed(0)) * (torch.arange(1000) % 7 != 0)
    draws = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    draws[:2] = torch.tensor([0.0, 1 - 1e-16])
    cumulated = weights.double().cumsum(-1)
    truth = torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True)[:, 0]
    actual = _invert(weights, draws)
    assert torch.equal(actual[2:], truth[2:])
    assert (weights.gather(1, actual[:, None]) > 0).all()  # never a token of weight zero


def test_finished_rows_stop_and_length_is_kept(tiny, tiny_prompt, random_vectors):
    run, vectors, _ = _case(tiny("llama"), tiny_prompt, random_vectors(20))
    for row in generate(run, vectors, samples=5, temperature=1.5, max_new_tokens=6):
        for text in row:
            ids = text.token_ids
            assert len(ids) == len(text.log_probs) <= 6
            assert not {2, 4} & set(ids)
            written = run.model.tokenizer.decode(ids)
            if text.finish_reason == "quote":
                assert text.text == written[: closing_quote(written)].strip()
            else:
                assert text.text == described(written)
                assert text.finish_reason == "stop" or len(ids) == 6


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('a bird" and so on', 6),
        ('"Weird Al" Yankovic"', 19),
        ('the song "Help!" by the Beatles".', 31),
        ("no end", None),
        ('"open', None),
        ('("x") y"', 7),
        ('12" records', 2),
    ],
)
def test_the_closing_quote(text, end):
    assert closing_quote(text) == end


@pytest.mark.parametrize(
    ("text", "result"), [(' a bird" x', "a bird"), ('Bees "', "Bees"), ("no end ", "no end"), ('"', "")]
)
def test_what_a_text_describes(text, result):
    assert described(text) == result


@pytest.mark.parametrize(
    "settings", [dict(samples=0), dict(max_new_tokens=0), dict(temperature=-1.0), dict(top_p=0.0), dict(top_p=1.5)]
)
def test_settings_out_of_range(tiny, tiny_prompt, random_vectors, settings):
    run, vectors, _ = _case(tiny(), tiny_prompt, random_vectors(1))
    with pytest.raises(InterpToolkitError, match="expected samples and max_new_tokens of at least 1"):
        generate(run, vectors, **settings)
    with pytest.raises(InterpToolkitError, match="at temperature 0 all 2 samples would be the same"):
        generate(run, vectors, samples=2)


def test_no_vectors_give_no_texts_and_no_scores(tiny, tiny_prompt, random_vectors):
    run = PromptRun(tiny(), tiny_prompt)
    assert generate(run, random_vectors(0)) == []
    assert len(score(run, random_vectors(0), []).mean()) == 0
