"""Each benchmark runs on a copy of the committed files, without any other data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interp_toolkit import Adapter, Site, SiteStack
from interp_toolkit.results import read_result

ROOT = Path(__file__).parent.parent
BENCHMARKS = ["speed", "scale", "serve", "topics", "tokens", "sae", "trust", "questions", "difference", "publish"]
# What makes one small enough for a test, and a line that it prints.
TRIALS = {
    "speed": (["--limit", "2"], "share_of_peak"),
    "scale": (["bulk", "memory", "--limit", "4"], "4 vectors, stand-in model"),
    "serve": (["faults", "--limit", "3"], '"random bodies", "n": 3, "answers_after": true'),
    "topics": (["--limit", "2", "--cells", "scalar_affine-3200"], "scalar_affine-3200: {"),
    "tokens": (["--limit", "3"], "a word near it"),
    "sae": (["--limit", "3"], "descriptions and labels"),
    "trust": (["controls", "--limit", "2"], "its title among the first 10"),
    "questions": (
        ["--limit", "3", "--adapter", "interp_toolkit/shipped/smollm2_any_token"],
        "unseen question",
    ),
    "difference": (["--limit", "2"], "what both write"),
    "publish": (["measure", "--limit", "2"], "smollm2_four_layers {"),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The committed files, and no others."""
    folder = tmp_path_factory.mktemp("clone")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)
    return folder


def _run(clone, *arguments):
    # One thread: the machine may do other things besides.
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.trial
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_in_a_fresh_clone(clone, name):
    arguments, line = TRIALS[name]
    done = _run(clone, f"benchmarks.{name}", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert line in done.stdout


@pytest.mark.slow
@pytest.mark.trial
def test_the_adapter_for_any_token_is_trained_in_a_fresh_clone(clone):
    done = _run(clone, "benchmarks.tokens", "train", "--limit", "6")
    assert done.returncode == 0, done.stderr[-3000:]
    adapter = Adapter.from_pretrained(clone / "runs" / "tokens" / "limit-6" / "adapter")
    contract = adapter.require_contract()
    assert [place.site for place in contract.reading_places] == [
        SiteStack([4, 10, 16, 23]),
        *map(Site.after, [4, 10, 16, 23]),
    ]
    assert contract.chat is None
    done = _run(clone, "benchmarks.tokens", "--limit", "2", "--adapters", "runs/tokens/limit-6/adapter")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.trial
def test_an_adapter_that_answers_is_trained_in_a_fresh_clone(clone):
    done = _run(clone, "benchmarks.questions", "train", "--limit", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    contract = Adapter.from_pretrained(clone / "runs" / "questions" / "limit-3" / "adapter").require_contract()
    assert contract.site == SiteStack([4, 10, 16, 23])
    assert "{question}" in contract.soft_prompt.asking
    done = _run(clone, "benchmarks.questions", "spans", "--limit", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "eight tokens, each in its slot, less the last token" in done.stdout


@pytest.mark.slow
@pytest.mark.trial
def test_labels_of_the_model_are_scored_in_a_fresh_clone(clone):
    done = _run(clone, "benchmarks.sae", "llm_labels", "--limit", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    result = read_result(clone / "runs" / "sae_labels" / "limit-2" / "results" / "llm_labels.json")
    sources = {row["source"] for row in result["tables"]["generation"]}
    assert {"trained, scalar_affine", "LLM label", "distinctive words", "untrained", "random labels"} <= sources
    assert {row["n"] for row in result["tables"]["detection"]} == {2}


@pytest.mark.slow
@pytest.mark.trial
def test_publishing_the_committed_results_changes_no_file(clone):
    files = [path for path in clone.rglob("*.md")]
    before = {path: path.read_bytes() for path in files}
    done = _run(clone, "benchmarks.publish")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_has_a_help_that_names_its_arguments(name, capsys, monkeypatch):
    module = __import__(f"benchmarks.{name}.__main__", fromlist=["main"])
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as done:
        module.main()
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: python -m benchmarks.{name} " in text
    assert "--data FOLDER" in text
    assert "--limit N" in text


@pytest.mark.parametrize("limit", ["1", "-3", "two"])
def test_a_limit_is_at_least_two(limit, capsys, monkeypatch):
    from benchmarks.topics.__main__ import main

    monkeypatch.setattr(sys, "argv", ["topics", "--limit", limit])
    with pytest.raises(SystemExit):
        main()
    assert f"expected a number of at least 2, got {limit}" in capsys.readouterr().err


def test_a_whole_run_on_the_sample_of_passages_says_how_to_get_more(monkeypatch, capsys):
    from benchmarks.arguments import run
    from benchmarks.sae.__main__ import main

    monkeypatch.setattr(sys, "argv", ["sae"])
    with pytest.raises(SystemExit, match=r"is the sample for trials.*python -m benchmarks\.data\.passages FOLDER"):
        run(main)


def test_a_trial_of_titles_is_looked_up_among_few():
    from benchmarks.data import DATA
    from benchmarks.titles import title_context

    whole, trial = (title_context(DATA, limit).titles for limit in (None, 3))
    assert len(whole.index) == 47_538
    assert len(trial.index) < 600
    assert set(trial.train + trial.dev + trial.held_out) <= set(trial.index)
    assert trial.held_out == whole.held_out[:3]
