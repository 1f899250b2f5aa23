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

from interp_toolkit import ContractError, InterpToolkitError, Sampling, read_activations, self_explain
from interp_toolkit.engines import ServedEngine, VllmEngine, require_same_model, self_test, server_command
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
