"""The programs of the page *Extend it* run, on a tiny model."""

import gzip
import json
import re
from pathlib import Path

import pytest

from interp_toolkit.adapters.kinds import KINDS

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
FENCES = re.compile(r"^```python\n(.*?)^```", flags=re.M | re.S)
HEAD, *SECTIONS = re.split(r"^## (?=\S)", PAGE, flags=re.M)


@pytest.fixture
def registry():
    """Take back the kinds that a program defines."""
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split("\n")[0])
def test_programs_of_the_page_run(section, tiny, tmp_path, monkeypatch, registry, unchecked):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp_toolkit.load_model", lambda name: tiny("qwen2"))
    with gzip.open("topics.jsonl.gz", "wt") as file:
        for i in range(510):
            file.write(json.dumps(dict(title=f"Title {i}", split="val" if i < 5 else "train")) + "\n")
    names = {"__name__": "my_program"}
    programs = FENCES.findall(HEAD) + FENCES.findall(section)
    assert len(programs) >= 2
    for program in programs:
        exec(program, names)


def test_the_page_has_a_section_per_part():
    parts = {"An adapter kind", "A loss", "A site", "A labeller", "An evaluation", "An engine", "A view"}
    assert {section.split("\n")[0] for section in SECTIONS} >= parts
