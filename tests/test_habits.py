"""The files for contributors: they parse, and what they name exists."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from interp_toolkit import __version__
from interp_toolkit.cli import main

ROOT = Path(__file__).parent.parent
TEXTS = ["CONTRIBUTING.md", "CHANGELOG.md", "README.md"]


def _targets():
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def test_the_changelog_has_the_sections_of_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\]", text, flags=re.M)
    assert versions[0] == "Unreleased"
    assert __version__ in versions
    sections = set(re.findall(r"^### (.+)", text, flags=re.M))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_valid_and_cites_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # What the schema of version 1.2.0 demands, and of what type it is.
    assert citation["cff-version"] == "1.2.0"
    for key in ("message", "title", "abstract"):
        assert isinstance(citation[key], str)
    for key in ("authors", "references", "keywords"):
        assert isinstance(citation[key], list)
        assert citation[key]
    assert citation["type"] in ("software", "dataset")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    people = {"given-names", "family-names", "name-particle"}
    assert all(set(person) <= people or "name" in person for person in citation["authors"] + paper["authors"])
    assert isinstance(paper["year"], int)
    assert [item["value"] for item in paper["identifiers"]] == ["arXiv:2602.10352"]
    assert all(set(item) <= {"type", "value", "description"} for item in paper["identifiers"])


def test_hooks_before_a_commit_run_what_ci_runs():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    entries = [hook["entry"] for hook in local["hooks"]]
    assert all({"id", "name", "language", "entry"} <= set(hook) for hook in local["hooks"])
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    for tool in ("ruff check", "ruff format --check", "pyright --pythonpath"):
        assert f"$(BIN)/{tool}" in lint
        assert any(entry.startswith(f".venv/bin/{tool}") for entry in entries), tool
    for entry in entries:
        for word in shlex.split(entry):
            assert not word.startswith("tests/") or (ROOT / word).is_file(), word
    run = (ROOT / ".ci" / "run").read_text()
    assert set(re.findall(r"^make ([\w-]+)", run, flags=re.M)) <= _targets()


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_templates_are_forms(path):
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(set(fields)) == len(fields) > 0
    assert all(item["attributes"]["label"] for item in form["body"] if item["type"] != "markdown")


def test_the_form_for_bugs_asks_for_versions_and_the_adapter(capsys):
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert "interp-toolkit --version" in text
    assert "interp-toolkit info ADAPTER" in text
    for command in (["--version"], ["info", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0
    assert "ADAPTER" in capsys.readouterr().out


@pytest.mark.parametrize("name", TEXTS)
def test_commands_and_files_that_the_pages_name_are_there(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, flags=re.M):
        assert target in _targets(), f"{name} names make {target}"
    for script in re.findall(r"python ((?:benchmarks|docs)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), f"{name} names {script}"
    for module in re.findall(r"python -m (benchmarks[\w.]*\w)", text):
        path = ROOT.joinpath(*module.split("."))
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), f"{name} names {module}"
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://|#", target):
            assert (ROOT / target.split("#")[0]).exists(), f"{name} links to {target}, which is not there"
    if name == "CONTRIBUTING.md":
        for path in re.findall(r"`((?:interp_toolkit|tests|docs|benchmarks|\.ci)/[\w./]*)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


def _renamed(tree):
    """Old names that a module declares by `interp_toolkit.deprecation`."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        match node.func.id:
            case "renamed_arguments" | "renamed_fields":
                yield from (word.arg for word in node.keywords if word.arg)
            case "moved_names":
                yield from (key.value for x in node.args if isinstance(x, ast.Dict) for key in x.keys)
            case "warn_renamed" if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value.rpartition(".")[2]


def test_the_changelog_names_what_was_renamed():
    unreleased = (ROOT / "CHANGELOG.md").read_text().split("## [0.1.0]")[0]
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", unreleased))))
    for path in sorted((ROOT / "interp_toolkit").rglob("*.py")):
        for old in _renamed(ast.parse(path.read_text(encoding="utf-8"))):
            assert set(re.findall(r"\w+", old)) <= words, f"{path.name} renames {old}, which CHANGELOG.md does not name"
