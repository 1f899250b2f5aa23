"""Sites outside the residual stream: what attention and the MLP give, and any hook point of the stream's width.

The truth is Hugging Face's own model with forward hooks on its modules.
"""

import families
import pytest
import torch

from interp_toolkit import (
    InterpToolkitError,
    Sampling,
    Site,
    TrainConfig,
    VectorLabelPairs,
    self_explain,
    train_adapter,
)
from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.runtime import PromptRun, generate, score

PROMPTS = ["foxes?", "Tell me about rivers and bees."]
LABELS = ["Bees", "Poland", "a dog"]


def _module(hf, architecture, site):
    """The module of transformers that gives what the site holds."""
    block = families.blocks_of(hf, 4)[site.layer]
    if architecture == "gemma2":  # what is added to the stream has gone through a norm of its own
        return block.post_attention_layernorm if site.hook == "hook_attn_out" else block.post_feedforward_layernorm
    if site.hook == "hook_mlp_out":
        return block.mlp
    return block.attn if architecture == "gpt2" else block.self_attn


def _recorded(hf, architecture, site, ids):
    """What the module gives for one prompt, [position, d_model]."""
    seen = []
    handle = _module(hf, architecture, site).register_forward_hook(
        lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        hf(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return seen[0].reshape(len(ids), -1)


@pytest.mark.parametrize("hook", ["hook_attn_out", "hook_mlp_out"])
def test_what_a_part_of_a_block_gives_is_read(tiny, tiny_hf, architecture, backend, hook):
    model, site = tiny(architecture, backend), Site.parse(f"blocks.2.{hook}")
    read = read_activations(model, PROMPTS, [site, "blocks.2.hook_resid_post"], "all")
    for i, ids in enumerate(prompt_ids(model.tokenizer, PROMPTS)):
        rows = ((read.table["prompt"] == i) & (read.table["site"] == str(site))).to_numpy(copy=True)
        expected = _recorded(tiny_hf(architecture), architecture, site, ids)
        assert torch.allclose(read.vectors[torch.from_numpy(rows)], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize("where", ["blocks.1.hook_attn_out", "blocks.2.hook_mlp_out"])
def test_soft_tokens_are_written_there(tiny, tiny_hf, tiny_prompt, random_vectors, architecture, backend, where, mode):
    run = PromptRun(tiny(architecture, backend), tiny_prompt.at(where, mode))
    hf = tiny_hf(architecture)
    module = _module(hf, architecture, Site.parse(where))
    targets = tiny_prompt.targets(run.model.tokenizer, LABELS)
    slots, vectors = list(run.tokens.slots), random_vectors(3).requires_grad_()

    def log_probs(vector, ids):
        """Of every next token at every token, by the model of transformers with the module's output edited."""

        def write(module, args, out):
            stream = (out[0] if isinstance(out, tuple) else out).clone()
            rows = stream.view(1, -1, stream.shape[-1])
            rows[0, slots] = vector if mode == "replace" else rows[0, slots] + vector
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        handle = module.register_forward_hook(write)
        logits = hf(torch.tensor([[*run.tokens.ids, *ids]]), use_cache=False).logits[0]
        handle.remove()
        return logits[len(run.tokens.ids) - 1 :].log_softmax(-1)

    expected = torch.stack([log_probs(x, ids)[torch.arange(len(ids)), ids].mean() for x, ids in zip(vectors, targets)])
    (expected_gradient,) = torch.autograd.grad(expected.sum(), vectors)
    scores = score(run, vectors, targets).mean()
    (gradient,) = torch.autograd.grad(scores.sum(), vectors)
    assert torch.allclose(scores, expected, atol=1e-4, rtol=0)
    assert torch.allclose(gradient, expected_gradient, atol=1e-4)

    ids = []
    while len(ids) < 5 and not {2, 4} & set(ids):
        ids.append(int(log_probs(vectors[0].detach(), ids)[-1].argmax()))
    texts = generate(run, vectors.detach(), max_new_tokens=5, until="stop")
    assert list(texts[0][0].token_ids) == [token for token in ids if token not in (2, 4)]


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("blocks.2.attn.hook_attn_in", r"hook_attn_in, .*a hook point that a pass does not reach"),
        ("blocks.2.attn.hook_z", r"shape \[batch, position, 32\], got blocks.2.attn.hook_z, .* \[1, 2, 4, 8\]"),
        ("blocks.2.attn.hook_pattern", r"\[1, 4, 2, 2\]; choose another, such as blocks.2.hook_resid_post"),
        ("blocks.2.ln7.hook_normalized", "has no hook point blocks.2.ln7.hook_normalized; choose another"),
        ("blocks.4.hook_attn_out", r"blocks.4.hook_attn_out does not exist: the model has 4 layers"),
    ],
)
def test_what_is_no_vector_of_the_streams_width_is_refused(tiny, tiny_prompt, site, message):
    with pytest.raises(InterpToolkitError, match=message):
        read_activations(tiny(), PROMPTS, site)
    with pytest.raises(InterpToolkitError, match=message):
        PromptRun(tiny(), tiny_prompt.at(site))


def test_adapters_are_trained_on_such_vectors(tiny, tiny_prompt):
    model, site = tiny(), Site.parse("blocks.2.hook_attn_out")
    read = read_activations(model, ["bees?", "foxes?", "rivers?", "a dog?"], site)
    mean = read.vectors.mean(0)
    pairs = VectorLabelPairs.from_tensors(
        read.vectors - mean, ["Bees", "fox", "rivers", "a dog"], splits=["train"] * 3 + ["val"], site=site, mean=mean
    )
    prompt = tiny_prompt.at("blocks.1.hook_mlp_out")
    config = TrainConfig(max_steps=4, batch_size=2, eval_every=2)
    result = train_adapter(
        model, pairs, Adapter.create("scalar_affine", 32), config, soft_prompt=prompt, progress=False
    )
    assert result.adapter.contract.site == site
    (row,) = self_explain("bees?", model=model, adapter=result.adapter, sampling=Sampling(max_new_tokens=4))
    assert row.site == "blocks.2.hook_attn_out"
    (again,) = self_explain(
        read.vectors[0], model=model, adapter=result.adapter, centered=False, sampling=Sampling(max_new_tokens=4)
    )
    assert again.description == row.description
