"""Adapters trained on SAE features, on topics, and on both, and what labels of features and of topics cost with each.

All have as many steps. Those on one source pass twice over its rows, those on both once over the rows of both, half of
them features. Both kinds start from the length at which the untrained direction is read best, features at many times
that of topics, and what is trained beside it takes steps in proportion. The simple kind has a scale and a bias, the
expressive one a whole matrix, which starts as the direction itself too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arguments import Folders
from benchmarks.sae.ground import SOURCES, Ground, Sizes
from benchmarks.sae.losses import label_losses
from benchmarks.topics.cells import KINDS
from interp_toolkit import Adapter, SoftPrompt, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.models import model_facts
from interp_toolkit.results import finished_result, make_result, read_result, write_result

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
        kind: name in `benchmarks.topics.cells.KINDS`.
        source: ``sae``, ``topics`` or ``both``.
    """

    kind: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.source}"

    def adapter_settings(self, length: float) -> dict[str, Any]:
        """What the adapter is created with; its soft tokens start with this length."""
        return dict(**KINDS[self.kind][0], init_scale=_start(length))

    def config(self, sizes: Sizes, length: float) -> TrainConfig:
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

    def train(
        self, model: Any, pairs: VectorLabelPairs, sizes: Sizes, length: float, soft_prompt: SoftPrompt, folder: Path
    ) -> Adapter:
        """The adapter trained on pairs, here or by an earlier run that has its folder."""
        adapter = Adapter.create(**self.adapter_settings(length), d_model=model_facts(model).d_model, seed=SEED)
        config = self.config(sizes, length)
        return train_adapter(model, pairs, adapter, config, soft_prompt=soft_prompt, folder=folder).adapter

    def settings(self, ground: Ground, length: float) -> dict[str, Any]:
        training = self.config(ground.sizes, length).to_dict()
        return ground.facts | dict(cell=self.name, adapter=self.adapter_settings(length), training=training)


CELLS = {cell.name: cell for kind in (SIMPLE, EXPRESSIVE) for cell in [Cell(kind, x) for x in (*SOURCES, "both")]}
UNTRAINED = "untrained"


def _start(length: float) -> float:
    return max(length, _LEAST)


def trained(cell: Cell, ground: Ground, length: float, runs: Path) -> Adapter:
    """The cell's adapter, trained here or by an earlier run of the same command.

    Args:
        cell: what to train.
        ground: what to train on.
        length: of the soft tokens at the start.
        runs: folder of the training runs.
    """
    pairs = ground.pairs(cell.source)
    return cell.train(ground.model, pairs, ground.sizes, length, ground.soft_prompt, runs / cell.name)


def run_cell(cell: Cell, ground: Ground, length: float, folders: Folders) -> None:
    """Train and measure a cell, or go on with it; a result with the same settings is left as it is.

    Args:
        cell: what to train.
        ground: what to train and measure on.
        length: of the soft tokens at the start.
        folders: of the result and of the training run.
    """
    settings, path = cell.settings(ground, length), folders.results / f"{cell.name}.json"
    if finished_result(path, settings):
        print(f"{cell.name}: done before, see {path}")
        return
    adapter = trained(cell, ground, length, folders.runs)
    seen = SOURCES if cell.source == "both" else (cell.source,)
    sides = [(source, "held") for source in SOURCES] + [(source, "train") for source in seen]
    losses = pd.concat([_losses(ground, adapter, *side) for side in sides], ignore_index=True)
    table = _transfer(losses, cell.source, cell.kind)
    _write(path, make_result(settings, ground.context.versions, dict(transfer=table), digest=adapter.digest))


def run_untrained(ground: Ground, results: Path) -> dict[str, float]:
    """The untrained direction at its best length, which dev rows choose; measured like a cell.

    Returns:
        the best length by source, ``both`` included.
    """
    settings, path = ground.facts | dict(cell=UNTRAINED), results / f"{UNTRAINED}.json"
    if result := finished_result(path, settings):
        print(f"{UNTRAINED}: done before, see {path}")
        return result["lengths"]
    lengths = {source: ground.best_length(source) for source in (*SOURCES, "both")}
    losses = [_losses(ground, ground.untrained(lengths[source]), source, "held") for source in SOURCES]
    table = _transfer(pd.concat(losses, ignore_index=True), "nothing", UNTRAINED)
    tables = dict(transfer=table)
    _write(path, make_result(settings, ground.context.versions, tables, digest=None, lengths=lengths))
    return lengths


def transfer_table(results: Path) -> pd.DataFrame:
    """The rows of all cells that there are."""
    paths = [results / f"{name}.json" for name in (*CELLS, UNTRAINED)]
    return pd.DataFrame([row for path in paths if path.exists() for row in read_result(path)["tables"]["transfer"]])


def _losses(ground: Ground, adapter: Adapter, source: str, side: str) -> pd.DataFrame:
    """`label_losses` on the rows of a side, as many as are held out."""
    rows, n = ground.rows(source, side), ground.sizes.held
    losses = label_losses(ground.model, adapter, rows.vectors[:n], rows.labels[:n])
    return pd.DataFrame(
        [
            dict(measured_on=source, rows=side, measure=name, value=x.value, low=x.low, high=x.high, n=x.n, seed=SEED)
            for name, x in losses.items()
        ]
    )


def _transfer(losses: pd.DataFrame, trained_on: str, kind: str) -> pd.DataFrame:
    losses.insert(0, "trained_on", trained_on)
    losses.insert(1, "kind", kind)
    return losses


def _write(path: Path, result: dict[str, Any]) -> None:
    write_result(path, result)
    rows = [x for x in result["tables"]["transfer"] if (x["measure"], x["rows"]) == ("loss", "held")]
    print(f"{path.stem}: " + ", ".join(f"{row['measured_on']} {row['value']:.3f}" for row in rows))
