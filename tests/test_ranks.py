"""Training on several processes: the numbers of one, who writes, and what happens when one dies."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError
from interp_toolkit.adapters.kinds import KINDS
from interp_toolkit.models import shard_blocks
from interp_toolkit.training.ranks import Ranks

HERE = Path(__file__).parent
SETTINGS = dict(kind="scalar_affine", batch=7, steps=4)


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start(count, command):
    """Processes as torchrun starts them; without a count one as a shell does."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | dict(OMP_NUM_THREADS="1")
    meeting = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()), WORLD_SIZE=str(count))
    processes = [
        subprocess.Popen(
            command,
            env=environment | (meeting | dict(RANK=str(i), LOCAL_RANK=str(i)) if count else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count or 1)
    ]
    done = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, done)]


def _trained(folder, model, count, runs, *, ends=None, shard=False):
    """How the processes that do the runs one after another end, and of each process what came out of its runs."""
    folder.mkdir()
    what = dict(path=str(model), out=str(folder), ends=ends or {}, shard=shard, runs=[SETTINGS | run for run in runs])
    ended = _start(count, [sys.executable, str(HERE / "one_rank.py"), json.dumps(what)])
    return ended, [json.loads(path.read_text()) for path in sorted(folder.iterdir())]


@pytest.fixture
def train(tmp_path, checkpoints):
    """train(count, **what): the results of processes that train together; with ends, how they end."""

    def run(count, ends=None, shard=False, **what):
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        ended, results = _trained(folder, checkpoints["llama"], count, [what], ends=ends, shard=shard)
        if ends:
            return ended
        assert [code for code, _, _ in ended] == [0] * len(ended), ended
        return [result for (result,) in results]

    return run


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory, checkpoints):
    """all_runs(runs, shard): for each run what came of one process, and of each of two.

    A process takes seconds to begin, so that it does all runs.
    """
    done = {}

    def by_run(runs, shard):
        if shard not in done:
            by_process = []
            for count in (0, 2):
                folder = tmp_path_factory.mktemp("runs") / "out"
                ended, results = _trained(folder, checkpoints["llama"], count, runs, shard=shard and count > 0)
                assert [code for code, _, _ in ended] == [0] * len(ended), ended
                by_process += results
            done[shard] = list(zip(*by_process))
        return done[shard]

    return by_run


def _assert_same(one, other):
    for name, values in one["weights"].items():
        np.testing.assert_allclose(values, other["weights"][name], atol=2e-5)
    assert len(one["history"]) == len(other["history"])
    for row, wanted in zip(one["history"], other["history"]):
        assert row == pytest.approx(wanted, abs=2e-5, nan_ok=True)


RUNS = [
    *(dict(kind=kind) for kind in KINDS if kind != "identity"),
    dict(config=dict(gradient_accumulation_steps=3)),
    dict(batch=1),  # less than an example for each
    dict(config=dict(patience=1, lr=5.0)),
    dict(config=dict(ridge_init=1.0), kind="full_rank"),
]
SHARED = [
    dict(),
    dict(kind="full_rank", config=dict(ridge_init=1.0)),
    dict(batch=1),
    dict(config=dict(gradient_accumulation_steps=3, gradient_checkpointing=True)),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(RUNS)))
def test_two_processes_train_as_one(all_runs, number):
    alone, first, second = all_runs(RUNS, False)[number]
    _assert_same(first, alone)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SHARED)))
def test_processes_that_hold_a_model_together_train_as_one(all_runs, number):
    alone, first, second = all_runs(SHARED, True)[number]
    _assert_same(first, alone)
    assert first == second


def test_one_process_has_nobody_to_share_a_model_with(tiny):
    with pytest.raises(
        InterpToolkitError, match="expected several processes, of which each holds a share of the model"
    ):
        shard_blocks(tiny())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, checkpoints):
    """What comes of one process that is not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    what = dict(steps=8, folder=str(folder / "run"))
    ended, ((result,),) = _trained(folder / "out", checkpoints["llama"], 0, [what])
    assert ended[0][0] == 0, ended
    return result


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_which_goes_on_from_its_checkpoint(train, tmp_path, whole):
    folder = tmp_path / "run"
    # Of the losses of rank 1 each step has one.
    first, second = train(2, steps=8, folder=str(folder), ends={"1": 6})
    assert second[0] == 9
    assert first[0] == 1
    assert "another of the 2 processes that train together has ended" in first[2]
    assert "the same command goes on from the last checkpoint" in first[2]
    assert (folder / "checkpoint.pt").exists()
    (result,) = train(0, steps=8, folder=str(folder))
    _assert_same(result, whole)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in log if row["event"] == "step"]
    assert steps == list(range(1, 9))  # each once, of one process
    assert Adapter.from_pretrained(folder / "best").contract is not None


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["a model each", "a model together"])
def test_a_run_of_one_process_goes_on_with_two(train, tmp_path, whole, shard):
    folder = tmp_path / "run"
    (ended,) = train(0, steps=8, folder=str(folder), ends={"alone": 6})
    assert ended[0] == 9
    first, second = train(2, steps=8, folder=str(folder), shard=shard)
    _assert_same(first, whole)
    assert first == second


def test_one_process_shares_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.joined()
    assert (ranks, ranks.first) == (Ranks(0, 1), True)
    assert ranks.share([3, 1, 2]) == [3, 1, 2]
    assert ranks.total(1.5, 1.0) == (1.5, 1.0)
    module = torch.nn.Linear(2, 2)
    ranks.sum_gradients(module.parameters())
    assert module.weight.grad is None
    with ranks.one_after_the_first():
        pass


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_the_batch(count):
    batch = [7, 3, 9, 1]
    shares = [Ranks(i, count).share(batch) for i in range(count)]
    assert sorted(example for share in shares for example in share) == sorted(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    padded = [len(share) + Ranks(i, count).padding(batch) for i, share in enumerate(shares)]
    assert set(padded) == {max(map(len, shares))}
