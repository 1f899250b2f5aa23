"""Evidence: how much a vector, rather than the adapter's habit, speaks for a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.runtime.generate import Generation
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.score import score
from interp_toolkit.torch_defaults import plain_defaults


@plain_defaults()
@torch.no_grad()
def evidence(
    run: PromptRun,
    null: Tensor,
    texts: Sequence[Generation],
    soft_tokens: Tensor | None = None,
    owners: Sequence[int] | None = None,
) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
    """Mean log-probability a token of each text given its vector, and that less the same given the null vector.

    Args:
        run: the soft prompt on its model.
        null: the null vector's soft token, as `Adapter.null` gives it.
        texts: what the model wrote.
        soft_tokens: of other vectors, to judge the texts by; None for those that the texts were written from, whose
            log-probabilities are known.
        owners: for each text the row of ``soft_tokens``; by default text i belongs to row i.

    Returns:
        log-probability and evidence, in nats a token, float32; NaN for a text without tokens.
    """
    whole = [i for i, text in enumerate(texts) if text.token_ids]
    targets = [texts[i].token_ids for i in whole]
    if soft_tokens is None:
        own = torch.tensor([sum(texts[i].log_probs) / len(texts[i].log_probs) for i in whole])
    else:
        rows = [i if owners is None else owners[i] for i in whole]
        own = score(run, soft_tokens, targets, owners=rows).mean().cpu()
    nothing = score(run, null[None], targets, owners=[0] * len(whole)).mean().cpu()
    told = torch.full((2, len(texts)), float("nan"))
    told[0, whole], told[1, whole] = own, own - nothing
    return told[0], told[1]
