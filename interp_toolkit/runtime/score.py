"""Label log-probabilities, differentiable in the soft tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import KV
from interp_toolkit.models.batches import padded_batches, pass_size
from interp_toolkit.runtime.log_probs import token_log_probs
from interp_toolkit.runtime.prefix import PromptRun, on_still_model
from interp_toolkit.torch_defaults import plain_defaults


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-probabilities of target tokens, in nats, float32.

    Attributes:
        log_probs: of every token of every target, in the targets' order, one after the other.
        lengths: number of tokens of each target.
    """

    log_probs: Tensor
    lengths: tuple[int, ...]

    def mean(self) -> Tensor:
        """Mean over the tokens of each target, [targets]."""
        lengths = torch.tensor(self.lengths, dtype=torch.long, device=self.log_probs.device)
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        sums = self.log_probs.new_zeros(len(lengths)).index_add(0, rows, self.log_probs)
        return sums / lengths


@renamed_arguments(owners="soft_token_index")
@plain_defaults()
@on_still_model
def score(
    run: PromptRun,
    soft_tokens: Tensor,
    targets: Sequence[Sequence[int]],
    soft_token_index: Sequence[int] | None = None,
    smoothing: float = 0.0,
) -> Scores:
    """Log-probabilities of target tokens behind the soft prompt.

    Logits are computed at target positions only. Where several targets share a soft token, the prompt is run once for
    it. The result does not depend on how targets are batched.

    Args:
        run: the soft prompt on its model.
        soft_tokens: [n, d_model], or [n, tokens, d_model]; gradients flow to them.
        targets: token ids, each at least one (see `SoftPrompt.targets`).
        soft_token_index: for each target the row of its soft token; by default target i belongs to row i.
        smoothing: how much of each log-probability to replace by the mean over the vocabulary (label smoothing).

    Raises:
        InterpToolkitError: an empty target, or a count that does not fit.

    Example:
        >>> run = PromptRun(model, prompt)
        >>> score(run, adapter(vectors), prompt.targets(model.tokenizer, labels)).mean()
    """
    rows = target_rows(soft_tokens, targets, soft_token_index)
    run.require_room(max(map(len, targets), default=1) - 1, "the longest target")
    # A user's hooks see the prompt and the target in one pass, and no padding.
    shared = run.backend.plain() and len(set(rows)) < len(rows)
    log_probs: list[Tensor | None] = [None] * len(targets)
    score_batch = _score_shared if shared else _score_once
    for batch in _batches(run, rows, [len(target) for target in targets], shared):
        ids = [list(targets[i]) for i in batch]
        flat = score_batch(run, soft_tokens, ids, [rows[i] for i in batch], smoothing)
        for i, part in zip(batch, flat.split([len(target) for target in ids])):
            log_probs[i] = part
    done = [part for part in log_probs if part is not None]
    return Scores(torch.cat(done) if done else soft_tokens.new_zeros(0), tuple(map(len, targets)))


def target_rows(
    soft_tokens: Tensor, targets: Sequence[Sequence[int]], soft_token_index: Sequence[int] | None
) -> list[int]:
    """For each target of `score` the row of its soft token.

    Args:
        soft_tokens: [n, d_model], or [n, tokens, d_model].
        targets: token ids.
        soft_token_index: for each target the row of its soft token; by default target i belongs to row i.

    Raises:
        InterpToolkitError: an empty target, or a count that does not fit.
    """
    rows = list(range(len(targets))) if soft_token_index is None else list(soft_token_index)
    if len(rows) != len(targets) or (soft_token_index is None and len(targets) != len(soft_tokens)):
        raise InterpToolkitError(
            f"expected a soft token for each of {len(targets)} targets, got {len(soft_tokens)} soft tokens"
            + (f" and {len(rows)} indices" if soft_token_index is not None else "")
        )
    if empty := [i for i, target in enumerate(targets) if not len(target)]:
        raise InterpToolkitError(f"target {empty[0]} has no tokens; expected at least one")
    return rows


def _batches(run: PromptRun, rows: Sequence[int], lengths: Sequence[int], shared: bool) -> Iterator[list[int]]:
    """Numbers of the targets of each pass.

    Args:
        run: the soft prompt on its model.
        rows: of their soft tokens.
        lengths: of the targets, in tokens.
        shared: whether targets of one soft token go together, so that it is read once; otherwise those of like length.
    """
    at_once = pass_size(run.backend.device).rows
    if not shared:
        yield from padded_batches(run.backend, lengths, rows=at_once)
        return
    order = sorted(range(len(rows)), key=lambda i: (rows[i], lengths[i]))
    for start in range(0, len(order), at_once):
        yield from run.backend.together(order[start : start + at_once], lengths)


def _score_once(
    run: PromptRun, soft_tokens: Tensor, targets: list[list[int]], rows: list[int], smoothing: float
) -> Tensor:
    """Prompt and target in one pass."""
    tail = len(run.tokens.tail)
    hidden, _ = run.read(soft_tokens[torch.tensor(rows, device=soft_tokens.device)], _inputs(run, targets))
    return _log_probs(run, hidden[:, tail - 1 :], targets, smoothing)


def _score_shared(
    run: PromptRun, soft_tokens: Tensor, targets: list[list[int]], rows: list[int], smoothing: float
) -> Tensor:
    """The prompt once for each soft token, then the targets behind its keys and values."""
    unique = sorted(set(rows))
    hidden, past = run.read(soft_tokens[torch.tensor(unique, device=soft_tokens.device)], keep=True)
    assert past is not None
    return score_behind(run, hidden[:, -1], past, targets, [unique.index(row) for row in rows], smoothing)


def score_behind(
    run: PromptRun,
    states: Tensor,
    past: KV,
    targets: Sequence[Sequence[int]],
    rows: Sequence[int],
    smoothing: float = 0.0,
) -> Tensor:
    """Log-probabilities of all tokens of one batch of targets, one after the other, behind prompts that have been read.

    Args:
        run: the soft prompt on its model.
        states: final hidden states at the last token of each prompt, [prompts, d_model].
        past: keys and values of the prompts.
        targets: token ids, each at least one.
        rows: for each target its prompt.
        smoothing: as `score` has it.
    """
    index = torch.tensor(rows, device=run.backend.device)
    behind = states.index_select(0, index.to(states.device))[:, None]
    inputs = _inputs(run, targets)
    if inputs.shape[1]:
        hidden, _ = run.backend.hidden(inputs, past.take(index))
        behind = torch.cat([behind, hidden], dim=1)
    return _log_probs(run, behind, targets, smoothing)


def _inputs(run: PromptRun, targets: Sequence[Sequence[int]]) -> Tensor:
    """What the model reads of the targets: all but their last tokens, padded on the right."""
    ids = torch.zeros(len(targets), max(map(len, targets)) - 1, dtype=torch.long)
    for row, target in enumerate(targets):
        ids[row, : len(target) - 1] = torch.tensor(target[:-1], dtype=torch.long)
    return ids.to(run.backend.device)


def _log_probs(run: PromptRun, states: Tensor, targets: Sequence[Sequence[int]], smoothing: float) -> Tensor:
    """Log-probabilities of the targets; state j of a row is the one that predicts its token j."""
    where = [(row, j) for row, target in enumerate(targets) for j in range(len(target))]
    rows, columns = torch.tensor(where, device=states.device).T
    wanted = torch.tensor([token for target in targets for token in target], device=states.device)
    return token_log_probs(run.backend, states[rows, columns], wanted, smoothing)
