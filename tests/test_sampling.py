"""How descriptions are sampled, as a value, and the arguments that said so in version 0.1."""

import inspect
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

import interp_toolkit
from interp_toolkit import Adapter, InterpToolkitError, Sampling, Site, SoftPrompt, read_activations, self_explain
from interp_toolkit.contract import Contract
from interp_toolkit.engines import LocalEngine, local
from interp_toolkit.explanations import Explanation
from interp_toolkit.models import model_facts

PROMPTS = ["Tell me about rivers.", "foxes?"]


@pytest.fixture
def adapter(tiny, tiny_prompt):
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    adapter.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.ones(32) / 10, True)
    return adapter


@pytest.fixture
def explain(tiny, adapter):
    return lambda inputs, **settings: self_explain(inputs, **{"model": tiny(), "adapter": adapter, **settings}).to_df()


def test_one_description_is_greedy_and_several_are_sampled():
    assert Sampling().effective_temperature == 0
    assert Sampling(n=6).effective_temperature == 0.7
    assert replace(Sampling(), n=6).effective_temperature == 0.7
    assert Sampling(n=6, temperature=1.0).effective_temperature == 1
    assert Sampling(scales=2.0).scales == (2.0,)
    assert Sampling(n=np.int64(3), scales=np.array([1.0, 2.0])) == Sampling(n=3, scales=(1.0, 2.0))
    with pytest.raises(FrozenInstanceError):
        Sampling().n = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(n=0), "expected n of at least 1, got 0"),
        (dict(n=2.5), "expected a whole number for n, got 2.5"),
        (dict(max_new_tokens=0), "expected max_new_tokens of at least 1, got 0"),
        (dict(seed=-1), "expected seed of at least 0, got -1"),
        (dict(temperature=-0.1), "expected a temperature of at least 0, got -0.1"),
        (dict(temperature="0.5"), "expected a temperature of at least 0, got '0.5'"),
        (dict(top_p=0), "expected 0 < top_p <= 1, got 0"),
        (dict(n=2, top_p=1.5), "expected 0 < top_p <= 1, got 1.5"),
        (dict(top_p=0.5), "top_p would have no effect: at temperature 0"),
        (dict(n=2, temperature=0), "at temperature 0 all 2 descriptions would be the same text"),
        (dict(scales=[]), "expected at least one scale, each a finite number, got none"),
        (dict(scales=[float("nan")]), r"expected at least one scale, each a finite number, got \[nan\]"),
    ],
)
def test_values_out_of_range_are_refused(unchecked, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        Sampling(**settings)


def test_at_most_ten_parameters_beside_the_inputs_and_the_sampling():
    parameters = set(inspect.signature(self_explain).parameters) - {"inputs", "sampling"}
    assert len(parameters) <= 10
    assert len(interp_toolkit.__all__) <= 25


def test_old_arguments_go_on_with_a_warning_that_names_the_new(tiny, adapter, explain):
    sampling = Sampling(n=2, temperature=0.9, top_p=0.8, seed=4, max_new_tokens=3, scales=(0.5, 1.0))
    new = explain(PROMPTS, sampling=sampling, include_null=True, sites=1, center={1: torch.ones(32)})
    with pytest.warns(DeprecationWarning, match="self_explain") as warnings:
        old = explain(
            PROMPTS,
            samples=2,
            temperature=0.9,
            top_p=0.8,
            seed=4,
            max_new_tokens=3,
            scales=[0.5, 1.0],
            null=True,
            sites=1,
            means={1: torch.ones(32)},
        )
    assert old.equals(new)
    texts = [str(warning.message) for warning in warnings]
    assert any("use sampling=Sampling(" in text and "self_explain(samples=..." in text for text in texts)
    assert any("use include_null=..." in text for text in texts)
    assert any("use center=..." in text for text in texts)

    raw = read_activations(tiny(), PROMPTS, 2).vectors
    with pytest.warns(DeprecationWarning, match=r"use centered=\.\.\."):
        assert explain(raw, raw=True).equals(explain(raw, centered=False))
    with pytest.warns(UserWarning, match="nothing is subtracted"):
        expected = explain(PROMPTS, sites=1, on_mismatch="warn")
    with (
        pytest.warns(DeprecationWarning, match=r"use on_mismatch=\.\.\."),
        pytest.warns(UserWarning, match="nothing is subtracted"),
    ):
        assert explain(PROMPTS, sites=1, any_site=True).equals(expected)
    prompt = SoftPrompt.for_chat(tiny().tokenizer, 'Repeat this: "{slot}"', '"')
    with pytest.warns(DeprecationWarning, match="with_soft_prompt"):
        old = explain(PROMPTS, soft_prompt=prompt)
    assert old.equals(explain(PROMPTS, adapter=adapter.with_soft_prompt(prompt)))
    assert adapter.contract.soft_prompt != prompt
    with pytest.raises(TypeError, match="got 'sampling' and n, which belong into it"):
        explain(PROMPTS, samples=2, sampling=Sampling())


def test_another_mismatch_than_error_or_warn_is_refused(explain, unchecked):
    with pytest.raises(InterpToolkitError, match="expected on_mismatch of 'error' or 'warn', got 'ignore'"):
        explain(PROMPTS, sites=1, on_mismatch="ignore")


def test_the_old_name_of_a_verdict():
    row = Explanation("a", "", -1, 0, "b", -1.0, 2.0, True, 1.0)
    with pytest.warns(DeprecationWarning, match="above_threshold"):
        assert row.reading is True


def test_the_default_model_is_loaded_once(tiny, adapter, monkeypatch):
    loaded = []
    monkeypatch.setattr(local, "load_model", lambda name: loaded.append(name) or tiny())
    monkeypatch.setattr(local, "_default", [])
    one, two = (self_explain("foxes?", adapter=adapter).to_df() for _ in range(2))
    assert one.equals(two)
    assert loaded == ["smollm2-135m"]


class Remote:
    """A user's own engine, which takes soft tokens in place of embeddings and nothing else."""

    def __init__(self, model, capabilities=()):
        self._local = LocalEngine(model)
        self.facts, self.identity, self.device = self._local.facts, self._local.identity, torch.device("cpu")
        self.capabilities = frozenset(capabilities)
        self.calls = []

    def generate(self, soft_prompt, soft_tokens, **settings):
        self.calls.append(tuple(soft_tokens.shape))
        return self._local.generate(soft_prompt, soft_tokens, **settings)

    def score(self, soft_prompt, soft_tokens, targets, soft_token_index=None):
        return self._local.score(soft_prompt, soft_tokens, targets, soft_token_index)


def test_an_engine_of_the_users_own_describes_vectors(tiny, adapter, explain, random_vectors):
    engine, vectors = Remote(tiny()), random_vectors(3)
    assert explain(vectors, model=engine).equals(explain(vectors))
    assert engine.calls == [(3, 32)]
    with pytest.raises(InterpToolkitError, match="expected vectors, since Remote does not read the activations"):
        explain(PROMPTS, model=engine)
    deep = adapter.with_soft_prompt(adapter.contract.soft_prompt.at("blocks.1.hook_resid_pre"))
    with pytest.raises(InterpToolkitError, match=r"an engine that writes soft tokens at blocks\.1\.hook_resid_pre"):
        explain(vectors, model=engine, adapter=deep)
    assert len(explain(vectors, model=Remote(tiny(), ["any_site"]), adapter=deep)) == 3
