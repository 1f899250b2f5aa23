"""Retrieval: is the right thing found by what was said of it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.statistics import mean_interval
from interp_toolkit.torch_defaults import plain_defaults


@plain_defaults()
def retrieval_ranks(
    queries: Float[Tensor, "queries width"], index: Float[Tensor, "entries width"], answers: Int[Tensor, " queries"]
) -> Int[Tensor, " queries"]:
    """Rank of the right entry of an index for each query, by cosine, 1 for the first.

    Entries as close as the right one count as before it, so that an index of equal entries finds nothing.

    Args:
        queries: embeddings of the descriptions, from any model.
        index: embeddings of all entries, from the same model.
        answers: number of the right entry for each query.

    Raises:
        InterpToolkitError: an answer that is no entry.

    Example:
        >>> retrieval_ranks(embed(descriptions), embed(titles), torch.tensor([titles.index(t) for t in wanted]))
    """
    if len(answers) and not 0 <= int(answers.min()) <= int(answers.max()) < len(index):
        raise InterpToolkitError(
            f"expected answers between 0 and {len(index) - 1}, got {int(answers.min())} to {int(answers.max())}"
        )
    entries = torch.nn.functional.normalize(index, dim=-1)
    ranks = []
    for block, right in zip(torch.nn.functional.normalize(queries, dim=-1).split(256), answers.split(256)):
        similar = block @ entries.T
        ranks.append((similar >= similar.gather(1, right[:, None])).sum(1))
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.long)


def recall_table(ranks: Int[Tensor, " queries"], at: Sequence[int] = (1, 5, 10, 100), seed: int = 0) -> pd.DataFrame:
    """Recall at several depths and the mean reciprocal rank, with 95% intervals over queries.

    Intervals are Wilson's for recall, which is a share, and the bootstrap's for the mean reciprocal rank.

    Args:
        ranks: see `retrieval_ranks`.
        at: depths k of recall@k.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high``, ``n``, ``seed``.
    """
    measures = {f"recall@{k}": ranks <= k for k in at} | {"mrr": 1 / ranks.double()}
    told = {name: mean_interval(values, seed=seed) for name, values in measures.items()}
    return pd.DataFrame(
        dict(measure=name, value=x.value, low=x.low, high=x.high, n=x.n, seed=seed) for name, x in told.items()
    )
