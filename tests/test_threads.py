"""Passes whose rows are shared out among threads: the numbers and gradients of one thread, and nothing left behind."""

import threading
from dataclasses import replace
from itertools import chain

import pytest
import torch

from interp_toolkit.models import backend_of, batches, threads
from interp_toolkit.models.attention import attend_at_once
from interp_toolkit.models.bare import _Norm
from interp_toolkit.runtime import PromptRun, generate, log_probs, next_tokens, score

TARGETS = [[5, 9, 31], [7], [2, 8, 1, 4], [40, 11], [3, 17], [22, 29, 6, 12, 30]]


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads, which share out the smallest pass."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "_FEWEST_TOKENS", 1)
    for module in (log_probs, next_tokens):
        monkeypatch.setattr(module, "_FEWEST", 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def started(monkeypatch):
    """How many threads each call started."""
    counts = []
    run = threads.run_in_threads

    def counted(tasks):
        counts.append(len(tasks))
        return run(tasks)

    for module in (threads, log_probs, next_tokens):
        monkeypatch.setattr(module, "run_in_threads", counted)
    return counts


def _losses_and_gradient(run, smoothing=0.0):
    torch.manual_seed(0)
    soft_tokens = torch.randn(len(TARGETS), run.backend.d_model, requires_grad=True)
    values = score(run, soft_tokens, TARGETS, smoothing=smoothing).mean()
    (values * torch.arange(1.0, len(TARGETS) + 1)).sum().backward()
    return values.detach(), soft_tokens.grad


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_threads_give_the_losses_and_gradients_of_one(tiny, tiny_prompt, family, smoothing, three_threads, started):
    run = PromptRun(tiny(family), tiny_prompt)
    in_threads = _losses_and_gradient(run, smoothing)
    assert started == [3, 3, 3]  # the blocks, the vocabulary, and the way back through the blocks
    torch.set_num_threads(1)
    for x, y in zip(in_threads, _losses_and_gradient(run, smoothing)):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)
    assert started[3:] == [1]


def test_without_gradients_rows_are_shared_out_too(tiny, tiny_prompt, three_threads, started):
    run = PromptRun(tiny(), tiny_prompt)
    soft_tokens = torch.randn(len(TARGETS), run.backend.d_model)
    with torch.no_grad():
        in_threads = score(run, soft_tokens, TARGETS).log_probs
        torch.set_num_threads(1)
        alone = score(run, soft_tokens, TARGETS).log_probs
    assert started == [3]
    torch.testing.assert_close(in_threads, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, dict(samples=3, temperature=0.8), dict(samples=2, temperature=1.0, top_p=0.7)]
)
def test_threads_write_the_texts_of_one(tiny, tiny_prompt, settings, three_threads, started, monkeypatch):
    run = PromptRun(tiny(), tiny_prompt)
    soft_tokens = torch.randn(7, run.backend.d_model, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(batches, "_ON_CPU", replace(batches._ON_CPU, logits=2))
    in_threads = generate(run, soft_tokens, max_new_tokens=5, until="length", **settings)
    assert 3 in started
    torch.set_num_threads(1)
    alone = generate(run, soft_tokens, max_new_tokens=5, until="length", **settings)
    for text, other in zip(chain(*in_threads), chain(*alone), strict=True):
        assert text.token_ids == other.token_ids
        assert text.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_afterwards_torch_has_as_many_threads_as_before(three_threads):
    used = threads.run_in_threads([torch.get_num_threads] * 2)
    in_new_thread = []
    worker = threading.Thread(target=lambda: in_new_thread.append(torch.get_num_threads()))
    worker.start()
    worker.join()
    assert used == [1, 1]
    assert torch.get_num_threads() == 3
    assert in_new_thread == [3]


def test_an_error_in_a_thread_is_raised(three_threads):
    with pytest.raises(ZeroDivisionError):
        threads.run_in_threads([lambda: 1, lambda: 1 / 0])
    assert torch.get_num_threads() == 3


def test_a_hook_of_the_user_runs_in_the_thread_of_the_user(tiny, tiny_prompt, three_threads, started):
    model = tiny()
    run, seen = PromptRun(model, tiny_prompt), []
    with model.hooks(fwd_hooks=[("unembed.hook_out", lambda x, hook: seen.append(threading.current_thread()))]):
        _losses_and_gradient(run)
    assert set(seen) == {threading.current_thread()}
    assert set(started) == {1}


@pytest.mark.parametrize("shared", [0, 3])
def test_the_gradient_of_attention_is_that_of_torch(shared):
    torch.manual_seed(0)
    batch, heads, groups, new, keys, d_head = 2, 6, 3, 4, 5, 8
    query = torch.randn(batch, heads, new, d_head, requires_grad=True)
    key, value = (torch.randn(batch, groups, keys, d_head, requires_grad=True) for _ in range(2))
    before = tuple(torch.randn(1, groups, shared, d_head) for _ in range(2))
    hidden = torch.arange(shared + keys) > torch.arange(shared + keys - new, shared + keys)[:, None]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query,
        *(torch.cat([x.expand(batch, -1, -1, -1), y], 2) for x, y in zip(before, (key, value))),
        attn_mask=~hidden,
        scale=0.3,
        enable_gqa=True,
    )
    got = attend_at_once(query, key, value, before if shared else None, hidden, 0.3)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        without = attend_at_once(query, key, value, before if shared else None, hidden, 0.3)
    torch.testing.assert_close(without, wanted, atol=1e-6, rtol=1e-5)
    weights = torch.randn_like(wanted)
    for x, y in zip(*(torch.autograd.grad(out, (query, key, value), weights) for out in (got, wanted))):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-4)


def test_the_gradient_of_the_norm_is_that_of_torch():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 16, requires_grad=True), torch.rand(16)
    wanted = torch.nn.functional.rms_norm(x, (16,), weight, 1e-5)
    got = _Norm.apply(x, weight, 1e-5)
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(x)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, weights)[0] for out in (got, wanted)))


def test_a_model_is_looked_at_once_while_it_is_taken_to_be_still(tiny, monkeypatch):
    backend = backend_of(tiny())
    with backend.still():
        seen = backend.look()
        weight = next(backend.model.original_model.parameters())
        before = weight.detach().clone()
        with torch.no_grad():
            weight.add_(1)
        try:
            with backend.still():
                assert backend.look() is seen
            assert backend.look() is seen
            other = []
            worker = threading.Thread(target=lambda: other.append(backend.look()))
            worker.start()
            worker.join()
        finally:
            with torch.no_grad():
                weight.copy_(before)
    assert other[0] != seen
    assert backend.look() != seen
