"""The structure: imports only go down, the face is what it says, documents name what exists."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import interp_toolkit
from benchmarks.publish import documents
from benchmarks.publish.cards import card
from benchmarks.publish.token_tables import TOKEN_ADAPTER

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_toolkit"

# Rooms from the ground up; a module imports from rooms below its own, or from its own.
ROOMS = [
    ["deprecation", "errors", "lazy", "tensor_type"],
    [
        "files",
        "json_lines",
        "positions",
        "regression",
        "settings",
        "sites",
        "statistics",
        "tables",
        "torch_defaults",
        "web",
    ],
    ["cache", "chat", "quotes", "results"],
    ["confidence", "embedder", "probe", "reading_place", "soft_prompt", "spans", "way_back"],
    ["contract"],
    ["adapters", "models"],
    ["activations"],
    ["pairs", "reconstruct", "runtime"],
    ["engines", "training", "shipped", "centering", "explanations", "read_back", "vectors"],
    ["inputs"],
    ["describing", "remote", "span_inputs"],
    ["explain", "views"],
    ["difference", "questions", "sae"],
    ["bridges", "bulk", "scoring"],
    ["evaluation"],
    ["serve"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name and name.startswith("interp_toolkit."):
                yield name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    own = _room(path)
    for other in _imports(path):
        assert other == own or FLOOR[other] < FLOOR[own], f"{own} imports {other}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_small_and_only_one_asks_for_the_class(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    if _room(path) != "models":
        assert "HookedTransformer" not in re.sub(r'""".*?"""', "", text, flags=re.S)
        assert "TransformerBridge" not in re.sub(r'""".*?"""', "", text, flags=re.S)


def test_the_face():
    assert set(interp_toolkit.__all__) >= {
        "self_explain",
        "Explanations",
        "load_model",
        "read_activations",
        "Site",
        "SoftPrompt",
        "Adapter",
        "VectorLabelPairs",
        "train_adapter",
        "TrainConfig",
    }
    assert all(hasattr(interp_toolkit, name) for name in interp_toolkit.__all__)


def test_fences_of_the_readme_import_public_names_only():
    for fence in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S):
        for node in ast.walk(ast.parse(fence)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "interp_toolkit":
                assert node.module == "interp_toolkit", f"the README imports from {node.module}"
                assert {alias.name for alias in node.names} <= set(interp_toolkit.__all__)


def test_the_two_commands_of_the_readme_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in readme
        assert re.search(rf"^{command}:", makefile, flags=re.M)


def _pinned(name):
    """Versions by package in a file of pins."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, version in (x.split("==") for x in lines)}


@pytest.mark.parametrize("name", ["requirements.lock", ".ci/tl4.txt"])
def test_what_is_tested_fits_the_ranges(name):
    pinned = _pinned(name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["ray"]  # 240 MB; test_on_ray runs with a stand-in, and with Ray in an environment that has it
    if "sae-lens" not in pinned:
        del extras["sae"]
    for requirement in map(Requirement, project["dependencies"] + [x for extra in extras.values() for x in extra]):
        if name == "requirements.lock" or requirement.name not in ("ruff", "pyright"):  # only the lock is linted with
            assert pinned[requirement.name.lower()] in requirement.specifier


def test_the_lowest_that_is_tested_are_the_lower_bounds():
    pinned = _pinned(".ci/lowest.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        (bound,) = [part.version for part in requirement.specifier if part.operator == ">="]
        tested = pinned[requirement.name.lower()]
        assert tested == bound or tested.startswith(f"{bound}."), f"{requirement.name}: {tested} is tested, not {bound}"


def test_the_outputs_and_tables_of_the_documents_are_those_of_the_results():
    for file in documents.BLOCKS:
        assert documents.filled(file) == (ROOT / file).read_text(), "stale: run python -m benchmarks.publish"
    for folder in (PACKAGE / "shipped").glob("smollm2_*"):
        assert (folder / "README.md").read_text() == card(folder.name), "stale: run python -m benchmarks.publish"


def test_the_results_are_of_the_adapters_that_ship():
    from interp_toolkit.evaluation.driver import EVALUATIONS
    from interp_toolkit.shipped import NAMES, find_adapter

    digests = {name: find_adapter(name).digest for name in NAMES}
    results = ROOT / "benchmarks" / "results"
    tokens = json.loads((results / "tokens" / "tokens.json").read_text())["settings"]["digests"]
    assert tokens[TOKEN_ADAPTER] == digests[TOKEN_ADAPTER]
    assert {name: digests[name] for name in tokens} == tokens
    shipped = json.loads((results / "shipped_adapters.json").read_text())["adapters"]
    assert {name: row["digest"] for name, row in shipped.items()} == digests
    for path in (ROOT / "benchmarks" / "results" / "trust").glob("*.json"):
        assert path.stem in EVALUATIONS
        assert json.loads(path.read_text())["settings"]["adapter"] == find_adapter(NAMES[0]).digest, path
