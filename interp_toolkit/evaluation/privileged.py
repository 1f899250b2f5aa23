"""Is it the state, or the text? Descriptions of vectors beside explainers that see no vector.

A description may be right because the vector holds the topic, or because whoever saw the prompt would guess as much.
The controls answer for that: the model shown the prompt and no vector, the same last tokens behind another beginning,
the mean direction in place of the vector, and the logit lens (and a Jacobian lens) at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import JsonCache
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import SEED, EvalContext, tensor_digest
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.models import backend_of
from interp_toolkit.pairs.topics import PROMPT
from interp_toolkit.runtime.answers import plain_answers
from interp_toolkit.sites import Site
from interp_toolkit.statistics import paired_difference, proportion_interval
from interp_toolkit.torch_defaults import plain_defaults

QUESTION = 'Here is a text: "{text}"\nWhat is the topic of the text? Answer with the name of the topic alone.'
# What stands behind each topic's sentence, so that prompts of all topics end in the same tokens.
TAIL = " Please answer in one sentence."
ADAPTER, TEXT_ONLY, LENS, MEAN = "adapter", "text alone", "logit lens", "mean direction"
JACOBIAN_LENS = "Jacobian lens"
TAIL_ROWS = ("own beginning", "another beginning")
_WITHIN = (1, 10)
_LENS_TOKENS = 10
_ANSWER_TOKENS = 16
# Held-out titles that are named.
_MEASURED = 1000
_EXAMPLES = 12


@plain_defaults()
@torch.no_grad()
def logit_lens(
    model: Any, vectors: Tensor, tokens: int = _LENS_TOKENS, *, jacobian: Tensor | None = None
) -> list[list[str]]:
    """The tokens that a residual stream holds as the model's own last layers would read it.

    The final norm and the unembedding are applied to each vector as it is (nostalgebraist 2020), or to what a Jacobian
    makes of it (the Jacobian lens, Gurnee et al. 2026).

    Args:
        model: the hooked model.
        vectors: raw residual streams, [n, d_model].
        tokens: how many, the most probable first.
        jacobian: of the last block's output with respect to these residual streams, [d_model, d_model]: one of
            `transformer_lens.tools.analysis.JacobianLens.jacobians`.

    Returns:
        for each vector the texts of its tokens.

    Raises:
        InterpToolkitError: another width.

    Example:
        >>> logit_lens(model, read_activations(model, "The capital of France is", 28).vectors, tokens=3)
    """
    backend = backend_of(model)
    if vectors.ndim != 2 or vectors.shape[1] != backend.d_model:
        raise InterpToolkitError(
            f"expected residual streams of shape (n, {backend.d_model}), got {tuple(vectors.shape)}; of a stack take "
            f"the vectors of one site"
        )
    if jacobian is not None:
        if jacobian.shape != (backend.d_model, backend.d_model):
            raise InterpToolkitError(
                f"expected a Jacobian of shape {(backend.d_model, backend.d_model)}, got {tuple(jacobian.shape)}; take "
                f"that of one layer of a lens that was fitted to this model"
            )
        vectors = vectors.float() @ jacobian.to(vectors.device, torch.float32).T
    top = []
    for part in vectors.split(256):
        logits = backend.logits(backend.final_norm(part.to(backend.device, backend.dtype)))
        top += logits.topk(tokens).indices.tolist()
    return [[model.tokenizer.decode([token]).strip() for token in row] for row in top]


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    jacobian = _jacobian(context, adapter)
    lens = {} if jacobian is None else dict(jacobian_lens=tensor_digest(jacobian)[:16])
    settings = dict(
        task="privileged",
        adapter=adapter.digest,
        n=len(context.titles.held_out[:_MEASURED]),
        question=QUESTION,
        tail=TAIL,
        lens_tokens=_LENS_TOKENS,
        within=list(_WITHIN),
    )
    return context.facts | settings | lens


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Name held-out titles by the adapter and by explainers without the vector; and by tails that are all alike.

    Returns:
        ``tables``: ``explainers`` (the share of titles among the first k by each explainer), ``differences`` (the
        adapter less each other, paired by title), ``tail`` (the title of the beginning, and another's, named from the
        last token of a tail that all prompts share, and their difference); ``failed`` rows; and ``examples``.
    """
    held_out = HeldOut.read(context, adapter, _MEASURED)
    titles, contract = held_out.titles, adapter.require_contract()
    if len(titles) < 2:
        raise InterpToolkitError(f"expected at least 2 held-out titles, got {len(titles)}")
    deepest = max(contract.require_site().sites)
    mean = torch.zeros(1, adapter.config.width) if contract.mean is None else contract.mean.float().cpu()[None]
    prompts = [PROMPT.format(title=title) for title in titles]
    raw = read_activations(context.model, prompts, deepest, chat=contract.chat, progress=context.progress).vectors
    texts = {
        ADAPTER: context.describe_greedily(adapter, held_out.vectors),
        TEXT_ONLY: _answers(context, prompts),
        LENS: [", ".join(row) for row in logit_lens(context.model, raw)],
        MEAN: context.describe_greedily(adapter, mean) * len(titles),
    }
    if (jacobian := _jacobian(context, adapter)) is not None:
        texts[JACOBIAN_LENS] = [", ".join(row) for row in logit_lens(context.model, raw, jacobian=jacobian)]
    answers = context.answers(titles)
    ranks = {name: context.ranks([[text] for text in rows], answers)[:, 0].numpy() for name, rows in texts.items()}
    explainers = [
        dict(explainer=name, within=k) | proportion_interval(rank <= k).to_dict() | dict(seed=SEED)
        for name, rank in ranks.items()
        for k in _WITHIN
    ]
    differences = [
        dict(adapter_less=name, within=k) | _difference(ranks[ADAPTER] <= k, rank <= k)
        for name, rank in ranks.items()
        if name != ADAPTER
        for k in _WITHIN
    ]
    examples = [
        dict(title=title) | {name: rows[i] for name, rows in texts.items()}
        for i, title in enumerate(titles[:_EXAMPLES])
    ]
    tables = dict(explainers=explainers, differences=differences, tail=_tail(context, adapter, titles))
    return dict(tables=tables, failed=held_out.failed, examples=examples)


def _jacobian(context: EvalContext, adapter: Adapter) -> Tensor | None:
    """The Jacobian of the adapter's deepest site, if the evaluation has a Jacobian lens."""
    if context.jacobian_lens is None:
        return None
    site = max(adapter.require_contract().require_site().sites)
    layers = context.jacobian_lens.source_layers
    if site != Site.after(site.layer) or site.layer not in layers:
        raise InterpToolkitError(
            f"expected a Jacobian lens that was fitted after block {site.layer}, for {site}, got one for blocks "
            f"{', '.join(map(str, layers))}; fit it with source_layers=[{site.layer}]"
        )
    return context.jacobian_lens.jacobians[site.layer].float()


def _tail(context: EvalContext, adapter: Adapter, titles: Sequence[str]) -> list[dict[str, Any]]:
    """Whether descriptions of the last token of a common tail follow what stands before it."""
    contract = adapter.require_contract()
    prompts = [PROMPT.format(title=title) + TAIL for title in titles]
    read = read_activations(context.model, prompts, contract.require_site(), chat=contract.chat)
    described = context.describe_greedily(adapter, contract.centre(read.vectors))
    other = [*titles[len(titles) // 2 :], *titles[: len(titles) // 2]]
    rows = []
    for k in _WITHIN:
        ranks = [context.ranks([[x] for x in described], context.answers(topics))[:, 0] for topics in (titles, other)]
        same, another = (rank.numpy() <= k for rank in ranks)
        for name, named in zip(TAIL_ROWS, (same, another)):
            rows.append(dict(what=name, within=k) | proportion_interval(named).to_dict() | dict(seed=SEED))
        rows.append(dict(what=" - ".join(TAIL_ROWS), within=k) | _difference(same, another))
    return rows


def _difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    return paired_difference(first, second, seed=SEED).to_dict() | dict(seed=SEED)


def _answers(context: EvalContext, prompts: Sequence[str]) -> list[str]:
    """What the model says the topic of each prompt is, without a vector."""
    questions = [QUESTION.format(text=prompt) for prompt in prompts]

    def ask() -> list[str]:
        return plain_answers(context.model, questions, max_new_tokens=_ANSWER_TOKENS, progress=context.progress)

    return JsonCache("privileged").get([*context.key(), questions, _ANSWER_TOKENS], ask)


EVALUATION = Evaluation(_settings, _measure)
