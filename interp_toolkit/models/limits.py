"""The limits of a model: the length of its context, the reach of its rotary positions, the rows of its embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from interp_toolkit.errors import InterpToolkitError


def context_length(model: Any) -> int | None:
    """The most tokens that a hooked model reads at once; None where its positions have no end (ALiBi, say).

    Learned positions have no row behind it. Rotary ones go on, but the model was never trained there and writes
    nonsense, so they end here as well.
    """
    hf_model = getattr(model, "original_model", None)
    if hf_model is None:
        return model.cfg.n_ctx
    config = hf_model.config.get_text_config()
    limit = None if getattr(config, "alibi", False) else getattr(config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else None


def rotary_limit(model: nn.Module) -> float:
    """Return the longest pass, in tokens, whose rotary frequencies are those of every shorter pass.

    It is infinite for most models. With ``rope_type`` longrope or dynamic, a longer pass rotates all its positions at
    other frequencies, so that its first tokens have other keys than in a short pass.
    """
    limits = [math.inf]
    module: Any
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layer_type, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if kind != "longrope" and "dynamic" not in str(kind):
                continue
            settings = module.config.rope_parameters
            settings = settings[layer_type] if layer_type is not None else settings
            limit = settings.get("original_max_position_embeddings") if kind == "longrope" else None
            limits.append(limit or module.original_max_seq_len)
    return float(min(limits))


def require_context(model: Any, length: int, what: str) -> None:
    """Refuse more tokens than fit the model's context.

    Args:
        model: the hooked model.
        length: in tokens.
        what: is that long, as the subject of a sentence in the singular.

    Raises:
        InterpToolkitError: the text names both lengths.
    """
    limit = context_length(model)
    if limit is not None and length > limit:
        raise InterpToolkitError(
            f"{what} is {length} tokens long, and the model's context is {limit} tokens; shorten it"
        )


def require_rows(vocabulary: int, ids: Sequence[int], what: str) -> None:
    """Refuse token ids without a row in the embedding.

    Args:
        vocabulary: number of rows.
        ids: of tokens.
        what: holds them, as the subject of a sentence.

    Raises:
        InterpToolkitError: the text names the id.
    """
    wrong = [i for i in ids if not 0 <= i < vocabulary]
    if wrong:
        raise InterpToolkitError(
            f"{what} holds token id {wrong[0]}, and the model's embedding has {vocabulary} rows, numbered from 0; a "
            f"token that was added to the tokenizer has a row only once the embedding is resized, so leave it out"
        )
