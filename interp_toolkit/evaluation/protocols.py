"""Which of a vector's descriptions is looked up: protocols that give very different figures, and are kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.retrieval import retrieval_ranks
from interp_toolkit.torch_defaults import plain_defaults

# An empty description says nothing; it is looked up as this, since some embedding models refuse an empty text.
_EMPTY = "-"


@plain_defaults()
def description_ranks(
    descriptions: Sequence[Sequence[str]],
    embed: Callable[[list[str]], Tensor],
    index: Float[Tensor, "entries width"],
    answers: Int[Tensor, " vectors"],
) -> Int[Tensor, "vectors samples"]:
    """Rank of the right entry for every description of every vector, see `retrieval_ranks`.

    Each different text is embedded once; an empty one as ``-``.

    Args:
        descriptions: for each vector its samples, as many for one as for another.
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
    """Rank of each vector's best sample, chosen by the right answer: an oracle, and an upper bound for any choice.

    This is the paper's best of six (arXiv 2602.10352, section 4). Guesses profit from it too, so a baseline needs as
    many samples.
    """
    return ranks.min(1).values


def best_by_evidence(
    ranks: Int[Tensor, "vectors samples"], evidence: Float[Tensor, "vectors samples"]
) -> Int[Tensor, " vectors"]:
    """Rank of the sample with the highest evidence, which needs no answer; the first of equals.

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
