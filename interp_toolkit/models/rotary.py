"""Rotary positions whose frequencies depend on how long a pass is."""

from __future__ import annotations

import math
from typing import Any

from torch import nn


def rotary_limit(model: nn.Module) -> float:
    """The longest pass, in tokens, that has the same frequencies as every shorter one; infinite for most models.

    With ``rope_type`` longrope or dynamic, a longer pass turns all its positions at others: its first tokens are not
    what a short pass makes of them.
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
