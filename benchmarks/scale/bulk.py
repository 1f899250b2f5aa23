"""Describing a file in parts, against `generate` alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.timing import compare
from interp_toolkit import load_model
from interp_toolkit.bulk import describe_file
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.shipped import find_adapter

# The first has no model of confidence, which reads each description once more.
ADAPTERS = ("smollm2_rank64", "smollm2_any_token")


def random_directions(count: int, width: int) -> np.ndarray:
    """Vectors of the length that directions of topics have, [count, width], float32."""
    return np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)


def measure(folder: Path, vectors: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of both sides and their ratio, for each adapter.

    Args:
        folder: for files that are not kept.
        vectors: to describe.
        repeats: of both sides.
    """
    model, rows = load_model("smollm2-135m"), []
    for name in ADAPTERS:
        adapter, numbers = find_adapter(name), itertools.count()
        values = random_directions(vectors, adapter.config.width)
        np.save(folder / f"{name}.npy", values)
        run = PromptRun(model, adapter.require_contract().require_soft_prompt())

        def in_parts() -> None:
            output = folder / f"{name}-{next(numbers)}"  # noqa: B023 - called before the loop goes on
            describe_file(
                folder / f"{name}.npy",  # noqa: B023
                output,
                model=model,
                adapter=adapter,  # noqa: B023
                rows_per_part=max(1, vectors // 2),
            )

        def alone() -> None:
            with torch.no_grad():
                soft_tokens = adapter(torch.from_numpy(values))  # noqa: B023
                generate(run, soft_tokens, null=adapter.null())  # noqa: B023

        measured = compare(in_parts, alone, repeats)
        what = f"describing a file, against `generate`, `{name}`"
        rows.append(dict(what=what, target="at most 1.1", vectors=vectors, **measured))
    return rows
