"""Passes without hook points: bit by bit what the hooked pass gives, and only where nobody listens inside."""

import pytest
import torch
from torch import nn

from interp_toolkit.models import backend_of, bare, shared_attention
from interp_toolkit.models.backend import StopForward
from interp_toolkit.sites import Site

FAMILIES = ["llama", "qwen2"]
TOKENS = torch.tensor([[5, 9, 31, 7, 2], [8, 1, 4, 40, 11], *([row] * 5 for row in (3, 17, 22, 29))])


@pytest.fixture(params=FAMILIES)
def backend(request, tiny):
    return backend_of(tiny(request.param))


def _hooked(backend, monkeypatch):
    monkeypatch.setattr(backend, "_is_bare", lambda edits: False)


def _counted(backend, monkeypatch):
    """How often a pass went without hook points."""
    count = []
    run = backend._run_bare

    def counted(*arguments):
        count.append(1)
        return run(*arguments)

    monkeypatch.setattr(backend, "_run_bare", counted)
    return count


def _everything(backend, tokens=TOKENS):
    """Final states of a pass behind a shared prefix, of tokens behind it, and what edits saw on the way."""
    seen = {}

    def see(name):
        def edit(stream):
            seen[name] = stream.clone()

        return edit

    edits = {
        Site.embedding(): lambda stream: stream * 1.5,
        Site(1, "hook_resid_pre"): see("before block 1"),
        Site.after(1): lambda stream: stream + 0.25,
        Site.after(2): see("after block 2"),
    }
    with torch.no_grad():
        past = backend.prefix(torch.tensor([[3, 12, 6]]))
        first, grown = backend.hidden(tokens, past, edits, keep=True, reserve=3)
        second, again = backend.hidden(tokens[:, :1], grown, keep=True, reserve=3)
        third, none = backend.hidden(tokens[:, :2], again.take(torch.arange(len(tokens)).flip(0)))
    assert none is None
    return [first, second, third, *seen.values(), *(x for pair in past.layers for x in pair)]


@pytest.mark.parametrize("copied", [0, 5])
def test_a_pass_without_hook_points_is_the_hooked_pass_bit_by_bit(backend, monkeypatch, copied):
    for module in (bare, shared_attention):
        monkeypatch.setattr(module, "MOST_COPIED", copied)
    count = _counted(backend, monkeypatch)
    without = _everything(backend)
    assert len(count) == 4
    _hooked(backend, monkeypatch)
    hooked = _everything(backend)
    assert len(count) == 4
    assert len(without) == len(hooked) == 5 + 2 * backend.n_layers
    assert all(torch.equal(x, y) for x, y in zip(without, hooked))


def test_few_rows_with_a_copy_of_the_prefix_each_are_the_hooked_pass(backend, monkeypatch):
    without = _everything(backend, TOKENS[:2])
    _hooked(backend, monkeypatch)
    for x, y in zip(without, _everything(backend, TOKENS[:2])):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


def test_gradients_reach_what_an_edit_writes(backend, monkeypatch):
    grads = []
    for hooked in (False, True):
        if hooked:
            _hooked(backend, monkeypatch)
        written = torch.ones(*TOKENS.shape, backend.d_model, requires_grad=True)
        states, _ = backend.hidden(TOKENS, None, {Site.embedding(): lambda stream, x=written: stream + x})
        states.square().sum().backward()
        grads.append(written.grad)
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-4)
    assert all(parameter.grad is None for parameter in backend.model.original_model.parameters())


def test_a_pass_ends_where_an_edit_says(backend, monkeypatch):
    count, seen = _counted(backend, monkeypatch), []

    def stop(stream):
        seen.append(stream.shape)
        raise StopForward

    backend.visit(TOKENS, None, {Site.after(1): stop, Site.after(2): lambda stream: seen.append("too deep")})
    assert seen == [(*TOKENS.shape, backend.d_model)]
    assert count == [1]


def test_whoever_listens_inside_is_heard(tiny, monkeypatch):
    model = tiny()
    backend, seen = backend_of(model), []
    count = _counted(backend, monkeypatch)
    backend.hidden(TOKENS, None, {Site(1, "hook_attn_out"): lambda x: seen.append("attention")})
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_out", lambda x, hook: seen.append("MLP"))]):
        backend.hidden(TOKENS)
    handle = model.blocks[0].mlp.register_forward_hook(lambda *_: seen.append("module"))
    backend.hidden(TOKENS)
    handle.remove()
    assert seen == ["attention", "MLP", "module"]
    assert not count
    backend.hidden(TOKENS)
    assert count == [1]


class Doubled(nn.Linear):
    """A projection of the user's own."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_module_that_is_replaced_later_is_run(tiny, monkeypatch):
    model = tiny()
    backend = backend_of(model)
    with torch.no_grad():
        before, _ = backend.hidden(TOKENS)
        mlp = model.blocks[0].mlp.original_component
        projection = mlp.up_proj.original_component
        other = Doubled(projection.in_features, projection.out_features, bias=False)
        other.weight = nn.Parameter(projection.weight / 2)
        mlp.up_proj.set_original_component(other)
        try:
            count = _counted(backend, monkeypatch)
            backend.look()
            after, _ = backend.hidden(TOKENS)
        finally:
            mlp.up_proj.set_original_component(projection)
            backend.look()
    assert not count
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_other_families_go_through_their_hook_points(tiny, family):
    assert not backend_of(tiny(family))._is_bare({})


def test_a_model_in_compatibility_mode_goes_through_its_hook_points(tiny, monkeypatch):
    backend = backend_of(tiny())
    assert backend._is_bare({})
    monkeypatch.setitem(backend.model.__dict__, "compatibility_mode", True)
    assert not backend._is_bare({})


def test_a_window_of_the_text_is_left_to_transformers(tiny, monkeypatch):
    backend = backend_of(tiny("qwen2"))
    config = backend.model.original_model.config
    monkeypatch.setattr(config, "layer_types", ["full_attention", "sliding_attention"])
    monkeypatch.setattr(backend._bare, "_seen", ())
    assert not backend._is_bare({})
    monkeypatch.undo()
    backend._bare._seen = ()
    assert backend._is_bare({})
