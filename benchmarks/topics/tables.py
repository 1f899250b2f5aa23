"""The results of topics as tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.arguments import WIDTH
from benchmarks.topics.cells import CELLS, CURVES, FAMILY_SIZE, KINDS, SIZES
from interp_toolkit.evaluation.context import EVIDENCE, GREEDY, ORACLE
from interp_toolkit.results import Row, markdown_table, percent_text, read_result

_ROWS = {"untrained": "untrained, scale {scale:g}", "shuffled": "other vectors", "bias_only": "no vector"}


def tables(results: Path) -> str:
    """Every table whose results are in a folder; cells that are not measured yet are named."""
    files = {path.stem: path for path in sorted(results.glob("*.json")) if path.stem != "rewordings"}
    cells = {name: read_result(files[name]) for name in CELLS if name in files}
    sections = [_evaluation(name, read_result(path)) for name, path in files.items() if name not in CELLS]
    sections += _cells(cells, "the family", [f"{kind}-{FAMILY_SIZE}" for kind in KINDS])
    sections += _cells(cells, "learning curves", [f"{kind}-{size}" for kind in CURVES for size in SIZES])
    if missing := [name for name in CELLS if name not in cells]:
        sections.append(textwrap.fill(f"Not measured yet: {', '.join(missing)}.", WIDTH, break_on_hyphens=False))
    return "\n\n".join(sections)


def _evaluation(name: str, result: Mapping[str, Any]) -> str:
    """One row per protocol and adapter, with its controls below it."""
    rows = []
    for protocol in (GREEDY, ORACLE, EVIDENCE):
        retrievals = [(_ROWS["untrained"].format(**row), row["retrieval"]["own"]) for row in result["untrained"]]
        for adapter, row in result["adapters"].items():
            for control, protocols in row["retrieval"].items():
                name = f"{adapter}, {_ROWS[control]}" if control in _ROWS else adapter
                retrievals.append((name, protocols))
        rows += [dict(protocol=protocol, vectors=vectors, retrieval=x[protocol]) for vectors, x in retrievals]
    rows.append(dict(protocol="", vectors="title to itself", retrieval=result["title_to_itself"]))
    columns = {"protocol": "{protocol}", "vectors": "{vectors}", **_recalls(1, 5, 10, 100)}
    return "\n\n".join([f"{name}: held-out titles", markdown_table(rows, columns), _note(result)])


def _cells(cells: Mapping[str, Any], title: str, names: Iterable[str]) -> list[str]:
    """One row per cell that is there; nothing where none is."""
    rows = [cells[name] for name in names if name in cells]
    if not rows:
        return []
    columns = {
        "cell": "{settings[cell]}",
        "parameters": "{parameters:,}",
        "titles": "{settings[train_titles]:,}",
        "steps": "{best_step:,}",
        "train": "{train_loss:.2f}",
        "val": "{val_loss:.2f}",
        "shuffled": "{shuffled_loss:.2f}",
        **_recalls(1, 10, 100),
    }
    note = (
        "Losses in nats per token; steps up to the weights that were taken, those of the lowest loss on dev titles; "
        "one greedy description per vector."
    )
    return ["\n\n".join([title, markdown_table(rows, columns), _note(rows[0], note)])]


def _recalls(*ks: int) -> dict[str, Callable[[Row], str]]:
    return {f"recall@{k}": lambda row, k=k: percent_text(row["retrieval"][f"recall@{k}"]) for k in ks}


def _note(result: Mapping[str, Any], note: str = "") -> str:
    settings = result["settings"]
    text = (
        f"{note} {settings['model'].rsplit('/', 1)[-1]}, {settings['dtype'].removeprefix('torch.')}; split "
        f"{settings['split']}, n = {settings['n']:,}, seed {settings['seed']}; looked up among {settings['index']:,} "
        f"titles by {settings['embedder']}; 95% bootstrap intervals."
    )
    return textwrap.fill(text.strip(), WIDTH, break_on_hyphens=False)
