"""Vectors of chosen tokens of prompts, kept in the cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.activations import read_token_vectors
from interp_toolkit.cache import TensorCache
from interp_toolkit.models import is_plain, model_facts, weights_key
from interp_toolkit.sites import Place


def cache_key(model: Any) -> str | None:
    """What vectors are stored by: the model's weights; None under hooks or replaced forwards of the user's."""
    return weights_key(model) if is_plain(model) else None


def token_vectors(
    model: Any,
    prompts: Sequence[Sequence[int]],
    place: Place,
    positions: Sequence[Sequence[int]],
    key: str | None,
) -> Tensor:
    """Read raw vectors of chosen tokens, or take them from the cache folder, where they are stored for what they are.

    Args:
        model: the hooked model.
        prompts: ids of each.
        place: where to read.
        positions: of the tokens of each prompt, from its first; a prompt may have none.
        key: `cache_key` of the model, which is a pass over its weights, so that many calls share it; None to read them
            and store nothing.

    Returns:
        float32 [tokens, d_model for each site], prompt by prompt.
    """
    if key is None:
        return _read(model, prompts, place, positions)
    what = [key, str(place), [list(row) for row in prompts], [list(at) for at in positions]]
    cache = TensorCache("tokens")
    stored = cache.load(what)
    if stored is None:
        stored = {"vectors": _read(model, prompts, place, positions)}
        cache.save(what, stored)
    return stored["vectors"]


def _read(model: Any, prompts: Sequence[Sequence[int]], place: Place, positions: Sequence[Sequence[int]]) -> Tensor:
    rows = [i for i, at in enumerate(positions) if at]
    if not rows:
        return torch.empty(0, model_facts(model).d_model * len(place.sites))
    return read_token_vectors(model, [prompts[i] for i in rows], place, [positions[i] for i in rows])
