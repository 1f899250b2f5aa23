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
from timing import compare

from interp_toolkit import load_model
from interp_toolkit.sae import TokenRows, read_passages, store_activations, token_rows
from interp_toolkit.sites import Site

LAYER, PASSAGES, BATCH = 23, 64, 8


def measure(data: Path, repeats: int) -> dict[str, Any]:
    """The comparison by name, as `timing.compare` gives it, with its rate in tokens a second."""
    model = load_model()
    passages = read_passages(data / "corpus" / "passages.jsonl.gz", "train", limit=PASSAGES)
    rows = token_rows(model.tokenizer, passages["text"].tolist())

    def ours() -> None:
        # A new folder each time, so that nothing is found there.
        with tempfile.TemporaryDirectory() as folder:
            store_activations(model, rows, LAYER, folder=Path(folder))

    told = compare(lambda: plain(model.original_model, rows), ours, repeats)
    told |= dict(tokens=rows.tokens, site=str(Site.after(LAYER)))
    told["rate"] = rows.tokens / statistics.median(told["fast_seconds"])
    return {f"storing activations after block {LAYER}, {model.cfg.dtype}".replace("torch.", ""): told}


@torch.no_grad()
def plain(model: Any, rows: TokenRows) -> list[torch.Tensor]:
    found = []
    for start in range(0, len(rows), BATCH):
        ids = rows.ids[start : start + BATCH]
        width = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        states = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states[LAYER + 1]
        found += [own[1 : len(row)].clone() for own, row in zip(states, ids)]
    return found
