"""Fetch passages for training SAEs: paragraphs of WikiText-2, from the Hugging Face hub (about 8 MB).

    python -m benchmarks.data.passages FOLDER

writes FOLDER/corpus/passages.jsonl.gz, and copies beside it what else the benchmarks read, so that FOLDER can be given
as --data. The committed results were measured on a mix of more kinds of text (see benchmarks/data/README.md): figures
on WikiText-2 will differ from them. WikiText-2 is from Wikipedia, under CC BY-SA 4.0.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from benchmarks.data import DATA, PASSAGES
from interp_toolkit.files import whole_file

REPOSITORY = "Salesforce/wikitext"
FILES = {
    "train": "wikitext-2-raw-v1/train-00000-of-00001.parquet",
    "eval": "wikitext-2-raw-v1/validation-00000-of-00001.parquet",
}
# A shorter line is a heading or the rest of a list.
_LEAST = 200


def fetch(folder: Path) -> int:
    """Write the passages, with the other data beside them, and return how many there are."""
    rows = []
    for split, file in FILES.items():
        texts = pd.read_parquet(hf_hub_download(REPOSITORY, file, repo_type="dataset"))["text"].str.strip()
        rows += [dict(text=text, source="WikiText-2", split=split) for text in texts if len(text) >= _LEAST]
    for part in ("topics", "twohop"):
        shutil.copytree(DATA / part, folder / part, dirs_exist_ok=True)
    path = folder / PASSAGES
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with whole_file(path) as draft:
        draft.write_bytes(gzip.compress(text.encode(), mtime=0))
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to write to")
    options = parser.parse_args()
    try:
        print(f"{fetch(options.folder):,} passages in {options.folder / PASSAGES}")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        sys.exit(f"could not fetch {REPOSITORY} from the Hugging Face hub: {str(error).splitlines()[0]}")
