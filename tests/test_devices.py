"""Layers on several devices: nothing mixes tensors of two.

The second device is "meta", which computes shapes and no numbers, and refuses tensors of another as a GPU does. The
layers are sent there as `device_map` sends them, by hooks of accelerate.
"""

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp_toolkit import Site, load_model, read_activations
from interp_toolkit.models import backend_of
from interp_toolkit.runtime import PromptRun, score
from interp_toolkit.runtime.evidence import with_null

OTHER = torch.device("meta")


@pytest.fixture
def split(checkpoints):
    """Qwen 2 with its last two blocks, its norm and its unembedding on another device."""
    folder = checkpoints["qwen2"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = model.model
    for module in (*base.layers[2:], base.norm, model.lm_head):
        module.to(OTHER)
        for part in module.modules():  # as dispatch_model does, on whatever holds weights
            if any(True for _ in part.parameters(recurse=False)) or part is module:
                add_hook_to_module(part, AlignDevicesHook(execution_device=OTHER))
    return load_model(model, tokenizer=AutoTokenizer.from_pretrained(folder), check=False)


@pytest.fixture
def run(split, tiny_prompt):
    return PromptRun(split, tiny_prompt)


def test_the_model_is_taken_as_it_was_loaded(split):
    assert backend_of(split).plain()
    assert backend_of(split).device == torch.device("cpu")


def test_targets_are_scored_where_the_last_layer_is(run, random_vectors, monkeypatch):
    # The head compares what reaches the unembedding with what it was given, and here are no numbers to compare.
    monkeypatch.setattr(torch, "equal", lambda one, other: one.shape == other.shape)
    soft_tokens = random_vectors(3)
    apart = score(run, soft_tokens, [[7, 8], [9], [10, 11, 12]])
    shared = score(run, soft_tokens, [[7, 8], [9], [10]], [0, 0, 2])
    assert (apart.log_probs.device, apart.log_probs.shape) == (OTHER, (6,))
    assert (shared.log_probs.device, shared.log_probs.shape) == (OTHER, (4,))


@pytest.mark.parametrize("site", ["hook_embed", "blocks.3.hook_resid_pre"])
def test_texts_go_on_behind_rows_that_are_left(split, tiny_prompt, random_vectors, site):
    run = PromptRun(split, tiny_prompt.at(site))
    soft_tokens = random_vectors(3)
    hidden, past = run.read(with_null(torch.zeros(32), soft_tokens), keep=True)
    assert (hidden.device, {k.device for k, _ in past.layers}) == (OTHER, {OTHER, torch.device("cpu")})
    rows = torch.tensor([1, 1, 2, 3])
    tokens = torch.full((4, 1), 7)
    hidden, past = run.backend.hidden(tokens, past.take(rows), keep=True, reserve=4)
    hidden, past = run.backend.hidden(tokens[:2], past.take(rows[:2]), keep=True, reserve=4)
    assert hidden.shape == (2, 1, 32)


def test_streams_of_the_first_device_are_those_of_the_whole_model(split, tiny):
    prompts = ["foxes?", "Tell me about Poland."]
    assert torch.equal(
        read_activations(split, prompts, 1).vectors, read_activations(tiny("qwen2"), prompts, Site.after(1)).vectors
    )
