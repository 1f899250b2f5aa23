"""Entities that a grid of descriptions names, and neither the prompt nor the model's response does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pandas as pd

from interp_toolkit.bridges.grid import Grid
from interp_toolkit.bridges.names import Entity
from interp_toolkit.deprecation import renamed_arguments

COLUMNS = (
    *("prompt", "rank", "entity", "score", "evidence", "cells", "elsewhere"),
    *("site", "position", "token", "description"),
)
# The longest entity, in words.
_WORDS = 6


@renamed_arguments(most="limit")
def extract_entities(grid: Grid, limit: int = 20) -> pd.DataFrame:
    """Extract entities that descriptions name and neither prompt nor response does, best first, without a gold list.

    Candidates are short descriptions as a whole and the runs of capitalised words in them. The score is the evidence
    for an entity, in nats per token: the best sample's of each cell, summed over the cells that name it. It is reduced
    by the share of the other prompts whose descriptions name the same, which shows the adapter's habits; so describe
    several prompts together.

    Args:
        grid: see `describe_grid`.
        limit: entities per prompt.

    Returns:
        one row per entity: ``prompt``, ``rank`` (from 1), ``entity``, ``score``, ``evidence`` (of the best
        description), ``cells`` (how many name it), ``elsewhere`` (the share of the other prompts that name it), and the
        ``site``, ``position``, ``token`` and ``description`` with most evidence.

    Example:
        >>> grid = describe_grid(model, prompts, adapter)
        >>> extract_entities(grid).query("prompt == 0").head()
    """
    named: dict[int, dict[str, list[Any]]] = {i: defaultdict(list) for i in grid.prompts["prompt"]}
    written: dict[str, Counter[str]] = defaultdict(Counter)
    row: Any
    prompt: Any
    for row in grid.cells.dropna(subset="evidence").itertuples():
        for entity in set(_candidates(row.description)):
            key = " ".join(entity.casefold().split())
            named[row.prompt][key].append(row)
            written[key][entity] += 1
    prompts_naming = Counter(key for by_entity in named.values() for key in by_entity)
    others = max(1, len(named) - 1)
    out = []
    for prompt in grid.prompts.itertuples():
        text = f"{prompt.text}\n{prompt.response}"
        scored = []
        for key, rows in named[prompt.prompt].items():
            entity = written[key].most_common(1)[0][0]
            if _names(text, entity):
                continue
            cells: dict[tuple[str, int], float] = defaultdict(float)
            for row in rows:
                cells[row.site, row.position] = max(cells[row.site, row.position], row.evidence)
            elsewhere = (prompts_naming[key] - 1) / others
            best = max(rows, key=lambda row: row.evidence)
            score = sum(cells.values()) * (1 - elsewhere)
            where = (best.site, best.position, best.token, best.description)
            scored.append((prompt.prompt, entity, score, best.evidence, len(cells), elsewhere, *where))
        scored.sort(key=lambda row: (-row[2], row[1]))
        out += [(row[0], rank, *row[1:]) for rank, row in enumerate(scored[:limit], 1)]
    return pd.DataFrame(out, columns=pd.Index(COLUMNS))


def _candidates(description: str) -> Iterator[str]:
    """A short description as a whole, and its runs of capitalised words."""
    words = [word.strip("\"'.,;:!?()[]").removesuffix("'s").removesuffix("\u2019s") for word in description.split()]
    if len(words) <= _WORDS and any(words):
        yield " ".join(filter(None, words))
    run: list[str] = []
    for word in [*words, ""]:
        if word[:1].isupper():
            run.append(word)
        elif run:
            yield " ".join(run)
            run = []


def _names(text: str, entity: str) -> bool:
    """Whether a text names an entity, or each word of it."""
    return all(Entity(word).named_in(text) for word in entity.split() if any(map(str.isalnum, word)))
