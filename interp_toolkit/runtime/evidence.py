"""Evidence: how much a vector, rather than the adapter's habit, speaks for a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import KV
from interp_toolkit.models.batches import padded_batches, pass_size
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.score import score_behind
from interp_toolkit.torch_defaults import plain_defaults


@renamed_arguments(owners="soft_token_index")
@plain_defaults()
@torch.no_grad()
def evidence(
    run: PromptRun,
    null: Float[Tensor, "*tokens d_model"],
    texts: Sequence[Sequence[int]],
    soft_tokens: Float[Tensor, "n *tokens d_model"],
    soft_token_index: Sequence[int] | None = None,
) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
    """Mean log-probability per token of each text given its vector, and that less the same given the null vector.

    Args:
        run: the soft prompt on its model.
        null: the null vector's soft token, as `Adapter.null` gives it.
        texts: ids of the tokens of each, as `Generation` has them.
        soft_tokens: of the vectors that the texts are judged by.
        soft_token_index: for each text the row of ``soft_tokens``; by default text i belongs to row i.

    Returns:
        log-probability and evidence, in nats per token, float32; NaN for a text without tokens.

    Raises:
        InterpToolkitError: a count of soft tokens that does not fit the texts.

    Example:
        >>> texts = [row[0].token_ids for row in generate(run, soft_tokens)]
        >>> log_probs, evidences = evidence(run, adapter.null(), texts, soft_tokens)
    """
    rows = list(range(len(texts))) if soft_token_index is None else list(soft_token_index)
    if len(rows) != len(texts) or (rows and max(rows) >= len(soft_tokens)):
        raise InterpToolkitError(
            f"expected a soft token for each of {len(texts)} texts, got {len(soft_tokens)} soft tokens"
            + (f" and {len(rows)} indices" if soft_token_index is not None else "")
        )
    batch_results = [torch.empty(2, 0)]
    at_once = pass_size(run.backend.device).rows
    for start in range(0, len(texts), at_once):
        batch = rows[start : start + at_once]
        unique = sorted(set(batch))
        prompts = with_null(null, soft_tokens[torch.tensor(unique, device=soft_tokens.device)])
        hidden, past = run.read(prompts, keep=True)
        assert past is not None
        numbers = [unique.index(row) for row in batch]
        batch_results.append(
            evidence_behind(run, prompts, hidden[:, -1], past, texts[start : start + at_once], numbers)
        )
    log_probs, evidences = torch.cat(batch_results, 1)
    return log_probs, evidences


def with_null(null: Tensor, soft_tokens: Tensor) -> Tensor:
    """Soft tokens with the null vector's before them, as `evidence_behind` wants them read, in one pass."""
    return torch.cat([null[None].to(soft_tokens), soft_tokens])


def evidence_behind(
    run: PromptRun,
    prompts: Tensor,
    states: Tensor,
    past: KV,
    texts: Sequence[Sequence[int]],
    soft_token_index: Sequence[int],
) -> Tensor:
    """`evidence` of texts behind prompts that have been read, the null vector's first.

    Both terms of a text come from one pass, behind prompts that were read in one pass. So rounding does not tell the
    terms apart, and the null vector's own evidence is zero in every dtype. Equal texts of one vector are read once.

    Args:
        run: the soft prompt on its model.
        prompts: the soft tokens that were read, see `with_null`.
        states: final hidden states at the last token of each prompt, [1 + n, d_model].
        past: keys and values of the prompts.
        texts: ids of the tokens of each.
        soft_token_index: for each text the number of its soft token, the null vector's not counted.

    Returns:
        log-probabilities and evidence, float32 [2, texts] on the CPU.
    """
    # A soft token that equals the null vector's is read as it.
    is_null = (prompts == prompts[0]).flatten(1).all(1).tolist()
    rows = [0 if is_null[index + 1] else index + 1 for index in soft_token_index]
    pairs = [(row, tuple(text)) for row, text in zip(rows, texts)]
    nothing = torch.full((2,), torch.nan)
    measured = {pair: nothing for pair in pairs if not pair[1]}
    known = list(dict.fromkeys(pair for pair in pairs if pair[1]))
    at_once = max(1, pass_size(run.backend.device).rows // 2)
    for numbers in padded_batches(run.backend, [len(text) for _, text in known], rows=at_once):
        batch = [known[number] for number in numbers]
        terms = list(dict.fromkeys([*batch, *((0, text) for _, text in batch)]))
        chosen, targets = zip(*terms)
        log_probs = score_behind(run, states, past, targets, chosen).split([len(target) for target in targets])
        means = dict(zip(terms, torch.stack([x.mean() for x in log_probs]).cpu()))
        measured |= {
            (row, text): torch.stack([means[row, text], means[row, text] - means[0, text]]) for row, text in batch
        }
    return torch.stack([measured[pair] for pair in pairs], 1) if pairs else torch.empty(2, 0)
