"""Adapters trained on SAE features, on topics, and on both, and what labels of features and of topics cost with each.

All have as many steps. Those on one source pass twice over its rows, those on both once over the rows of both, half of
them features. Both kinds start from the length at which the untrained direction is read best, features at many times
that of topics, and what is trained beside it takes steps in proportion. The simple kind has a scale and a bias, the
expressive one a whole matrix, which starts as the direction itself too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sae_ground import SOURCES, Ground
from sae_losses import label_losses
from topics_cells import KINDS

from interp_toolkit import Adapter, TrainConfig, train_adapter
from interp_toolkit.evaluation.bench import SEED
from interp_toolkit.models import model_facts
from interp_toolkit.results import finished_result, json_rows, write_result

SIMPLE, EXPRESSIVE = "scalar_affine", "full_rank"
# Learning rates: of the logarithm of the scale, and for each unit of the soft token's length.
_SCALE, _BIAS, _MATRIX = 0.02, 0.0025, 0.0006
# Length at which the paper's runs start. Vectors that cannot be read cost least the shorter they are, and no adapter
# would come back from there.
_LEAST = 5.0


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

    def made(self, length: float) -> dict[str, Any]:
        """The adapter's settings; its soft tokens start with this length."""
        return dict(**KINDS[self.kind][0], init_scale=_start(length))

    def config(self, ground: Ground, length: float) -> TrainConfig:
        sizes = ground.sizes
        settings: dict[str, Any] = dict(
            epochs=1 if self.source == "both" else 2,
            batch_size=sizes.batch,
            max_steps=sizes.steps,
            eval_every=max(1, sizes.steps // 4),
            val_examples=2 * sizes.dev,
            log_samples=0,
            seed=SEED,
        )
        start = _start(length)
        return TrainConfig(**settings, lr=_BIAS * start, scale_lr=_SCALE, matrix_lr=_MATRIX * start)

    def settings(self, ground: Ground, length: float) -> dict[str, Any]:
        told = dict(cell=self.name, adapter=self.made(length), training=self.config(ground, length).to_dict())
        return ground.facts | told


CELLS = {cell.name: cell for kind in (SIMPLE, EXPRESSIVE) for cell in [Cell(kind, x) for x in (*SOURCES, "both")]}
UNTRAINED = "untrained"


def _start(length: float) -> float:
    return max(length, _LEAST)


def trained(cell: Cell, ground: Ground, length: float, runs: Path) -> Adapter:
    """The cell's adapter, trained or found."""
    made = Adapter.create(**cell.made(length), d_model=model_facts(ground.model).d_model, seed=SEED)
    pairs, config = ground.pairs(cell.source), cell.config(ground, length)
    folder = runs / cell.name
    return train_adapter(ground.model, pairs, made, config, soft_prompt=ground.soft_prompt, folder=folder).adapter


def run_cell(cell: Cell, ground: Ground, length: float, results: Path, runs: Path) -> None:
    """Train and measure a cell, or go on with it; a result with the same settings is left as it is."""
    settings, path = cell.settings(ground, length), results / f"{cell.name}.json"
    if finished_result(path, settings):
        print(f"{cell.name}: done before, see {path}")
        return
    adapter = trained(cell, ground, length, runs)
    parts = [_losses(ground, lambda _: adapter, measured, "held") for measured in SOURCES]
    seen = SOURCES if cell.source == "both" else (cell.source,)
    parts += [_losses(ground, lambda _: adapter, measured, "train") for measured in seen]
    _write(path, ground, settings, dict(trained_on=cell.source, kind=cell.kind), parts, adapter.digest)


def run_untrained(ground: Ground, results: Path) -> dict[str, float]:
    """The untrained direction at its best length, which dev rows choose; measured like a cell.

    Returns:
        the best length by source, ``both`` included.
    """
    settings, path = ground.facts | dict(cell=UNTRAINED), results / f"{UNTRAINED}.json"
    if kept := finished_result(path, settings):
        print(f"{UNTRAINED}: done before, see {path}")
        return kept["lengths"]
    lengths = {source: ground.best_length(source) for source in (*SOURCES, "both")}
    parts = [_losses(ground, lambda of: ground.untrained(lengths[of]), measured, "held") for measured in SOURCES]
    _write(path, ground, settings, dict(trained_on="nothing", kind=UNTRAINED), parts, None, lengths=lengths)
    return lengths


def transfer_table(results: Path) -> pd.DataFrame:
    """The rows of all cells that there are."""
    paths = [results / f"{name}.json" for name in (*CELLS, UNTRAINED)]
    told = [json.loads(path.read_text())["tables"]["transfer"] for path in paths if path.exists()]
    return pd.DataFrame([row for rows in told for row in rows])


def _losses(ground: Ground, adapter: Callable[[str], Adapter], measured: str, side: str) -> pd.DataFrame:
    """`label_losses` on the rows of a side, as many as are held out."""
    rows, few = ground.rows(measured, side), ground.sizes.held
    found = label_losses(ground.model, adapter(measured), rows.vectors[:few], rows.labels[:few])
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
    write_result(path, told | dict(tables=dict(transfer=json_rows(table))))
    loss = table.query("measure == 'loss' and rows == 'held'").to_dict("records")
    print(f"{path.stem}: " + ", ".join(f"{row['measured_on']} {row['value']:.3f}" for row in loss))
