"""Titles, and the vectors that adapters read of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.data import TITLES, need
from interp_toolkit import Adapter
from interp_toolkit.cli.evaluate import question_files
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.sites import Place


def title_context(options: argparse.Namespace) -> EvalContext:
    """The titles of ``--data``, the first ``--limit`` of each side, with the embedded model and an embedder."""
    need(options.data, TITLES)
    return EvalContext(options.data / TITLES, options.limit, "smollm2-135m", questions=question_files(options.data))


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
