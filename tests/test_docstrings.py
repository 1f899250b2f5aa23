"""Public functions with three or more parameters document all of them; `ruff` (D417) checks lists that are there."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "interp_toolkit"
FEWEST = 3  # parameters from which on a function must document them
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _public_functions(tree, prefix=""):
    """Public functions and methods; constructors are documented at their class."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node, f"{node.name}.")
        elif isinstance(node, FUNCTIONS) and not node.name.startswith("_"):
            yield prefix + node.name, node


def _parameters(function):
    arguments = function.args
    names = [x.arg for x in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [x.arg for x in (arguments.vararg, arguments.kwarg) if x is not None]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def _documented(docstring):
    """Names in the section `Args` of a docstring in Google's form."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", docstring, flags=re.M)
    if not section:
        return set()
    heads = re.findall(r"^    ((?:\*{0,2}\w+(?:, )?)+)(?: \([^)]*\))?:", section[1], flags=re.M)
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def missing(source):
    """Of each public function with too short a list, its name and the parameters that the list lacks."""
    for name, function in _public_functions(ast.parse(source)):
        parameters = _parameters(function)
        inherited = any("overload" in ast.unparse(x) or "override" in ast.unparse(x) for x in function.decorator_list)
        deprecated = (ast.get_docstring(function) or "").startswith("Deprecated")
        if len(parameters) < FEWEST or inherited or deprecated:
            continue
        lacking = [x for x in parameters if x not in _documented(ast.get_docstring(function) or "")]
        if lacking:
            yield name, lacking


ROOMS = {}
for _path in sorted(PACKAGE.rglob("*.py")):
    ROOMS.setdefault(_path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(_path)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_document_their_parameters(room):
    lacking = [
        f"{path.relative_to(PACKAGE)}, {name}: {', '.join(names)}"
        for path in ROOMS[room]
        for name, names in missing(path.read_text(encoding="utf-8"))
    ]
    assert not lacking, "`Args` lack parameters:\n" + "\n".join(lacking)


def test_the_check_sees_what_is_missing():
    source = '''
def scale(x, by, dtype):
    """Scale.

    Args:
        x: the vector.
        by, dtype (optional): the factor and its dtype.
    """

class Adapter:
    def fit(self, x, y, steps):
        """Fit.

        Args:
            x: vectors.
        """

    def _private(self, a, b, c): ...

def short(a, b): ...
'''
    assert list(missing(source)) == [("Adapter.fit", ["y", "steps"])]
