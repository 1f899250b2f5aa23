"""The tutorials run from their first cell to their last: the short ones within the minutes that they state."""

import re
import shutil
import time
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from interp_toolkit import Adapter, Site
from interp_toolkit.adapters import write_mean_vectors
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts

FOLDER = Path(__file__).parent.parent / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_MINUTES = {"three": 3, "eight": 8, "ten": 10}
# One row of so many, and what else makes a longer tutorial short; as it stands `make tutorials` runs it.
SMALLER = {
    "2": (10, {"epochs=1": "epochs=1, max_steps=4", "eval_every=10": "eval_every=2"}),
    "3": (10, {"[:120]": "[:30]", "max_steps=40": "max_steps=4", "eval_every=20": "eval_every=2", "[:60]": "[:12]"}),
    "5": (10, {'["train"][:100]': '["train"][:24]', '["val"][:100]': '["val"][:24]', "few = 50": "few = 6"}),
    "8": (4, {"epochs=2": "epochs=1, max_steps=4", "eval_every=30": "eval_every=2"}),
    "9": (
        10,
        {
            "steps=12": "steps=2",
            "[:16]": "[:4]",
            "[100:124]": "[100:106]",
            "halves=10": "halves=2",
            "tokens=6": "tokens=2",
        },
    ),
}

# The kernel's own warnings are not the package's.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.long]


def _read(name):
    (path,) = FOLDER.glob(f"{name}_*.ipynb")
    return nbformat.read(path, as_version=4)


def _minutes(notebook):
    """What the first cell says that it takes."""
    text = re.search(r"\*\*What it takes\.\*\* (\w+) minutes", notebook.cells[0].source)
    return _MINUTES[text[1].lower()]


def _substitute(notebook, changes):
    """Puts other text for text that must be there, once, in a code cell."""
    for old, new in changes.items():
        actual = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(actual) == 1, f"expected {old!r} in one cell, it is in {len(actual)}"
        assert actual[0].source.count(old) == 1, old
        actual[0].source = actual[0].source.replace(old, new)
    return notebook


def _execute(notebook, tmp_path, minutes, one_row_of=1):
    """Runs a notebook beside a copy of its data; what it writes stays under tmp_path."""
    beside = tmp_path / "tutorials"
    beside.mkdir()
    for data in FOLDER.glob("*.jsonl"):
        rows = data.read_text(encoding="utf-8").splitlines(keepends=True)
        (beside / data.name).write_text("".join(rows[::one_row_of]), encoding="utf-8")
    shutil.copytree(FOLDER / "sae", beside / "sae")
    (tmp_path / "runs").mkdir()
    client = NotebookClient(notebook, timeout=60 * minutes, kernel_name="python3")
    client.resources = {"metadata": {"path": str(beside)}}
    start = time.monotonic()
    client.execute()
    assert time.monotonic() - start < 60 * minutes, f"took more than the {minutes} minutes that it states"
    return tmp_path / "runs"


def _check(name, notebook, runs):
    assert [cell for cell in notebook.cells if cell.get("outputs")]
    report = runs / f"tutorial_{name}.html"
    assert name == "2" or "<html" in report.read_text(encoding="utf-8")
    assert name != "2" or Adapter.from_pretrained(runs / "tutorial_2" / "my-adapter").contract.site == Site.after(23)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("1", marks=pytest.mark.default_dtype), "4", "7"])
def test_a_tutorial_runs_within_its_minutes(name, tmp_path):
    notebook = _read(name)
    _check(name, notebook, _execute(notebook, tmp_path, _minutes(notebook)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_every_cell_of_a_longer_tutorial_runs_on_fewer_rows(name, tmp_path):
    rows, changes = SMALLER[name]
    notebook = _substitute(_read(name), changes)
    _check(name, notebook, _execute(notebook, tmp_path, _minutes(notebook), rows))


@pytest.mark.slow
def test_the_tutorial_of_a_larger_model_runs_on_a_stand_in(tiny, tiny_prompt, tmp_path):
    model = tiny("llama")
    adapter = Adapter.create("scalar_affine", d_model=32)
    facts = model_facts(model)
    adapter.contract = Contract.from_facts(facts, None, tiny_prompt, None, True)
    published, means = tmp_path / "published.safetensors", tmp_path / "means.safetensors"
    adapter.save_published(published)
    write_mean_vectors(means, {2: torch.ones(32)}, facts.model_id)
    changes = {
        'hf_hub_download(PUBLISHED, "wikipedia-scalar-affine.safetensors")': repr(str(published)),
        'hf_hub_download(PUBLISHED, "mean-vectors.safetensors")': repr(str(means)),
        "LAYER = 19": "LAYER = 2",
        'DTYPE = "bfloat16"': 'DTYPE = "float32"',
    }
    runs = _execute(_substitute(_read("6"), changes), tmp_path, 5)
    kept = Adapter.from_pretrained(runs / "tutorial_6" / "llama-wikipedia").contract
    assert kept.site == Site.after(2)
    assert torch.equal(kept.mean, torch.ones(32))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_tutorial_says_what_it_takes_and_what_comes_next(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    for part in ("**What you will see.**", "**What it takes.**", "**What you need to know.**"):
        assert part in first
    assert last.startswith("## What to try next")
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_tutorial_is_kept_without_errors_and_places_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert '"output_type": "error"' not in text
    assert not re.search(r"/(?:home|root|work|Users|tmp)/", text)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.name[0] != "6"], ids=lambda path: path.name)
def test_a_tutorial_is_kept_with_its_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "not executed: make tutorials"
