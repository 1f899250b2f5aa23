"""Make the committed data files from a folder with the full ones.

    python -m benchmarks.data.make FOLDER --django FOLDER

The first folder has the layout that benchmarks/data has, with every field and every passage, and WordNet's nouns. What
is left out is what no benchmark reads, and what has a licence under which this repository cannot pass it on. Two files
of questions are copied byte for byte, because results name them by a hash. The second folder is the package of Django
5.2.19, from whose translations phrases in several languages are taken. Run it again, and the same bytes come out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.data import DATA, KINDS, PASSAGES, PHRASES, RELATIONS, TITLES
from benchmarks.data.kinds import kinds_of_titles
from benchmarks.data.languages import phrases
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json, read_json_lines

COPIED = ("twohop/composed_twohop.jsonl.gz", "twohop/mquake_2hop_creme.jsonl.gz", "twohop/country_facts.jsonl.gz")
NAMES = "topics/wikidata_fb15k_entities.jsonl.gz"
NOUNS = "topics/wordnet30_nouns.jsonl.gz"
# Sources of descriptions with a licence that allows passing them on with attribution alone; see NOTICE.
DESCRIPTION_SOURCES = ("WordNet 3.0", "wikidata ", "openstax/", "CIA World Factbook")
# Sources of passages in the public domain, under MIT or under CC BY; see NOTICE.
PASSAGE_SOURCES = (
    "standardebooks/",
    "NLTK ",
    "CIA World Factbook",
    "python/peps",
    "TheAlgorithms/Python",
    "GSM8K",
    "tldr-pages/",
    "African Storybook",
)
# Passages of each split in the sample.
SAMPLE = {"train": 300, "eval": 60}


def make(source: Path, django: Path, output: Path) -> None:
    """Write every file of ``output`` from the full files in ``source``, and from Django's translations."""
    _write_lines(output / TITLES, map(_title, _rows(source / TITLES)))
    _write_lines(output / KINDS, kinds_of_titles(_rows(source / TITLES), _rows(source / NOUNS)))
    _write_lines(output / PHRASES, phrases(django))
    _write_lines(output / NAMES, ({key: row[key] for key in ("label", "aliases")} for row in _rows(source / NAMES)))
    for file in COPIED:
        with whole_file(output / file) as draft:
            shutil.copyfile(source / file, draft)
    relations = read_json(source / RELATIONS, "relations")
    _write(output / RELATIONS, json.dumps(relations, ensure_ascii=False, separators=(",", ":")))
    passages = [row for row in _rows(source / PASSAGES) if row["source"].startswith(PASSAGE_SOURCES)]
    _write_lines(output / PASSAGES, _sample(passages))


def _title(row: dict[str, Any]) -> dict[str, Any]:
    """A title with its split and the descriptions that may be passed on."""
    descriptions = [
        {key: description[key] for key in ("description", "source")}
        for description in row["descriptions"]
        if description["source"].startswith(DESCRIPTION_SOURCES)
    ]
    return {"title": row["title"], **({"descriptions": descriptions} if descriptions else {}), "split": row["split"]}


def _sample(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few passages of each split, in the order of the whole."""
    chosen: set[int] = set()
    for split, count in SAMPLE.items():
        numbers = [i for i, row in enumerate(passages) if row["split"] == split]
        chosen |= set(random.Random(0).sample(numbers, count))
    return [row for i, row in enumerate(passages) if i in chosen]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    return (row for _, row in read_json_lines(path, "a data file", "a JSON object"))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        # Without the time, so that the same rows are the same bytes.
        draft.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the full files")
    parser.add_argument("--django", type=Path, metavar="FOLDER", required=True, help="the package django")
    options = parser.parse_args()
    make(options.folder, options.django, DATA)
