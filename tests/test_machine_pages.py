"""The commands of the pages on more machines do what they say, on a tiny model; torchrun with two processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_toolkit import Site, VectorLabelPairs
from interp_toolkit.bulk import load_activations, read_descriptions
from interp_toolkit.cli import main

PAGES = Path(__file__).parent.parent / "docs" / "how-to"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
# serve-model takes vLLM, see test_engines; Ray its own test.
_ELSEWHERE = ("serve-model", "--ray")


def _commands(page):
    blocks = _BLOCK.findall((PAGES / page).read_text())
    lines = "".join(text for language, text in blocks if not language).replace("\\\n", "").splitlines()
    return [line for line in lines if line.strip() and not any(word in line for word in _ELSEWHERE)]


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoints, adapter, random_vectors):
    monkeypatch.chdir(tmp_path)
    adapter.save_pretrained("my-adapter")
    np.save("vectors.npy", random_vectors(10).numpy())
    Path("questions.txt").write_text("foxes?\nTell me about rivers.\nthe lazy dog\n")
    vectors = random_vectors(12, seed=3)
    splits = ["train"] * 8 + ["val"] * 4
    VectorLabelPairs.from_tensors(vectors, list("abcdefghijkl"), splits=splits, site=Site.after(2)).save("pairs")
    recipe = f"model: {checkpoints['llama']}\npairs: pairs\nadapter: {{kind: scale}}\ndtype: float32\n"
    training = "training: {batch_size: 4, max_steps: 2, log_samples: 0}\n"
    Path("my-run.yaml").write_text(recipe + training + "output: run\n")
    Path("my-sharded-run.yaml").write_text(recipe + training + "output: sharded\nshard: true\n")
    return str(checkpoints["llama"])


def _tiny(command, model):
    """The words of a command, with the tiny model and a layer that it has."""
    words = shlex.split(command.replace("--layers 10", "--layers 2"))
    return words if "train" in words else [*words, "--model", model, "--rows-per-part", "2"]


def test_the_commands_of_one_gpu(place):
    for command in _commands("one-gpu.md"):
        assert main(_tiny(command, place)[1:]) == 0
    assert len(load_activations("activations")) == len(read_descriptions("descriptions"))
    assert set(read_descriptions("explained")["row"]) == {0, 1, 2}


def test_the_commands_of_processes_that_are_started_by_hand(place):
    alone = [line for line in _commands("one-node.md") if not line.startswith("torchrun")]
    assert len(alone) == 2
    for command in [*alone, *_commands("cluster.md")]:
        assert main(_tiny(command, place)[1:]) == 0
    assert read_descriptions("descriptions")["row"].tolist() == list(range(10))


@pytest.mark.slow
@pytest.mark.long
def test_the_commands_of_one_node(place):
    commands = [line for line in _commands("one-node.md") if line.startswith("torchrun")]
    assert len(commands) == 5
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    for command in commands:
        words = _tiny(command.replace("--nproc-per-node 8", "--nproc-per-node 2"), place)
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
        done = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert read_descriptions("descriptions")["row"].tolist() == list(range(10))
    assert len(load_activations("activations")) == 3
    whole, sharded = (torch.load(f"{name}/checkpoint.pt", weights_only=True) for name in ("run", "sharded"))
    assert [row["val_loss"] for row in sharded["progress"]["history"]] == pytest.approx(
        [row["val_loss"] for row in whole["progress"]["history"]], abs=1e-5
    )
