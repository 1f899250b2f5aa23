"""Importing the package, and all of the command line that computes nothing, loads no heavy library."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import interp_toolkit

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "transformer_lens", "pandas", "numpy", "scipy", "sklearn", "plotly")
LAZY = ("interp_toolkit", "interp_toolkit.adapters", "interp_toolkit.evaluation", "interp_toolkit.training")


def _loaded(program):
    """The heavy libraries that a program has loaded when it is done."""
    code = f"""
import sys
try:
    {program}
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_loads_nothing(package):
    assert _loaded(f"import {package}; dir({package}); {package}.__all__") == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["explain", "--help"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["sae", "--help"],
        ["--print-completion", "bash"],
        ["explain"],
        ["nonsense"],
        ["evaluate", "nonsense"],
    ],
)
def test_the_command_line_answers_at_once(arguments):
    assert _loaded(f"from interp_toolkit.cli import main; main({arguments!r})") == "[]"


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_an_adapter_is_shown_without_torch(shape):
    assert _loaded(f"from interp_toolkit.cli import main; main({['info', 'smollm2_rank64', *shape]!r})") == "['numpy']"


def test_transformer_lens_is_not_loaded_before_a_model_is():
    program = "from interp_toolkit import self_explain, load_model, read_activations, Adapter, TrainConfig"
    assert _loaded(f"{program}; import interp_toolkit.explain") == "['torch', 'pandas', 'numpy']"


def test_a_config_alone_knows_every_kind_of_ours():
    make = "from interp_toolkit.adapters import AdapterConfig; AdapterConfig('low_rank', 4, rank=2)"
    assert _loaded(make) == "[]"


@pytest.mark.parametrize("name", ["untrained_adapter", "truncated", "Adapter"])
def test_every_kind_is_there_with_each_name_of_the_package(name):
    program = f"""
from interp_toolkit.adapters import {name}
from interp_toolkit.adapters.kinds import FAMILY, class_of_kind
assert [class_of_kind(kind).kind for kind in FAMILY] == list(FAMILY)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("package", LAZY)
def test_names_that_load_later_are_those_that_type_checkers_see(package):
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    (checking,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in checking.body:
        for alias in node.names:
            seen[alias.asname or alias.name] = node.module.removeprefix(f"{package}.")
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_names"]
    assert ast.literal_eval(call.args[1]) == seen
    assert set(module.__all__) <= set(seen) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith("interp_toolkit.")


def test_modules_of_the_package_are_its_attributes():
    assert interp_toolkit.sae.load is not None
    assert interp_toolkit.bridges.find_bridge_entities is not None
    with pytest.raises(AttributeError, match="module 'interp_toolkit' has no attribute 'nonsense'"):
        _ = interp_toolkit.nonsense
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from interp_toolkit import nonsense  # noqa: F401


def test_all_names_come_with_a_star():
    names = {}
    exec("from interp_toolkit import *", names)
    assert set(interp_toolkit.__all__) <= set(names)
