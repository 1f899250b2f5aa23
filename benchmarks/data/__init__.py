"""The data that benchmarks read: a folder that travels with the repository, or one that the user names."""

from __future__ import annotations

from pathlib import Path

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import sha256_of

DATA = Path(__file__).parent
TITLES, PASSAGES = "topics/topics.jsonl.gz", "corpus/passages.jsonl.gz"
RELATIONS = "twohop/lre_relations.json.gz"
KINDS, PHRASES = "topics/kinds.jsonl.gz", "corpus/phrases.jsonl.gz"
_FETCH = "get some from Wikipedia by `python -m benchmarks.data.passages FOLDER`, or name your own with --data FOLDER"


def need(folder: Path, *files: str) -> None:
    """Check that files of a data folder are there.

    Raises:
        InterpToolkitError: one is missing; the text says how to get it.
    """
    for file in files:
        if not (folder / file).exists():
            remedy = _FETCH if file.startswith("corpus/") else "leave --data away to use what comes with the repository"
            raise InterpToolkitError(f"expected {file} in {folder}, and there is none; {remedy}")


def need_whole_corpus(folder: Path, file: str = PASSAGES) -> None:
    """Check that passages are there, and more of them than the sample that comes with the repository.

    Raises:
        InterpToolkitError: there are none, or they are the sample; the text says how to get more.
    """
    need(folder, file)
    if sha256_of(folder / file) == sha256_of(DATA / PASSAGES):
        raise InterpToolkitError(
            f"expected a whole corpus, and {folder / file} is the sample for trials (--limit N); {_FETCH}"
        )
