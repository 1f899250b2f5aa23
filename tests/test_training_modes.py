"""Training whatever the caller's grad mode is, and wherever the adapter lies."""

import contextlib

import pytest
import torch

from interp_toolkit import (
    Adapter,
    InterpToolkitError,
    Site,
    SoftPrompt,
    TrainConfig,
    VectorLabelPairs,
    load_model,
    read_activations,
    self_explain,
    train_adapter,
)
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training.examples import Examples
from interp_toolkit.training.start import _embeddings, ridge_init

SHORT = TrainConfig(max_steps=3, batch_size=8, lr=0.05, eval_every=3, val_examples=8, log_samples=0)
WORDS = ["rivers", "Poland", "a fox", "baseball"]


@contextlib.contextmanager
def _grad_off_for_good():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "set_grad_enabled": _grad_off_for_good}


def _pairs():
    vectors = torch.randn(48, 32, generator=torch.Generator().manual_seed(0)) * 1
    splits = ["train"] * 40 + ["val"] * 8
    return VectorLabelPairs.from_tensors(vectors, WORDS * 12, splits=splits, site=Site.after(2), mean=vectors.mean(0))


def _adapter(kind="scalar_affine_low_rank"):
    return Adapter.create(kind, 32, rank=8, init_scale=2.0)


@pytest.mark.parametrize("mode", MODES)
def test_training_is_the_same_in_every_grad_mode(tiny, mode, tmp_path):
    expected = train_adapter(tiny("qwen2"), _pairs(), _adapter(), SHORT, progress=False)
    with MODES[mode]():
        pairs, adapter = _pairs(), _adapter()
        assert pairs.vectors.is_inference() == (mode == "inference_mode")
        result = train_adapter(tiny("qwen2"), pairs, adapter, SHORT, folder=tmp_path, progress=False)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")
    assert torch.is_grad_enabled()
    assert adapter.digest == _adapter().digest
    assert result.adapter.digest == expected.adapter.digest
    assert result.last.digest == expected.last.digest
    assert Adapter.from_pretrained(tmp_path / "best").digest == result.adapter.digest
    # What was made in inference mode can be trained outside of it, and trained again.
    for start in (adapter, result.adapter):
        train_adapter(tiny("qwen2"), pairs, start, SHORT, progress=False)


@pytest.mark.parametrize("mode", MODES)
def test_an_error_leaves_the_callers_grad_mode(tiny, mode):
    with MODES[mode]():
        with pytest.raises(InterpToolkitError, match="nothing to train"):
            train_adapter(tiny("qwen2"), _pairs(), Adapter.create("identity", 32), SHORT, progress=False)
        assert not torch.is_grad_enabled()


def test_a_start_by_regression_in_inference_mode(tiny):
    config = TrainConfig(max_steps=1, batch_size=8, log_samples=0, ridge_init=0.03)
    with torch.inference_mode():
        result = train_adapter(tiny("qwen2"), _pairs(), _adapter("low_rank"), config, progress=False)
    expected = train_adapter(tiny("qwen2"), _pairs(), _adapter("low_rank"), config, progress=False)
    assert result.adapter.digest == expected.adapter.digest


def test_a_model_of_inference_mode_is_refused(checkpoints):
    model = load_model(checkpoints["llama"], dtype="float32")
    with torch.inference_mode():
        model.original_model.get_input_embeddings().weight = torch.nn.Parameter(torch.randn(320, 32))
    with pytest.raises(InterpToolkitError, match=r"made under torch\.inference_mode; load it outside of that"):
        train_adapter(model, _pairs(), _adapter(), SHORT, progress=False)


def test_what_was_described_in_inference_mode_does_not_spoil_the_training(checkpoints, backend):
    model = load_model(checkpoints["qwen2"], backend=backend, dtype="float32")
    adapter = train_adapter(model, _pairs(), _adapter(), SHORT, progress=False).adapter
    model = load_model(checkpoints["qwen2"], backend=backend, dtype="float32")
    with torch.inference_mode():
        self_explain("rivers of Poland", model=model, adapter=adapter, sites=2)
    assert train_adapter(model, _pairs(), _adapter(), SHORT, progress=False).adapter.digest == adapter.digest


def test_a_start_by_regression_takes_more_tokens_than_the_context_holds(checkpoints, architecture, backend):
    model = load_model(checkpoints[architecture], backend=backend, dtype="float32")
    ids = torch.arange(300)  # the context is of 256
    run = PromptRun(model, SoftPrompt.for_chat(model.tokenizer))
    (expected,) = read_activations(model, [[7]], Site.embedding()).vectors
    embeddings = _embeddings(run.backend, ids)
    assert embeddings.shape == (300, 32)
    assert torch.allclose(embeddings[7], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["full_rank", "low_rank"])
def test_a_start_by_regression_mixes_no_devices(tiny, tiny_prompt, kind):
    run = PromptRun(tiny(), tiny_prompt)
    examples = Examples.from_pairs(_pairs().split("train"), run)
    settings = dict(rank=8) if kind == "low_rank" else {}
    # A device that computes nothing stands for one that is not the CPU: whatever mixes the two is an error.
    ridge_init(run, Adapter.create(kind, 32, **settings).to("meta"), examples, 0.1)
