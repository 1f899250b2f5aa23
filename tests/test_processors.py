"""Threads beside other processes: how many are used, and that the number is set back."""

import os
import subprocess
import sys

import pytest
import torch

from interp_toolkit import Adapter, Site, self_explain
from interp_toolkit.contract import Contract
from interp_toolkit.engines import LocalEngine
from interp_toolkit.models import model_facts, processors
from interp_toolkit.models.processors import free_processors, threads_with_a_processor


@pytest.fixture
def threads():
    """Two threads, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@pytest.mark.parametrize(("free", "used"), [(None, 2), (1, 1), (2, 2), (8, 2)])
def test_no_more_threads_than_find_a_processor(threads, monkeypatch, free, used):
    monkeypatch.setattr(processors, "free_processors", lambda: free)
    with threads_with_a_processor():
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == threads


def test_the_number_is_set_back_after_an_error(threads, monkeypatch):
    monkeypatch.setattr(processors, "free_processors", lambda: 1)
    with pytest.raises(KeyError), threads_with_a_processor():
        raise KeyError
    assert torch.get_num_threads() == threads


def test_what_runs_for_a_moment_takes_no_thread_away(threads, monkeypatch):
    looks = iter([1, 2, 1])
    monkeypatch.setattr(processors, "free_processors", lambda: next(looks))
    with threads_with_a_processor():
        assert torch.get_num_threads() == 2


def _machine(monkeypatch, folder, load, states, count=4):
    (folder / "loadavg").write_text(load)
    for i, state in enumerate(states):
        (folder / "task" / str(i)).mkdir(parents=True)
        (folder / "task" / str(i) / "stat").write_text(f"{i} (a) R (name) {state} 1 2 3")
    monkeypatch.setattr(processors, "_LOAD", folder / "loadavg")
    monkeypatch.setattr(processors, "_OWN", folder / "task")
    monkeypatch.setattr(os, "cpu_count", lambda: count)


@pytest.mark.parametrize(
    ("load", "states", "free"),
    [
        ("0.1 0.2 0.3 1/88 999", "R", 4),
        ("0.1 0.2 0.3 3/88 999", "RS", 2),
        ("0.1 0.2 0.3 3/88 999", "RRSR", 4),
        ("0.1 0.2 0.3 9/88 999", "R", 1),
        ("0.1 0.2 0.3 1/88 999", "RR", 4),  # one began to run between the two looks
        ("", "R", None),
        ("0.1 0.2 0.3 many/88 999", "R", None),
    ],
)
def test_who_runs_is_what_linux_says(tmp_path, monkeypatch, load, states, free):
    _machine(monkeypatch, tmp_path, load, states)
    assert free_processors() == free


def test_nothing_is_known_where_linux_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "_LOAD", tmp_path / "none")
    assert free_processors() is None


@pytest.mark.skipif(not processors._LOAD.exists(), reason="only Linux says who runs")
def test_a_busy_process_takes_a_processor_away():
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        busy.stdout.readline()
        assert max(free_processors() for _ in range(3)) <= max(1, (os.cpu_count() or 1) - 1)
        busy.kill()


def test_a_description_takes_the_threads_that_find_a_processor(threads, monkeypatch, tiny, tiny_prompt):
    seen = []
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    adapter.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.zeros(32), True)
    monkeypatch.setattr(processors, "free_processors", lambda: 1)
    monkeypatch.setattr(LocalEngine, "generate", lambda *_, **__: seen.append(torch.get_num_threads()) or [[]])
    self_explain(torch.ones(1, 32), model=tiny(), adapter=adapter)
    assert seen == [1]
    assert torch.get_num_threads() == threads
