"""A Jacobian lens of the embedded model, which `privileged` measures beside the logit lens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformer_lens.tools.analysis import JacobianLens

from benchmarks.tokens.training import passages
from interp_toolkit import Adapter, load_model
from interp_toolkit.files import whole_file

# Its authors call about 100 texts of 128 tokens usable; these take ten minutes of two cores.
TEXTS, _TOKENS = 24, 128
# Rows of the Jacobian that are computed at a time.
_ROWS = 32


def fitted_lens(data: Path, adapter: Adapter, path: Path, texts: int = TEXTS) -> Any:
    """A Jacobian lens for an adapter's deepest site, fitted in float32 to training passages, once.

    Args:
        data: folder of the data.
        adapter: with its contract.
        path: of the lens, which is taken from there when it has been fitted.
        texts: how many passages.
    """
    if not path.exists():
        layer = max(adapter.require_contract().require_site().sites).layer
        model = load_model("smollm2-135m", dtype=torch.float32)
        settings: dict[str, Any] = dict(dim_batch=_ROWS, max_seq_len=_TOKENS, source_layers=[layer])
        lens = JacobianLens.fit(model, passages(data, "train", texts), corpus="passages, train", **settings)
        with whole_file(path) as draft:
            lens.save(str(draft))
    return JacobianLens.load(str(path))
