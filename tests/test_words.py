"""Plain words: names say what a value is, and prose uses the terms of the glossary."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_toolkit"

# Names that say nothing of the value they hold.
NAMES = frozenset(["told", "found", "own", "asked", "kept", "made", "each", "said", "parts", "most", "given", "faced"])

# Prose that has a standard term (on the right), as regular expressions without regard to case.
_COUNTED = (
    r"(?:nats?|tokens|pairs|rows?|vectors|descriptions?|samples|labels|texts|minutes|log-probabilit\w+|cross-entropy"
)
_COUNTED += r"|ratio|passes|numbers?|objects?|\bone \w+)"
_UNITS = r"(?:token|second|vector|row|step|text|label|line|description|feature|file|pair|prompt|site|title|layer|model"
_UNITS += r"|batch|sample|topic|question|position|run|call|measure|example|condition|cell|process|table)"
# Between words: spaces, or the end of a line, but no empty line.
GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*)"
PROSE = {
    rf"\b{_COUNTED} an? {_UNITS}\b": "per",
    r"\bno readings?\b": "below the threshold; abstains",
    r"\btold\b": "given, stated, distinguished",
    r"\b(?:speaks? loudest|the loudest)\b": "dominates",
    r"\bspeaks? against\b": "is less probable given",
    r"\basked (?:labellers?|judges?)\b": "LLM labeller, LLM judge",
    r"\bsilent features?\b": "inactive feature",
    r"\bfeatures? (?:that )?(?:fires?|fired|firing)\b": "is active, activates",
    r"\bknowledge gap\b": "prompted baseline",
    r"\bround trips?\b": "reconstruction",
    r"\b(?:taken?|takes|taking) out (?:a|the|its|their) directions?\b": "ablate, project out",
    r"\bnobody (?:told|said|asked)\b": "who does what to what",
}


def names_in(source):
    """Names of the list that a program defines, and constructors called `of`, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.alias(asname=str(name))
                | ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ) if name in NAMES:
                yield getattr(node, "lineno", 0), name
            case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
                yield from ((word.value.lineno, word.arg) for word in keywords if word.arg in NAMES)
            # An old name that warns may stay until it goes.
            case ast.FunctionDef(name="of") if "warn_renamed" not in ast.unparse(node):
                yield node.lineno, "of"


def prose_in(text):
    """Words of the list in a text, with the line each stands on."""
    for pattern in PROSE:
        for hit in re.finditer(pattern.replace(" ", GAP), text, flags=re.IGNORECASE):
            yield text.count("\n", 0, hit.start()) + 1, " ".join(hit[0].split())


def _strings_and_comments(source):
    """The prose of a program on the lines where it stands: docstrings, messages and comments, without their marks."""
    lines = [""] * (source.count("\n") + 2)
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            for at, line in enumerate(token.string.split("\n"), start=token.start[0] - 1):
                lines[at] += " " + re.sub(r"\b[rbf]{1,2}(?=[\"'])|[\"'#]", " ", line)
    return "\n".join(lines)


def _files():
    """The files of each room."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        yield "benchmarks", path
    for path in sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").glob("*.py")]):
        if "tutorials" not in path.parts and "benchmarks" not in path.parts:
            yield "docs", path
    for path in sorted([*(ROOT / "tutorials").glob("*.ipynb"), *(ROOT / "benchmarks").glob("*.ipynb")]):
        yield "notebooks", path
    for name in ("README.md", "CONTRIBUTING.md"):
        yield name, ROOT / name


def _hits(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        code, prose = (
            "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == kind)
            for kind in ("code", "markdown")
        )
        return list(names_in(code)), list(prose_in(prose))
    if path.suffix == ".py":
        return list(names_in(text)), list(prose_in(_strings_and_comments(text)))
    return [], list(prose_in(text))


ROOMS = {}
for _room, _path in _files():
    ROOMS.setdefault(_room, []).append(_path)


@pytest.mark.parametrize("room", ROOMS)
def test_names_and_prose_are_plain(room):
    names, prose = [], []
    for path in ROOMS[room]:
        for hits, all_hits in zip(_hits(path), (names, prose)):
            all_hits += [f"{path.relative_to(ROOT)}:{line}: {word}" for line, word in hits]
    assert not names, "name these for what they hold:\n" + "\n".join(names)
    assert not prose, "say these in the words of docs/glossary.md:\n" + "\n".join(prose)


def test_no_name_in_a_test_says_nothing():
    names = [
        f"{path.name}:{line}: {name}"
        for path in sorted((ROOT / "tests").glob("*.py"))
        for line, name in names_in(path.read_text(encoding="utf-8"))
        if name in ("told", "found") and "found={" not in path.read_text(encoding="utf-8").split("\n")[line - 1]
    ]
    assert not names, "name these for what they hold:\n" + "\n".join(names)


def test_the_check_sees_names_and_prose():
    source = (
        "told, x = 1, 2\ndef f(own): self.kept = dict(found=1)\nclass A:\n    def of(cls): ...\n    said: int = 0\n"
    )
    assert sorted(name for _, name in names_in(source)) == ["found", "kept", "of", "own", "said", "told"]
    assert not list(names_in("found_rows = path.parts\nx.told()\n"))
    text = "in nats a\ntoken, and no\nreading; a token, one row a feature"
    assert sorted(prose_in(text)) == [(1, "nats a token"), (2, "no reading"), (3, "one row a feature")]
    program = 'x = 1  # nats a\n# token\nraise E(f"{x} nats a "\n f"token")\nnats = "a"\n'
    assert list(prose_in(_strings_and_comments(program))) == [(1, "nats a token"), (3, "nats a token")]
