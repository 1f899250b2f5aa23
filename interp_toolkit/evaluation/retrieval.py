"""Retrieval: at which rank a description finds the right entry of an index, and which of several samples is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.statistics import mean_interval
from interp_toolkit.torch_defaults import plain_defaults

# An empty description is looked up as this, since some embedding models refuse an empty text.
_EMPTY = "-"


@plain_defaults()
def retrieval_ranks(
    queries: Float[Tensor, "queries width"], index: Float[Tensor, "entries width"], answers: Int[Tensor, " queries"]
) -> Int[Tensor, " queries"]:
    """Rank the right entry of an index for each query, by cosine; 1 is the first.

    Entries that are as close as the right one count as before it, so in an index of equal entries the rank is the last.

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
    """Tabulate recall at several depths and the mean reciprocal rank, with 95% intervals over queries.

    Intervals are Wilson's for recall, which is a share, and the bootstrap's for the mean reciprocal rank.

    Args:
        ranks: see `retrieval_ranks`.
        at: depths k of recall@k.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high``, ``n``, ``seed``.
    """
    measures = {f"recall@{k}": ranks <= k for k in at} | {"mrr": 1 / ranks.double()}
    intervals = {name: mean_interval(values, seed=seed) for name, values in measures.items()}
    return pd.DataFrame(
        dict(measure=name, value=x.value, low=x.low, high=x.high, n=x.n, seed=seed) for name, x in intervals.items()
    )


@plain_defaults()
def description_ranks(
    descriptions: Sequence[Sequence[str]],
    embed: Callable[[list[str]], Tensor],
    index: Float[Tensor, "entries width"],
    answers: Int[Tensor, " vectors"],
) -> Int[Tensor, "vectors samples"]:
    """Rank the right entry for every description of every vector, see `retrieval_ranks`.

    Each different text is embedded once; an empty one as ``-``.

    Args:
        descriptions: for each vector its samples, as many for every vector.
        embed: from texts to their embeddings, [texts, width].
        index: embeddings of all entries, from the same model.
        answers: number of the right entry for each vector.

    Raises:
        InterpToolkitError: counts that differ, or an answer that is no entry.

    Example:
        >>> ranks = description_ranks(samples, embed, embed(titles), answers)
        >>> recall_table(best_by_answer(ranks)), recall_table(best_by_evidence(ranks, evidence))
    """
    counts = {len(samples) for samples in descriptions}
    if len(descriptions) != len(answers) or len(counts) > 1:
        raise InterpToolkitError(
            f"expected as many descriptions for each of {len(answers)} vectors, got {len(descriptions)} lists of "
            f"{' or '.join(map(str, sorted(counts)))} descriptions"
        )
    if not descriptions:
        return torch.zeros(0, 0, dtype=torch.long)
    flat = [text.strip() or _EMPTY for samples in descriptions for text in samples]
    number = {text: i for i, text in enumerate(dict.fromkeys(flat))}
    embedded = embed(list(number))[torch.tensor([number[text] for text in flat])]
    samples = counts.pop()
    return retrieval_ranks(embedded, index, answers.repeat_interleave(samples)).view(-1, samples)


def best_by_answer(ranks: Int[Tensor, "vectors samples"]) -> Int[Tensor, " vectors"]:
    """Take each vector's best sample by the right answer: an oracle, and an upper bound for any choice.

    This is the paper's best of six (arXiv 2602.10352, section 4). A baseline needs as many samples, since
    guesses gain by this too.
    """
    return ranks.min(1).values


def best_by_evidence(
    ranks: Int[Tensor, "vectors samples"], evidence: Float[Tensor, "vectors samples"]
) -> Int[Tensor, " vectors"]:
    """Take the rank of each vector's sample with the highest evidence, which needs no answer; the first of equals.

    Args:
        ranks: see `description_ranks`.
        evidence: of each sample, see `Explanation.evidence`; NaN (an empty description) is chosen last.

    Raises:
        InterpToolkitError: shapes that differ.
    """
    if ranks.shape != evidence.shape:
        raise InterpToolkitError(
            f"expected the evidence of each sample, got ranks of shape {tuple(ranks.shape)} and evidence of shape "
            f"{tuple(evidence.shape)}"
        )
    chosen = evidence.nan_to_num(nan=-torch.inf).argmax(1, keepdim=True)
    return ranks.gather(1, chosen)[:, 0]
