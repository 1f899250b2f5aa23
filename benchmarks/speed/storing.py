"""Storing activations against a straightforward way, on the embedded model.

The plain side is Hugging Face's model with `output_hidden_states`: passages in the order they come, eight at a time,
padded to the longest, the whole model run. Ours is `store_activations`, which sorts by length, stops after the block
that is read, and writes to disk. Both give the same vectors, all but the first of each passage.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import PASSAGES
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import compare
from interp_toolkit import load_model
from interp_toolkit.sae import TokenRows, read_passages, store_activations, token_rows
from interp_toolkit.sites import Site

LAYER, BATCH = 23, 8


def measure(data: Path, sizes: Sizes, repeats: int) -> dict[str, Any]:
    """The comparison by name, as `timing.compare` gives it, with its rate in tokens per second.

    Args:
        data: folder of the data.
        sizes: how much is measured.
        repeats: of both sides in turn.
    """
    model = load_model()
    passages = read_passages(data / PASSAGES, "train", limit=sizes.passages)
    rows = token_rows(model.tokenizer, passages["text"].tolist())

    def ours() -> None:
        # A new folder each time, so that nothing is there yet.
        with tempfile.TemporaryDirectory() as folder:
            store_activations(model, rows, LAYER, folder=Path(folder))

    comparison = compare(lambda: plain(model.original_model, rows), ours, repeats)
    comparison |= dict(tokens=rows.tokens, site=str(Site.after(LAYER)))
    comparison["rate"] = rows.tokens / statistics.median(comparison["fast_seconds"])
    return {f"storing activations after block {LAYER}, {model.cfg.dtype}".replace("torch.", ""): comparison}


@torch.no_grad()
def plain(model: Any, rows: TokenRows) -> list[torch.Tensor]:
    vectors = []
    for start in range(0, len(rows), BATCH):
        ids = rows.ids[start : start + BATCH]
        width = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        states = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states[LAYER + 1]
        vectors += [state[1 : len(row)].clone() for state, row in zip(states, ids)]
    return vectors
