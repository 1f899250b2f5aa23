"""The same results whatever a user has set torch's global defaults to."""

from contextlib import contextmanager

import pytest
import torch

from interp_toolkit import (
    Adapter,
    Sampling,
    Site,
    TrainConfig,
    load_model,
    read_activations,
    self_explain,
    topic_pairs,
    train_adapter,
)
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.torch_defaults import plain_defaults

PROMPTS = ["Tell me about rivers.", "foxes?"]
TITLES = ["Rivers", "Poland", "Foxes", "Baseball", "Bees", "Rain"]


@contextmanager
def _dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "bfloat16": lambda: _dtype(torch.bfloat16),
    "float16": lambda: _dtype(torch.float16),
    "float64": lambda: _dtype(torch.float64),
    "meta": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


_expected = {}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


def _everything(folder, prompt, backend):
    model = load_model(folder, backend=backend, dtype="float32")
    vectors = read_activations(model, PROMPTS, sites=[2]).vectors
    pairs = topic_pairs(model, TITLES, Site.after(2), splits=["train"] * 4 + ["val"] * 2)
    adapter = Adapter.create("full_rank", 32, identity_start=True)
    low_rank = Adapter.create("scalar_affine_low_rank", 32, rank=2)
    config = TrainConfig(epochs=2, batch_size=2, warmup_steps=1)
    result = train_adapter(model, pairs, adapter, config, soft_prompt=prompt, progress=False)
    low_rank.contract = Contract.from_facts(model_facts(model), Site.after(2), prompt, None, True)
    adapter = result.adapter
    text = self_explain(PROMPTS, model=model, adapter=adapter, include_null=True, sampling=Sampling(n=2))
    other = self_explain(vectors, model=model, adapter=low_rank)
    rows = [(row.description, row.evidence) for row in [*text, *other]]
    return vectors, adapter.weight.detach(), result.best_val_loss, rows


@pytest.mark.parametrize("setting", SETTINGS)
def test_results_do_not_depend_on_torchs_defaults(checkpoints, tiny_prompt, setting, backend, monkeypatch, tmp_path):
    if backend not in _expected:
        _expected[backend] = _everything(checkpoints["llama"], tiny_prompt, backend)
    expected = _expected[backend]
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "other"))
    with SETTINGS[setting]():
        got = _everything(checkpoints["llama"], tiny_prompt, backend)
    for x, y in zip(expected[:2], got[:2]):
        assert x.dtype == y.dtype == torch.float32
        assert torch.equal(x, y.clone())
    assert got[2:] == expected[2:]


def test_gradients_off_does_not_stop_training(tiny, tiny_prompt):
    model = tiny()
    pairs = topic_pairs(model, TITLES, Site.after(2), splits=["train"] * 4 + ["val"] * 2)
    adapter = Adapter.create("scalar_affine", 32)
    torch.set_grad_enabled(False)
    try:
        result = train_adapter(model, pairs, adapter, TrainConfig(epochs=1), soft_prompt=tiny_prompt, progress=False)
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert result.adapter.bias.abs().sum() > 0


def test_the_users_default_dtype_comes_back_after_errors_and_nested_calls():
    with _dtype(torch.float64):
        with plain_defaults():
            with pytest.raises(KeyError), plain_defaults():
                raise KeyError
            assert torch.zeros(1).dtype == torch.float32
        assert torch.zeros(1).dtype == torch.float64
