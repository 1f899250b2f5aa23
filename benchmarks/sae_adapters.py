"""Adapters trained on SAE features, on topics, and on both, and what labels of features and of topics cost with each.

All have as many steps. Those on one source pass twice over its rows, those on both once over the rows of both, half of
them features. The simple kind has a scale and a bias, the expressive one a whole matrix from a start in closed form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sae_ground import Ground, Rows
from topics_cells import KINDS

from interp_toolkit import Adapter, TrainConfig, train_adapter
from interp_toolkit.evaluation import best_scale, mean_interval, paired_difference
from interp_toolkit.evaluation.bench import SEED, digest, kept_result, write_result
from interp_toolkit.evaluation.conditions import null_vector, own_vectors
from interp_toolkit.evaluation.runs.losses import records
from interp_toolkit.models import model_facts

SIMPLE, EXPRESSIVE = "scalar_affine", "full_rank_ridge_start"
MEASURED = ("sae", "topics")


@dataclass(frozen=True)
class Cell:
    """One adapter to train and measure.

    Attributes:
        kind: name in `KINDS` of topics_cells.py.
        source: ``sae``, ``topics`` or ``both``.
    """

    kind: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.source}"

    def config(self, ground: Ground) -> TrainConfig:
        sizes = ground.sizes
        settings: dict[str, Any] = dict(
            epochs=1 if self.source == "both" else 2,
            batch_size=sizes.batch,
            max_steps=sizes.steps,
            validate_every=max(1, sizes.steps // 4),
            val_examples=2 * sizes.dev,
            show=0,
            seed=SEED,
        )
        return TrainConfig(**settings | KINDS[self.kind][1])

    def settings(self, ground: Ground) -> dict[str, Any]:
        told = dict(cell=self.name, adapter=KINDS[self.kind][0], training=self.config(ground).to_dict())
        return ground.facts | told


CELLS = {cell.name: cell for kind in (SIMPLE, EXPRESSIVE) for cell in [Cell(kind, x) for x in (*MEASURED, "both")]}
UNTRAINED = "untrained"


def trained(cell: Cell, ground: Ground, runs: Path) -> Adapter:
    """The cell's adapter, trained or found."""
    # Settings in the folder's name: a run with others must not go on from this one's checkpoint.
    folder = runs / f"{cell.name}-{digest(cell.settings(ground))}"
    if (folder / "best").exists():
        return Adapter.load(folder / "best")
    made = Adapter.create(**KINDS[cell.kind][0], d_model=model_facts(ground.model).d_model, seed=SEED)
    pairs, config = ground.pairs(cell.source), cell.config(ground)
    return train_adapter(ground.model, pairs, made, config, soft_prompt=ground.soft_prompt, folder=folder).adapter


def run_cell(cell: Cell, ground: Ground, results: Path, runs: Path) -> None:
    """Train and measure a cell, or go on with it; a result with the same settings is left as it is."""
    settings, path = cell.settings(ground), results / f"{cell.name}.json"
    if kept_result(path, settings):
        print(f"{cell.name}: done before, see {path}")
        return
    adapter = trained(cell, ground, runs)
    parts = [_losses(ground, lambda _: adapter, measured, "held") for measured in MEASURED]
    seen = MEASURED if cell.source == "both" else (cell.source,)
    parts += [_losses(ground, lambda _: adapter, measured, "train") for measured in seen]
    _write(path, ground, settings, dict(trained_on=cell.source, kind=cell.kind), parts, adapter.digest)


def run_untrained(ground: Ground, results: Path) -> dict[str, float]:
    """The untrained direction at its best length, by source, which dev rows choose; measured like a cell."""
    settings, path = ground.facts | dict(cell=UNTRAINED), results / f"{UNTRAINED}.json"
    if kept := kept_result(path, settings):
        print(f"{UNTRAINED}: done before, see {path}")
        return kept["scales"]
    scales = {}
    for source in MEASURED:
        dev = ground.rows(source, "dev")
        scales[source] = best_scale(ground.model, ground.untrained(1.0), dev.vectors, dev.labels)
    parts = [_losses(ground, lambda of: ground.untrained(scales[of]), measured, "held") for measured in MEASURED]
    _write(path, ground, settings, dict(trained_on="nothing", kind=UNTRAINED), parts, None, scales=scales)
    return scales


def transfer_table(results: Path) -> pd.DataFrame:
    """The rows of all cells that there are."""
    paths = [results / f"{name}.json" for name in (*CELLS, UNTRAINED)]
    told = [json.loads(path.read_text())["tables"]["transfer"] for path in paths if path.exists()]
    return pd.DataFrame([row for rows in told for row in rows])


def _losses(ground: Ground, adapter: Callable[[str], Adapter], measured: str, side: str) -> pd.DataFrame:
    """What labels cost given their own vectors, and how much more without them; in nats a token."""
    rows = ground.rows(measured, side)
    few = ground.sizes.held
    rows = Rows(rows.vectors[:few], rows.labels[:few])
    own = own_vectors(adapter(measured), rows.vectors, rows.labels)
    n = len(rows.labels)
    shuffled = replace(own, given=tuple((i - n // 2) % n for i in range(n)))
    asked = (own, null_vector(own.adapter, n), shuffled)
    loss, null, other = (np.asarray(x.losses(ground.model, rows.labels)) for x in asked)
    found = {
        "loss": mean_interval(loss, seed=SEED),
        "more with the null vector": paired_difference(null, loss, seed=SEED),
        "more with another's vector": paired_difference(other, loss, seed=SEED),
    }
    of = dict(measured_on=measured, rows=side)
    return pd.DataFrame(
        [of | dict(measure=name, value=x.value, low=x.low, high=x.high, n=x.n, seed=SEED) for name, x in found.items()]
    )


def _write(
    path: Path,
    ground: Ground,
    settings: dict[str, Any],
    of: dict[str, str],
    parts: list[pd.DataFrame],
    adapter: str | None,
    **more: Any,
) -> None:
    table: Any = pd.concat(parts, ignore_index=True).assign(**of)
    table = table[[*of, *(name for name in table if name not in of)]]
    told = dict(settings=settings, versions=ground.bench.versions, digest=adapter, **more)
    write_result(path, told | dict(tables=dict(transfer=records(table))))
    loss = table.query("measure == 'loss' and rows == 'held'").to_dict("records")
    print(f"{path.stem}: " + ", ".join(f"{row['measured_on']} {row['value']:.3f}" for row in loss))
