"""Losses of rows under conditions, kept shard by shard; rows that fail are named and left out of all conditions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import cache_folder
from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.evaluation.bench import Bench, code_digest
from interp_toolkit.evaluation.conditions import Condition
from interp_toolkit.evaluation.protocols import description_ranks
from interp_toolkit.files import whole_file
from interp_toolkit.models import weights_key

# Rows scored at a time and kept on disk: what an interruption can lose.
_SHARD = 256

Make = Callable[[Tensor, list[str]], list[Condition]]
"""From vectors and their titles to the conditions under which they are measured."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of rows under conditions.

    Attributes:
        titles: the rows that could be measured.
        conditions: see `Make`.
        losses: for each condition one a row, in nats a token.
        failed: the other rows, each a ``title`` with a ``reason``.
    """

    titles: list[str]
    conditions: list[Condition]
    losses: list[Tensor]
    failed: list[dict[str, str]]


def measure(bench: Bench, titles: Sequence[str], vectors: Tensor, make: Make) -> Measured:
    """Losses of titles under the conditions that ``make`` sets up.

    A row that fails is left out and the conditions are set up anew, since it may have been a control of others; what
    can fail does so under the first condition, and little is lost.

    Raises:
        InterpToolkitError: no rows are left, or whatever ``make`` raises.
    """
    kept, failed = list(range(len(titles))), []
    while True:
        if not kept and failed:
            reason = failed[0]["reason"]
            raise InterpToolkitError(f"none of {len(titles)} rows could be measured; the first failed with: {reason}")
        labels = [titles[row] for row in kept]
        conditions = make(vectors[kept], labels)
        losses: list[Tensor] = []
        reasons: dict[int, str] = {}
        for condition in tqdm(conditions, desc="scoring", unit="condition", disable=not bench.progress):
            found, reasons = _losses(bench, condition, labels)
            if reasons:
                break
            losses.append(found)
        if not reasons:
            return Measured(labels, conditions, losses, failed)
        failed += [dict(title=labels[row], reason=reason) for row, reason in reasons.items()]
        kept = [row for i, row in enumerate(kept) if i not in reasons]


def describe(bench: Bench, adapter: Adapter, vectors: Tensor) -> list[str]:
    """A greedy description of each vector, or of the null vector alone, kept as `Bench.describe` does."""
    told = bench.describe(adapter, vectors, 1) if vectors.any() else bench.describe_nothing(adapter, 1)
    return [texts[0] for texts in told.texts]


def ranks(bench: Bench, titles: Sequence[str], texts: Sequence[str], faced: Sequence[int]) -> Tensor:
    """Rank of the title that each description should name among all titles, 1 for the first."""
    answers = bench.answers([titles[row] for row in faced])
    return description_ranks([[text] for text in texts], bench.embed, bench.index, answers)[:, 0]


def _losses(bench: Bench, condition: Condition, labels: list[str]) -> tuple[Tensor, dict[int, str]]:
    """A loss a row, and why rows have none; shards without failures are kept."""
    rows = range(len(condition.given))
    losses: list[float] = []
    reasons: dict[int, str] = {}
    for shard in (rows[i : i + _SHARD] for i in range(0, len(rows), _SHARD)):
        part = condition.take(shard)
        path = _file(bench, part, labels)
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            found, bad = _score(bench, part, labels)
            reasons |= {shard[i]: reason for i, reason in bad.items()}
            if not bad:
                with whole_file(path) as draft:
                    draft.write_text(json.dumps(found))
        losses += found
    return torch.tensor(losses), reasons


def _score(bench: Bench, condition: Condition, labels: list[str]) -> tuple[list[float], dict[int, str]]:
    n = len(condition.given)
    try:
        losses = condition.losses(bench.model, labels).tolist()
    except InterpToolkitError as error:  # of rows that cannot be scored; anything else is a bug and stops the run
        if n == 1:
            return [math.nan], {0: f"{type(error).__name__}: {first_line(error)}"}
        each = [_score(bench, condition.take([row]), labels) for row in range(n)]
        return [loss for (loss,), _ in each], {i: bad[0] for i, (_, bad) in enumerate(each) if bad}
    return losses, {i: f"the loss is {loss}" for i, loss in enumerate(losses) if not math.isfinite(loss)}


def _file(bench: Bench, condition: Condition, labels: list[str]) -> Path:
    """Where a shard is kept: named for all that decides its losses, the code that makes them included."""
    prompt = condition.adapter.require_contract().require_soft_prompt()
    told = [
        code_digest(),
        bench.versions,
        weights_key(bench.model),
        bench.facts["dtype"],
        prompt.to_dict(),
        condition.adapter.digest,
        hashlib.sha256(condition.vectors.contiguous().numpy().tobytes()).hexdigest(),
        condition.given,
        [labels[row] for row in condition.faced],
    ]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    return cache_folder() / "losses" / f"{name}.json"
