"""What the numbers of a training run depend on, as one value to compare: a run goes on only where all of it agrees."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.models import weights_key
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.examples import Examples
from interp_toolkit.training.objective import Objective, mean_cross_entropy, objective_name

RunRecord = dict[str, dict[str, Any]]

# What a run shows and where it logs changes no number, and may differ when it goes on.
_OUTWARD = ("log_samples", "tracker")
# Values that go into a digest of vectors: 1 GB in float32, about a second.
_VALUES = 2**28


def make_run_record(
    run: PromptRun,
    pairs: VectorLabelPairs,
    sides: tuple[Examples, Examples],
    adapter: Adapter,
    config: TrainConfig,
    objective: Objective,
) -> RunRecord:
    """Make the record of a run that has not begun.

    Args:
        run: the soft prompt on its model.
        pairs: of both sides.
        sides: the examples to train and to validate on.
        adapter: with its starting weights, which do not count where ``ridge_init`` replaces them.
        config: settings.
        objective: the loss, which is known by its name.

    Returns:
        Values that `torch.save` and ``==`` take, in five sections.
    """
    start = None if config.ridge_init is not None else f"digest {adapter.digest}"
    settings = {key: value for key, value in config.to_dict().items() if key not in _OUTWARD}
    if objective is not mean_cross_entropy:  # which runs of version 0.1 do not name
        settings["objective"] = objective_name(objective)
    prompt = {f"soft prompt {key}": value for key, value in run.soft_prompt.to_dict().items()}
    return dict(
        settings=settings,
        adapter=adapter.config.to_dict() | {"adapter's starting weights": start},
        pairs={
            "vectors": digest_of_rows(pairs.stored),
            "labels": _digest(json.dumps(pairs.labels).encode()),
            "splits": _digest(json.dumps(pairs.splits).encode()),
            "example weights": _digest(np.asarray(pairs.weights).tobytes()),
            # Left out where there are none, so that runs of earlier versions go on.
            **(dict(questions=_digest(json.dumps(pairs.questions).encode())) if any(pairs.questions) else {}),
            # What the tokenizer makes of the labels, and which examples validate.
            "label tokens": _digest(*(json.dumps([side.rows, side.targets]).encode() for side in sides)),
        },
        contract={
            "site": None if pairs.site is None else str(pairs.site),
            "mean": None if pairs.mean is None else _digest(_bytes(pairs.mean)),
            **prompt,
        },
        model={
            "model weights": f"digest {weights_key(run.model)[:16]}",
            "dtype": str(run.backend.dtype).removeprefix("torch."),
        },
    )


def difference(theirs: RunRecord, ours: RunRecord) -> list[str]:
    """List what differs between a stored record and this run's, each with both values."""
    return [
        f"{key}: {_on_one_line(theirs[section].get(key))} there, {_on_one_line(ours[section].get(key))} here"
        for section in ours
        for key in dict.fromkeys([*ours[section], *theirs[section]])
        if theirs[section].get(key) != ours[section].get(key)
    ]


def _on_one_line(value: Any) -> str:
    return " ".join(str(value).splitlines())


def digest_of_rows(rows: StoredRows) -> str:
    """Compute a digest of vectors: of all up to 1 GB in float32, beyond of that many spread evenly over all rows."""
    count = min(len(rows), max(1, _VALUES // math.prod(rows.shape)))
    # In float64: float32 does not count beyond 2^24 rows.
    spread = torch.linspace(0, len(rows) - 1, count, dtype=torch.float64).round().long()
    return _digest(str((len(rows), *rows.shape)).encode(), *map(_bytes, rows.take(spread).blocks()))


def _digest(*blocks: bytes) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    for block in blocks:
        hasher.update(block)
    return f"digest {hasher.hexdigest()}"


def _bytes(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().tobytes()
