"""The results of topics.py as tables, 80 columns wide."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topics_cells import CELLS, CURVES, FAMILY_SIZE, KINDS, SIZES

from interp_toolkit.evaluation.bench import EVIDENCE, GREEDY, ORACLE

_MEASURES = ("recall@1", "recall@5", "recall@10", "recall@100", "mrr")


def tables(results: Path) -> str:
    """Every table whose results are there; the others are named."""
    cells = {name: told for name in CELLS if (told := _read(results / f"{name}.json"))}
    evaluations = {path.stem: _read(path) for path in sorted(results.glob("*.json")) if path.stem not in CELLS}
    parts = [_evaluation(name, told) for name, told in evaluations.items()]
    if family := {kind: told for kind in KINDS if (told := cells.get(f"{kind}-{FAMILY_SIZE}"))}:
        parts.append(_family(family))
    if any(f"{kind}-{size}" in cells for kind in CURVES for size in SIZES if size != FAMILY_SIZE):
        parts.append(_curves(cells))
    if missing := [name for name in CELLS if name not in cells]:
        parts.append(_note(f"Not measured yet: {', '.join(missing)}."))
    return "\n\n".join(parts)


def _evaluation(name: str, told: Mapping[str, Any]) -> str:
    lines = [
        f"{name}: held-out titles, in per cent",
        "",
        _line("", [m.upper().replace("RECALL", "R") for m in _MEASURES]),
    ]
    for protocol in (GREEDY, ORACLE, EVIDENCE):
        lines.append(protocol)
        for row in told["untrained"]:
            lines.append(_recalls(f"  untrained, scale {row['scale']:g}", row["retrieval"]["own"][protocol]))
        for adapter, row in told["adapters"].items():
            lines.append(_recalls(f"  {adapter}", row["retrieval"]["own"][protocol]))
            for control, said in (("shuffled", "    shuffled vectors"), ("bias_only", "    bias only")):
                lines.append(_recalls(said, row["retrieval"][control][protocol]))
    lines += [_recalls("title to itself", told["title_to_itself"]), ""]
    return "\n".join(lines) + "\n" + _note(_whence(told))


def _family(cells: Mapping[str, Any]) -> str:
    first = next(iter(cells.values()))
    lines = [f"the family, on {first['settings']['train_titles']:,} titles", ""]
    lines.append(f"{'':26}{'param.':>8}{'train':>6}{'val':>5}{'shuf':>5}{'R@1':>10}{'R@10':>10}{'R@100':>10}")
    for kind, told in cells.items():
        losses = "".join(f"{told[key]:5.2f}" for key in ("train_loss", "val_loss", "shuffled_loss"))
        recalls = "".join(f"{_percent(told['retrieval'][f'recall@{k}']):>10}" for k in (1, 10, 100))
        lines.append(f"{kind:26}{told['parameters']:8,} {losses}{recalls}")
    note = f"Losses in nats a token; recall in per cent, one greedy description a vector. {_whence(first)}"
    return "\n".join([*lines, "", _note(note)])


def _curves(cells: Mapping[str, Any]) -> str:
    lines = ["learning curves", ""]
    lines.append(f"{'':26}{'titles':>7}{'steps':>6}{'train':>6}{'val':>5}{'R@1':>10}{'R@10':>10}{'R@100':>10}")
    for kind in CURVES:
        for told in (cells[f"{kind}-{size}"] for size in SIZES if f"{kind}-{size}" in cells):
            losses = "".join(f"{told[key]:5.2f}" for key in ("train_loss", "val_loss"))
            recalls = "".join(f"{_percent(told['retrieval'][f'recall@{k}']):>10}" for k in (1, 10, 100))
            counts = f"{told['settings']['train_titles']:7,}{told['best_step']:6,}"
            lines.append(f"{kind:26}{counts} {losses}{recalls}")
    told = next(told for told in cells.values())
    note = f"Steps: up to the weights that were kept, those of the lowest loss on dev titles. {_whence(told)}"
    return "\n".join([*lines, "", _note(note)])


def _whence(told: Mapping[str, Any]) -> str:
    settings = told["settings"]
    return (
        f"{settings['model'].rsplit('/', 1)[-1]}, {settings['dtype'].removeprefix('torch.')}; split "
        f"{settings['split']}, n = {settings['n']:,}, seed {settings['seed']}; looked up among {settings['index']:,} "
        f"titles by {settings['embedder']}; ± is half the width of the 95% bootstrap interval."
    )


def _recalls(name: str, retrieval: Mapping[str, list[float]]) -> str:
    return _line(name, [_percent(retrieval[measure]) for measure in _MEASURES])


def _line(name: str, values: list[str]) -> str:
    name = name if len(name) <= 30 else f"{name}\n{'':30}"  # a long one has a line of its own
    return f"{name:30}" + "".join(f"{value:>10}" for value in values)


def _percent(told: list[float]) -> str:
    value, low, high = (100 * x for x in told)
    return f"{value:.1f}±{(high - low) / 2:.1f}"


def _note(text: str) -> str:
    return textwrap.fill(text, 80, break_on_hyphens=False)


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None
