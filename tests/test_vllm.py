"""vLLM itself, in this process and as a server, beside the embedded model here; see `make test-vllm`."""

import dataclasses
import os
import socket
import subprocess
import time
import urllib.request
import weakref

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm runs this in an environment that has it")

from interp_toolkit import ContractError, InterpToolkitError, Sampling, SiteStack, read_activations, self_explain
from interp_toolkit.engines import ServedEngine, VllmEngine, require_same_model, self_test, server_command
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.shipped import find_adapter

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TITLES = ["baseball", "Poland", "jazz", "the Danube", "chess", "photosynthesis", "volcanoes", "opera"]


@pytest.fixture(scope="module")
def adapter():
    return find_adapter("smollm2_any_token")


@pytest.fixture(scope="module")
def vectors(smollm, adapter):
    prompts = [f"Tell me about {title}." for title in TITLES]
    read = read_activations(smollm, prompts, adapter.contract.site).vectors
    noise = torch.randn(40, read.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.cat([adapter.contract.centre(read), noise])


@pytest.fixture(scope="module")
def address():
    """A server that `serve-model`'s command starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(server_command("smollm2-135m", port=port, dtype="float32"), env=os.environ) as server:
        try:
            for _ in range(300):
                time.sleep(1)
                assert server.poll() is None
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                    break
                except OSError:
                    continue
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="module", params=["process", "server"])
def engine(request):
    if request.param == "process":
        return VllmEngine("smollm2-135m", dtype="float32")
    return ServedEngine(request.getfixturevalue("address"), dtype="float32")


def test_greedy_texts_and_log_probabilities_are_those_of_the_hooked_model(engine, smollm, adapter, vectors):
    here, there = (self_explain(vectors, model=x, adapter=adapter, include_null=True).to_df() for x in (smollm, engine))
    assert here["description"].tolist() == there["description"].tolist()
    # Over HTTP a text whose tokens are others when it is written out has none.
    assert there["evidence"].isna().sum() <= (5 if isinstance(engine, ServedEngine) else 0)
    for column in ("log_prob", "evidence"):
        assert (here[column] - there[column]).abs().max() < 1e-4
    assert there["evidence"].iloc[-1] == 0


def test_samples_are_repeatable_and_rows_apart(engine, adapter, vectors):
    draws = Sampling(n=3, seed=1)
    whole, part = (
        self_explain(v, model=engine, adapter=adapter, sampling=draws).to_df() for v in (vectors, vectors[4:9])
    )
    assert whole["description"].tolist()[12:27] == part["description"].tolist()
    assert whole["description"].nunique() > 60


def test_another_model_is_refused(engine, adapter, monkeypatch):
    wrong, probe = find_adapter("smollm2_any_token"), adapter.contract.probe
    shifted = dataclasses.replace(probe, log_probs=tuple(value - 0.01 for value in probe.log_probs))
    wrong.contract = dataclasses.replace(adapter.contract, probe=shifted)
    monkeypatch.setattr(self_test, "_passed", weakref.WeakKeyDictionary())
    with pytest.raises(ContractError, match=r"within 0\.001 nats per token"):
        require_same_model(engine, wrong)
    require_same_model(engine, adapter)


def test_a_server_without_room_for_soft_tokens_is_not_asked_for_log_probabilities(address):
    command = server_command("smollm2-135m")
    assert "--tokenizer" in command  # the vocabulary is full, so that a copy of the tokenizer is needed
    with pytest.raises(InterpToolkitError, match="said 404"):
        ServedEngine(f"{address}/nothing")


@pytest.fixture(scope="module")
def inside():
    return VllmEngine("smollm2-135m", dtype="float32")


@pytest.mark.parametrize("mode", ["replace", "add"])
@pytest.mark.parametrize("site", ["blocks.0.hook_resid_pre", "blocks.3.hook_resid_post", "blocks.29.hook_resid_post"])
def test_soft_tokens_between_blocks_are_those_of_the_hooked_model(inside, smollm, adapter, vectors, site, mode):
    prompt = adapter.contract.soft_prompt.at(site, mode)
    with torch.no_grad():
        soft_tokens = adapter(vectors)
    run = PromptRun(smollm, prompt)
    settings = dict(null=adapter.null().detach(), max_new_tokens=8)
    here, there = generate(run, soft_tokens, **settings), inside.generate(prompt, soft_tokens, **settings)
    assert [row[0].text for row in here] == [row[0].text for row in there]
    for one, other in zip(here, there):
        assert other[0].log_prob == pytest.approx(one[0].log_prob, abs=1e-4, nan_ok=True)
        assert other[0].evidence == pytest.approx(one[0].evidence, abs=1e-4, nan_ok=True)
    # The same soft tokens at another place are not taken from what was kept.
    again = inside.generate(adapter.contract.soft_prompt, soft_tokens, **settings)
    at_embedding = generate(PromptRun(smollm, adapter.contract.soft_prompt), soft_tokens, **settings)
    assert [row[0].text for row in again] == [row[0].text for row in at_embedding]


def test_streams_are_those_of_the_hooked_model(inside, smollm):
    prompts = [f"Tell me about {title}." for title in TITLES]
    for sites, positions in (([3, 23, 29], "content"), (SiteStack([4, 10]), [-1, 0]), (15, "last")):
        here, there = (
            read_activations(smollm, prompts, sites, positions),
            inside.read_activations(prompts, sites, positions),
        )
        assert there.table.equals(here.table)
        size = here.vectors.norm(dim=1, keepdim=True)
        assert ((there.vectors - here.vectors).abs() / size).max() < 1e-4
    with pytest.raises(InterpToolkitError, match="expected a site in the stream between blocks"):
        inside.read_activations(prompts, "blocks.3.hook_attn_out")
    with pytest.raises(InterpToolkitError, match="does not exist: the model has 30 layers"):
        inside.read_activations(prompts, 30)


def test_a_model_that_cannot_be_reached_into_says_why(adapter, vectors, monkeypatch, inside):
    monkeypatch.setattr(inside, "_streams", None)
    monkeypatch.setattr(inside, "_no_streams", "its model is compiled")
    assert inside.capabilities == frozenset()
    with pytest.raises(InterpToolkitError, match="expected a VllmEngine that reaches into its model .* is compiled"):
        inside.read_activations(["foxes?"], 3)
    with pytest.raises(InterpToolkitError, match="expected a soft prompt that replaces embeddings, since VllmEngine"):
        inside.generate(adapter.contract.soft_prompt.at("blocks.3.hook_resid_post"), vectors[:, :576])
