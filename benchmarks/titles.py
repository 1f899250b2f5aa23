"""Titles, and the vectors that adapters read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.data import TITLES, need
from interp_toolkit import Adapter
from interp_toolkit.cli.evaluate import question_files
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.sites import Place

# Further titles among which a trial looks its descriptions up: all of them take minutes to embed.
_FURTHER = 500


def title_context(data: Path, limit: int | None, model: Any = "smollm2-135m") -> EvalContext:
    """The titles of a data folder, with a model and an embedder.

    Args:
        data: folder of the data.
        limit: of a trial, which takes so many titles of each side and looks descriptions up among few; or None.
        model: the hooked model, or its name.

    Raises:
        InterpToolkitError: the folder has no titles.
    """
    need(data, TITLES)
    context = EvalContext(data / TITLES, limit, model, questions=question_files(data))
    if limit is not None:
        titles = context.titles
        index = list(dict.fromkeys([*titles.shards, *titles.index[:_FURTHER]]))
        context.titles = replace(titles, index=index)
    return context


def contract_and_site(adapter: Adapter) -> tuple[Contract, Place]:
    """An adapter's contract, and where it reads vectors.

    Raises:
        InterpToolkitError: the adapter does not say so.
    """
    contract = adapter.require_contract()
    contract.require_soft_prompt()
    return contract, contract.require_site()


def centred_vectors(model: Any, adapter: Adapter, titles: Sequence[str], *, progress: bool = True) -> Tensor:
    """The topic vectors of titles as an adapter takes them, [titles, width].

    Args:
        model: the hooked model.
        adapter: with its contract.
        titles: in the order of their vectors.
        progress: whether to show a bar.
    """
    contract, site = contract_and_site(adapter)
    return contract.centre(topic_vectors(model, titles, site, progress=progress))
