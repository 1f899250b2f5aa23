"""Activations of SAE features: of all, or exactly those of a few without the work for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.batches import consecutive_batches
from interp_toolkit.sae.facts import OnMismatch, check_encoding, check_features, check_sae, flags_renamed, require_site
from interp_toolkit.sae.loading import for_inference
from interp_toolkit.torch_defaults import plain_defaults

# Architectures in which a feature's activation depends on its own column of the encoder alone.
_ALONE = ("standard", "jumprelu", "gated")
# Activations held at once: 64 MB.
_BLOCK = 2**24
# Tokens read from the model before they are encoded and dropped.
_TOKENS = 2**15


@plain_defaults()
@torch.no_grad()
def encode_features(
    sae: Any, vectors: Float[Tensor, "n width"], features: Sequence[int] | None = None
) -> Float[Tensor, "n features"]:
    """Activations of features on residual-stream vectors, exactly as the whole SAE computes them in float32.

    Where a feature depends on its own column of the encoder alone, only the columns of these features are computed. A
    top-k SAE compares all features, so there all are computed, a block of tokens at a time, and these returned.

    Args:
        sae: an SAE.
        vectors: as the model has them, neither centred nor scaled.
        features: numbers; None for all.

    Returns:
        activations, float32, on the CPU.

    Raises:
        InterpToolkitError: a number that the SAE does not have, or an SAE that `check_encoding` refuses.
    """
    return Encoder(sae, features)(vectors)


class Encoder:
    """`encode_features` for one choice of features and many calls."""

    def __init__(self, sae: Any, features: Sequence[int] | None = None) -> None:
        count = sae.W_dec.shape[0]
        check_encoding(sae)
        self.features = None if features is None else check_features(features, count)
        self._alone = self.features is not None and sae.cfg.architecture() in _ALONE
        self._sae = for_inference(sae, self.features if self._alone else None)

    @torch.no_grad()
    def __call__(self, vectors: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
        """Activations of the chosen features, float32, on the CPU."""
        sae = self._sae
        width = sae.W_dec.shape[0]
        columns = None if self._alone or self.features is None else torch.tensor(self.features, dtype=torch.long)
        blocks = []
        for block in vectors.float().split(max(1, _BLOCK // max(1, width))):
            activations = sae.encode(block.to(sae.W_dec.device)).to_dense().float().cpu()
            blocks.append(activations if columns is None else activations[:, columns])
        count = width if self.features is None else len(self.features)
        return torch.cat(blocks) if blocks else torch.empty(0, count)


@flags_renamed
def feature_activations(
    model: Any,
    sae: Any,
    rows: Sequence[Sequence[int]],
    features: Sequence[int],
    *,
    on_mismatch: OnMismatch = "error",
) -> list[Float[Tensor, "tokens features"]]:
    """Activations of a few features on every token of some texts.

    The model runs up to the SAE's site and no further.

    Args:
        model: a hooked model.
        sae: an SAE of one of its sites.
        rows: token ids of each text, as the model is to read them.
        features: numbers of features.
        on_mismatch: as `check_sae` takes it.

    Returns:
        for each row [its tokens, features], float32. The first token counts for nothing, as an attention sink that SAEs
        are not trained on: its activations are 0.

    Raises:
        ContractError: as `check_sae`.
        InterpToolkitError: an empty row, a feature that does not exist, or an SAE that cannot be run on this model.

    Example:
        >>> rows = token_rows(model.tokenizer, ["Cats purr.", "Dogs bark."]).ids
        >>> [activations.amax(0) for activations in feature_activations(model, sae, rows, [7, 11])]
    """
    check_sae(sae, model, on_mismatch=on_mismatch)
    return unchecked_activations(model, sae, rows, features)


@plain_defaults()
@torch.no_grad()
def unchecked_activations(
    model: Any, sae: Any, rows: Sequence[Sequence[int]], features: Sequence[int]
) -> list[Float[Tensor, "tokens features"]]:
    """`feature_activations` of an SAE that `check_sae` has seen.

    Args:
        model: a hooked model.
        sae: an SAE of one of its sites.
        rows: token ids of each text.
        features: numbers of features.
    """
    site = require_site(sae)
    encoder = Encoder(sae, features)
    if empty := [number for number, row in enumerate(rows) if not len(row)]:
        raise InterpToolkitError(f"row {empty[0]} has no tokens; expected at least one")
    results: list[Tensor] = []
    for numbers in consecutive_batches([len(row) for row in rows], _TOKENS):
        batch = [list(map(int, rows[i])) for i in numbers]
        activations = encoder(read_activations(model, batch, site, "all").vectors)
        for row_activations in activations.split([len(row) for row in batch]):
            row_activations = row_activations.clone()
            row_activations[0] = 0
            results.append(row_activations)
    return results
