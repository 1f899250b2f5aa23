"""Retrieval: is the right thing found by what was said of it?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import bootstrap
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError

# Numbers that the bootstrap draws at a time: all at once would take a gigabyte for some thousand queries.
_DRAWN = 2**22


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
    """Recall at several depths and the mean reciprocal rank, with 95% bootstrap intervals over queries.

    Args:
        ranks: see `retrieval_ranks`.
        at: depths k of recall@k.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high``, ``n``, ``seed``.
    """
    measures = {f"recall@{k}": (ranks <= k).double().numpy() for k in at}
    measures["mrr"] = (1 / ranks.double()).numpy()
    rows = []
    for name, values in measures.items():
        low = high = float(values.mean())
        if values.min() < values.max():
            interval = bootstrap(
                (values,),
                lambda x, axis: x.mean(axis),
                method="percentile",
                rng=seed,
                batch=max(1, _DRAWN // len(values)),
            ).confidence_interval
            low, high = float(interval.low), float(interval.high)
        rows.append(dict(measure=name, value=float(values.mean()), low=low, high=high, n=len(values), seed=seed))
    return pd.DataFrame(rows)
