"""Decoder rows of an SAE as directions of the residual stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae import loading
from interp_toolkit.sae.facts import SAEFacts, check_features, parse_site, sae_facts
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

# What a block adds to the residual stream: directions there are directions of the stream.
_ADDED = re.compile(r"blocks\.\d+\.hook_(?:mlp|attn)_out")
# Scalings of activations that differ from token to token, undone after decoding.
_BY_TOKEN = ("constant_norm_rescale", "layer_norm")


@dataclass(frozen=True, eq=False)
class SAEVectors:
    """Decoder rows as directions.

    Attributes:
        vectors: rows of length one, float32; zeros for a feature without a direction.
        index: number of each row's feature.
        norms: how far the residual stream moves, along its vector, for a feature's activation of one; NaN for an SAE
            that scales each token's activations by their own length or spread (``constant_norm_rescale``,
            ``layer_norm``), since there it depends on the token.
        dead: features that are known never to be active, or have no direction.
        facts: of the SAE.
    """

    vectors: Float[Tensor, "n width"]
    index: tuple[int, ...]
    norms: Float[Tensor, " n"]
    dead: Bool[Tensor, " n"]
    facts: SAEFacts

    __repr__ = brief_repr

    def __len__(self) -> int:
        return len(self.index)


@renamed_arguments(firing="activation_rates")
@plain_defaults()
def sae_vectors(
    sae: Any, indices: Sequence[int] | None = None, *, activation_rates: Float[Tensor, " features"] | None = None
) -> SAEVectors:
    """Decoder rows of an SAE, as directions of length one.

    What a feature adds to the residual stream is its activation times its decoder row, whatever its encoder does and
    whatever bias is taken off the input: so the direction is the row alone, and folding or decoder-norm rescaling
    changes its length only. ``norms`` keeps what length means: 1 where activations already count in units of the row
    (``rescale_acts_by_decoder_norm``), the row's length elsewhere.

    Args:
        sae: an SAE, or whatever `load` takes without an id; a folder's ``sparsity.safetensors`` says which features
            are dead.
        indices: numbers of features; None for all.
        activation_rates: how often each of the SAE's features is active, in any unit: 0 marks it as dead.

    Returns:
        the directions, in the order of the indices.

    Raises:
        InterpToolkitError: a number that the SAE does not have, rows that are no directions of the residual stream, or
            rates of another shape.

    Example:
        >>> directions = sae_vectors(sae, [7, 11])
        >>> adapter(directions.vectors[~directions.dead])
    """
    if activation_rates is None and loading.is_folder(sae):
        activation_rates = loading.read_activation_rates(sae)
    sae = sae if loading.is_inference_sae(sae) else loading.load(sae)
    facts = sae_facts(sae)
    _check_rows(sae, facts)
    index = check_features(range(facts.features) if indices is None else indices, facts.features)
    if activation_rates is not None and activation_rates.shape != (facts.features,):
        raise InterpToolkitError(
            f"expected for activation_rates one number for each of the SAE's {facts.features} features, got shape "
            f"{tuple(activation_rates.shape)}"
        )
    rows = sae.W_dec.detach()[torch.tensor(index, dtype=torch.long, device=sae.W_dec.device)].float().cpu()
    lengths = rows.norm(dim=1)
    empty = ~torch.isfinite(lengths) | (lengths == 0)
    vectors = torch.where(empty[:, None], 0.0, rows / torch.where(empty, 1.0, lengths)[:, None])
    rescaled = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    norms = torch.where(empty, 0.0, torch.ones_like(lengths) if rescaled else lengths)
    if sae.cfg.normalize_activations in _BY_TOKEN:
        norms = torch.full_like(norms, torch.nan)
    dead = empty if activation_rates is None else empty | (activation_rates.cpu()[list(index)] == 0)
    return SAEVectors(vectors, index, norms, dead, facts)


def _check_rows(sae: Any, facts: SAEFacts) -> None:
    place = facts.writes_to
    site = parse_site(place)
    if place and not (site and site.in_stream) and not _ADDED.fullmatch(place):
        raise InterpToolkitError(
            f"the SAE's decoder rows are directions at {place}, not of the residual stream; take one of a "
            f"hook_resid_pre, hook_resid_mid, hook_resid_post, hook_mlp_out or hook_attn_out"
        )
    if sae.cfg.normalize_activations == "covariance_whitening":
        raise InterpToolkitError(
            "the SAE's decoder rows are in a whitened space, and its files do not say which; fold the whitening first "
            "(sae.fold_activation_whitening)"
        )
