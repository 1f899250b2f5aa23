"""Documents name what is there; the picture of the architecture is fresh, and the site builds strictly."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from interp_toolkit.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "tutorials" not in path.relative_to(DOCS).parts)
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}


def _cells(path, kind):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def _codes():
    """Python that readers are shown: the fences of each page and the cells of each notebook, as one program each."""
    for path, text in TEXTS.items():
        if fences := re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S):
            yield pytest.param("\n".join(fences), id=path.name)
    for path in NOTEBOOKS:
        yield pytest.param("\n".join(_cells(path, "code")), id=path.name)


CODES = list(_codes())


def _imported(code):
    """What a program imports from the package, by the name that it goes by there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "interp_toolkit":
            module = importlib.import_module(node.module)
            for alias in node.names:
                yield alias.asname or alias.name, alias.name, module


def _public(name, module):
    if any(part.startswith("_") for part in (*module.__name__.split("."), name)):
        return False
    return name in getattr(module, "__all__", [name]) and hasattr(module, name)


@pytest.mark.parametrize("code", CODES)
def test_programs_of_the_documents_import_public_names_only(code):
    for _, name, module in _imported(code):
        assert _public(name, module), f"{name} is no public name of {module.__name__}"


@pytest.mark.parametrize("code", CODES)
def test_programs_of_the_documents_call_with_arguments_that_are_there(code):
    known = {called: getattr(module, name) for called, name, module in _imported(code)}
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in known:
                function = known[name]
            case ast.Attribute(value=ast.Name(id=name), attr=method) if isinstance(known.get(name), type):
                function = getattr(known[name], method)  # such as Adapter.from_pretrained
            case _:
                continue
        if any(isinstance(arg, ast.Starred) for arg in node.args) or None in [word.arg for word in node.keywords]:
            continue
        # Raises TypeError where the signature does not take them.
        inspect.signature(function).bind(*node.args, **{word.arg: word for word in node.keywords})


def test_the_check_of_arguments_sees_a_wrong_one():
    code = "from interp_toolkit import self_explain\nself_explain('text', layers=[3])"
    with pytest.raises(TypeError, match="layers"):
        test_programs_of_the_documents_call_with_arguments_that_are_there(code)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_within_the_documents_lead_somewhere(path):
    plain = re.sub(r"^```.*?^```", "", TEXTS[path], flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if not re.match(r"https?://|#", target):
            assert (path.parent / target.split("#")[0]).exists(), f"{path.name} links to {target}, which is not there"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_the_tutorials_lead_to_tutorials(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(_cells(path, "markdown"))):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def _resolve(dotted):
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            target = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            target = getattr(target, part)
        return target
    raise ModuleNotFoundError(dotted)


def test_every_claim_names_a_function_that_is_there():
    rows = [line for line in TEXTS[DOCS / "claims.md"].splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) > 10
    for row in rows:
        names = re.findall(r"`(interp_toolkit\.[\w.]+)`", row)
        assert names, row
        assert all(isinstance(_resolve(name), types.FunctionType | types.MethodType) for name in names), row


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_commands_of_the_documents_exist(path, capsys):
    for script in re.findall(r"python (docs/\w+\.py)", TEXTS[path]):
        assert (ROOT / script).exists(), script
    for module in re.findall(r"python -m (benchmarks(?:\.\w+)*)", TEXTS[path]):
        spec = importlib.util.find_spec(module)
        assert spec, module
        assert not spec.submodule_search_locations or importlib.util.find_spec(f"{module}.__main__"), module
    for config in re.findall(r"benchmarks/configs/\w+\.yaml", TEXTS[path]):
        assert (ROOT / config).exists(), config
    for command, name in set(
        re.findall(
            r"interp-toolkit (explain-file|explain|read|describe|train|info|evaluate|sae|report|serve-model)\b ?(\w*)",
            TEXTS[path],
        )
    ):
        with pytest.raises(SystemExit) as done:
            main([command, "--help"])
        help_text = capsys.readouterr().out
        assert done.value.code == 0
        assert command not in ("evaluate", "sae") or name in help_text, f"interp-toolkit {command} {name}"


def test_the_picture_of_the_architecture_is_that_of_the_imports():
    names = runpy.run_path(str(DOCS / "architecture.py"))
    assert names["PICTURE"].read_text(encoding="utf-8") == names["draw"](), "stale: run python docs/architecture.py"


def test_a_room_lies_above_what_it_imports_from():
    names = runpy.run_path(str(DOCS / "architecture.py"))
    uses = {"roof": {"wall", "floor"}, "wall": {"floor"}, "floor": set(), "garden": set()}
    assert names["floors"](uses) == {"roof": 2, "wall": 1, "floor": 0, "garden": 0}
    assert names["_direct"]("roof", uses) == {"wall"}


def test_every_room_stands_in_the_reference():
    for folder in (ROOT / "interp_toolkit").iterdir():
        # The commands tell of themselves by --help.
        module = importlib.import_module(f"interp_toolkit.{folder.stem}") if folder.is_dir() else None
        if module is not None and folder.name != "cli" and getattr(module, "__all__", None):
            assert f"::: interp_toolkit.{folder.name}\n" in TEXTS[DOCS / "api" / f"{folder.name}.md"]


def test_the_table_of_rooms_is_complete():
    rooms = runpy.run_path(str(DOCS / "architecture.py"))["rooms"]()
    rows = re.findall(r"^\| (`[^|]*) \|", TEXTS[DOCS / "architecture.md"].split("## How data")[0], flags=re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(rooms)


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self_explain" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
