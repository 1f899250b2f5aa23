"""The verdicts on the paper's claims follow their rule, and the notebooks show the results that are committed."""

import dataclasses
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from benchmarks.publish.claims import CLAIMS, Claim, above

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NOTEBOOKS = sorted(path.stem for path in BENCHMARKS.glob("*.ipynb"))


def _claim(*held):
    row = dict(value=0.5, low=0.4, high=0.6, n=10)
    checks = tuple(above("it", row, 0.3 if holds else 0.45) for holds in held)
    return Claim("says", "paper", "differs", (("-m", "benchmarks.one", "x"), ("-m", "benchmarks.two")), checks)


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ((True, True), "holds"),
        ((True, False), "holds in part"),
        ((False, False), "does not hold at this size"),
        ((), "not measured"),
    ],
)
def test_a_verdict_counts_the_checks_that_hold(held, verdict):
    claim = _claim(*held)
    assert claim.verdict == verdict
    assert f"**Verdict: {verdict}.**" in claim._repr_markdown_()
    assert claim.table["holds"].tolist() == list(held) if held else claim.table.empty


def test_a_verdict_on_part_of_the_checks_says_so():
    claim = dataclasses.replace(_claim(True, False), pending=3)
    assert claim.verdict == "holds in part so far; 3 of 5 checks are not measured yet"


def test_a_check_holds_where_the_whole_interval_lies_above():
    row = dict(value=0.5, low=0.4, high=0.6, n=10)
    assert above("it", row, 0.39).holds
    assert not above("it", row, 0.4).holds
    assert above("it", row, 0.1, "chance").needs == "above chance"


def test_measuring_anew_runs_every_command_from_the_root_of_the_project(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **how: ran.append((command, how)))
    for folder, data in ((str(tmp_path), str(tmp_path)), (None, str(BENCHMARKS / "data"))):
        ran.clear()
        _claim().measure(folder)
        assert [command for command, _ in ran] == [
            [sys.executable, "-m", "benchmarks.one", "x", "--data", data],
            [sys.executable, "-m", "benchmarks.two", "--data", data],
        ]
    assert all(how == dict(cwd=BENCHMARKS.parent, check=True) for _, how in ran)


def test_every_command_of_a_claim_is_there():
    for make in CLAIMS.values():
        for command in make().commands:
            assert command[0] == "-m"
            assert importlib.util.find_spec(f"{command[1]}.__main__")
            assert all((BENCHMARKS.parent / part).exists() for part in command if part.endswith(".yaml"))


def test_every_claim_has_its_notebook():
    assert sorted(CLAIMS) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_the_verdict_of_the_committed_results(name):
    claim = CLAIMS[name]()
    notebook = nbformat.read(BENCHMARKS / f"{name}.ipynb", as_version=4)
    (shown,) = [
        out for cell in notebook.cells for out in cell.get("outputs", []) if "text/markdown" in out.get("data", {})
    ]
    assert shown.data["text/markdown"] == claim._repr_markdown_(), "stale: make claims"
    assert (BENCHMARKS / f"{name}.ipynb").stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_of_a_claim_runs_to_its_kept_outputs(name):
    path = BENCHMARKS / f"{name}.ipynb"
    made = runpy.run_path(str(BENCHMARKS.parent / "docs" / "notebooks.py"))["executed"](path)
    kept = nbformat.read(path, as_version=4)
    assert [cell.get("outputs") for cell in made.cells] == [cell.get("outputs") for cell in kept.cells], (
        "stale: make claims"
    )
