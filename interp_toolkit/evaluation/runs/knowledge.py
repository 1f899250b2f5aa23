"""Measure the knowledge control: held-out titles by what the adapter says, and by what the model says when asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import cache_folder
from interp_toolkit.chat import encode
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.evaluation import knowledge
from interp_toolkit.evaluation.bench import GREEDY, SEED, Bench, code_digest
from interp_toolkit.evaluation.held import Held
from interp_toolkit.evaluation.knowledge import (
    MAX_NEW_TOKENS,
    QUESTION,
    PromptedDescription,
    knowledge_gap,
    knowledge_ranks,
    prompted_descriptions,
)
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json
from interp_toolkit.models import weights_key
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.statistics import proportion_interval

# Titles asked about at a time and kept on disk: what an interruption can lose.
_SHARD = 256
_EXAMPLES = 12


def run(bench: Bench, adapter: Adapter, results: Path) -> dict[str, Any]:
    """Look up one greedy description of each held-out title, the adapter's and the model's own when asked.

    Args:
        bench: of topics.
        adapter: with its contract.
        results: the file to write; one with the same settings is left as it is.

    Returns:
        what the file holds: ``settings``, ``versions``, ``failed`` (``count``, and ``rows`` with reasons), ``tables``:
        ``knowledge`` (see `knowledge_gap`) and ``named`` (the share of prompted descriptions from which the title's
        name had to be taken out), and ``examples``.

    Raises:
        InterpToolkitError: an adapter without a site, or no title left.
    """
    parameters = sum(parameter.numel() for parameter in bench.model.parameters())
    settings = bench.facts | dict(
        task="knowledge",
        adapter=adapter.digest,
        parameters=parameters,
        n=len(bench.titles.held),
        question=QUESTION,
        max_new_tokens=MAX_NEW_TOKENS,
        protocol=GREEDY,
    )
    if kept := finished_result(results, settings):
        return kept
    held = Held.read(bench, adapter)
    prompted, failed = _prompted(bench, held.titles)
    rows = [i for i, title in enumerate(held.titles) if title in prompted]
    titles = [held.titles[i] for i in rows]
    told = bench.describe(adapter, held.vectors, 1)
    described = [told.texts[i][0] for i in rows]
    asked = [prompted[title] for title in titles]
    ranks = knowledge_ranks(
        bench.facts["model"], parameters, described, asked, bench.embed, bench.index, bench.answers(titles)
    )
    named = proportion_interval([one.names_title for one in asked])
    found = dict(
        settings=settings,
        versions=bench.versions,
        failed=dict(count=len(held.failed + failed), rows=held.failed + failed),
        tables=dict(
            knowledge=knowledge_gap([ranks], seed=SEED).to_dict("records"),
            named=[dict(measure="title named") | named.to_dict()],
        ),
        examples=[
            dict(title=title, adapter=text) | asdict(one)
            for title, text, one in zip(titles[:_EXAMPLES], described, asked)
        ],
    )
    write_result(results, found)
    return found


def scaling_table(results: Sequence[Path]) -> pd.DataFrame:
    """The tables of several models' runs in one, by size: the scaling curve, with ``parameters`` along it.

    Args:
        results: files that `run` wrote, one a model.

    Returns:
        as `knowledge_gap`.

    Example:
        >>> table = scaling_table(sorted(folder.glob("knowledge*.json")))
        >>> table[table.measure == "recall@10"].pivot(index="parameters", columns="source", values="value")
    """
    if not results:
        raise InterpToolkitError("expected at least one result of a knowledge run, got none")
    tables = [_knowledge(path) for path in results]
    return pd.concat(tables, ignore_index=True).sort_values("parameters", kind="stable", ignore_index=True)


def _knowledge(path: Path) -> pd.DataFrame:
    told = read_json(path, "a result of a knowledge run")
    try:
        table = pd.DataFrame(told["tables"]["knowledge"])
        return table.assign(parameters=pd.to_numeric(table["parameters"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"expected a result of a knowledge run at {path}: {error!r}") from error


def _prompted(bench: Bench, titles: list[str]) -> tuple[dict[str, PromptedDescription], list[dict[str, str]]]:
    """Descriptions by title, kept in the cache folder shard by shard, and the titles for which there is none."""
    # Prompts of one length are decoded together, so a shard should have few lengths.
    order = sorted(titles, key=lambda title: (len(encode(bench.model.tokenizer, title)), title))
    told: dict[str, PromptedDescription] = {}
    failed = []
    shards = [order[i : i + _SHARD] for i in range(0, len(order), _SHARD)]
    for shard in tqdm(shards, desc="asking", unit="shard", disable=not bench.progress):
        path = _file(bench, shard)
        try:
            rows: list[dict[str, str]] = json.loads(path.read_text())
        except (OSError, ValueError):
            rows = _ask(bench, shard)
            with whole_file(path) as draft:
                draft.write_text(json.dumps(rows, ensure_ascii=False))
        for title, row in zip(shard, rows):
            if "reason" in row:
                failed.append(dict(title=title, reason=row["reason"]))
            else:
                told[title] = PromptedDescription(**row)
    return told, failed


def _ask(bench: Bench, titles: list[str]) -> list[dict[str, str]]:
    """A description of each title, or the reason why there is none."""
    try:
        return [asdict(one) for one in prompted_descriptions(bench.model, titles)]
    except InterpToolkitError as error:
        if len(titles) == 1:
            return [dict(reason=str(error))]
        return [row for title in titles for row in _ask(bench, [title])]


def _file(bench: Bench, titles: list[str]) -> Path:
    """Where a shard is kept: named for all that decides its texts, the code that writes them included."""
    code = Path(knowledge.__file__).read_bytes()
    weights = weights_key(bench.model)
    told = json.dumps([code_digest(), bench.facts, weights, bench.versions, QUESTION, MAX_NEW_TOKENS, titles])
    name = hashlib.sha256(code + told.encode()).hexdigest()[:32]
    return cache_folder() / "prompted" / f"{name}.json"
