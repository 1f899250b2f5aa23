"""Titles, and the vectors that adapters read of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.data import TITLES, need
from interp_toolkit import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import Bench
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.sites import Place


def title_context(options: argparse.Namespace) -> Bench:
    """The titles of ``--data``, the first ``--limit`` of each side, with the embedded model and an embedder."""
    need(options.data, TITLES)
    return Bench(options.data / TITLES, options.limit)


def contract_and_site(adapter: Adapter) -> tuple[Contract, Place]:
    """An adapter's contract, and where it reads vectors.

    Raises:
        InterpToolkitError: the adapter does not say so.
    """
    contract = adapter.require_contract()
    contract.require_soft_prompt()
    if contract.site is None:
        raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
    return contract, contract.site


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
