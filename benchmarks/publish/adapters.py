"""Make, calibrate and measure the shipped adapters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import CONFIGS, SHIPPED
from benchmarks.data import TITLES
from benchmarks.publish.token_tables import TOKEN_ADAPTER
from benchmarks.titles import centred_vectors
from interp_toolkit import Adapter, load_model
from interp_toolkit.evaluation import (
    calibrate_threshold,
    control_losses,
    description_ranks,
    evidence_controls,
    recall_table,
)
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.titles import Titles
from interp_toolkit.results import finished_result, intervals_by_measure, write_result
from interp_toolkit.shipped import NAMES, find_adapter
from interp_toolkit.training.recipe import Recipe

# The adapter for any token is made and measured by benchmarks.tokens.
RECIPES = tuple(name for name in NAMES if name != TOKEN_ADAPTER)
# So many of the shuffled held-out titles chose the weights (`val` of the training file), so the others measure them.
_CHOOSING = {"smollm2_rank64": 1000}
# What an adapter begins from has to be trained first.
_PARENTS = {"smollm2_four_layers": "smollm2_four_layers_full_rank"}
# The titles on which losses are measured: these have narrow enough intervals on fewer titles.
_SCORED = 1000
# As results state it.
PROTOCOL = "one greedy description per vector"
# Room is left below 1 MB for the mean vectors and what else the file says.
_LARGEST_BYTES = 940_000


def make(data: Path, names: Sequence[str]) -> None:
    """Train shipped adapters, or go on with it, and calibrate them."""
    for name in names:
        if name in _PARENTS:
            Recipe.read(CONFIGS / f"{_PARENTS[name]}.yaml").run(data)
        result = Recipe.read(CONFIGS / f"{name}.yaml").run(data)
        _save(result.adapter, name)
        print(f"{name}: validation loss {result.best_val_loss:.4f} at step {result.best_step}")
    calibrate(data, names)


def calibrate(data: Path, names: Sequence[str]) -> None:
    """Set the threshold of evidence, on training titles."""
    model = load_model("smollm2-135m")
    titles = Titles.read(data / TITLES, None).dev
    for name in names:
        adapter = find_adapter(name)
        vectors = centred_vectors(model, adapter, titles)
        threshold = calibrate_threshold(evidence_controls(model, adapter, vectors, progress=True))
        adapter.contract = replace(adapter.require_contract(), threshold=threshold)
        _save(adapter, name)
        print(f"{name}: a threshold of {threshold.value:.3f} nats per token")


def _save(adapter: Adapter, name: str) -> None:
    """In the finest numbers with which it stays below 1 MB."""
    sizes = {torch.float32: 4, torch.float16: 2, torch.int8: 1}
    fits = [dtype for dtype, size in sizes.items() if size * adapter.parameter_count < _LARGEST_BYTES]
    adapter.save_pretrained(SHIPPED / name, fits[0] if fits else torch.int8)


def measure(context: EvalContext, path: Path) -> None:
    """Describe held-out titles and look them up; an adapter that was measured before is not measured again.

    Args:
        context: titles, model and embedder.
        path: of the results file.
    """
    held_out = context.titles.held_out
    settings = context.facts | dict(protocol=PROTOCOL)
    result: dict[str, Any] = dict(
        settings=settings, versions=context.versions, title_to_itself=context.ceiling(held_out), adapters={}
    )
    earlier = finished_result(path, settings) or dict(adapters={})
    for name in NAMES:
        adapter, row = find_adapter(name), earlier["adapters"].get(name)
        # A trial has fewer titles than chose the weights.
        first = _CHOOSING.get(name, 0) if context.limit is None else 0
        if row is None or (row["digest"], row["n"]) != (adapter.digest, len(held_out) - first):
            row = _measure_adapter(context, adapter, held_out, first)
        result["adapters"][name] = row
        write_result(path, result)
        print(name, json.dumps(row, indent=1, ensure_ascii=False))


def _measure_adapter(context: EvalContext, adapter: Adapter, held_out: list[str], first: int) -> dict[str, Any]:
    # Read in the order of training, whose files are shared.
    vectors = centred_vectors(context.model, adapter, context.titles.shards)[-len(held_out) :]
    texts = context.describe(adapter, vectors, 1).texts
    ranks = description_ranks(texts[first:], context.embed, context.index, context.answers(held_out[first:]))[:, 0]
    scored = slice(first, min(first + _SCORED, len(held_out)))
    losses = control_losses(context.model, adapter, vectors[scored], held_out[scored])
    return dict(
        parameters=adapter.parameter_count,
        digest=adapter.digest,
        best_val_loss=adapter.metadata.get("best_val_loss"),
        steps=adapter.metadata.get("global_step"),
        n=len(ranks),
        scored=scored.stop - scored.start,
        loss=losses.matched,
        shuffled_loss=losses.shuffled,
        null_loss=losses.null,
        retrieval=intervals_by_measure(recall_table(ranks)),
        examples=[dict(title=title, description=row[0]) for title, row in zip(held_out[first:][:12], texts[first:])],
    )
