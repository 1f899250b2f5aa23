"""SAEs as vectors: what one was trained on, whom it belongs to, and its decoder rows as directions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import same_blocks
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sae.sae_files import is_folder, is_inference_sae, load_sae, read_firing
from interp_toolkit.sites import Site
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

# How Hugging Face's classes name a block, whose output is meant unless the name says otherwise. Only parts of language
# models are listed: the blocks of a vision tower have the same names behind another beginning.
_BLOCK = re.compile(
    r"(?:(?:base_model|model|language_model|text_model|transformer|gpt_neox|decoder|backbone)\.)*"
    r"(?:layers|blocks|h)\.(\d+)(?:\.(?:hook_)?(in|out|input|output))?"
)
# What a block adds to the residual stream: directions there are directions of the stream.
_ADDED = re.compile(r"blocks\.\d+\.hook_(?:mlp|attn)_out")

# Scalings of activations that differ from token to token, undone after decoding.
_BY_TOKEN = ("constant_norm_rescale", "layer_norm")
# Settings under which the same weights give other activations.
_USE = ("k", "rescale_acts_by_decoder_norm", "apply_b_dec_to_input", "normalize_activations")


@dataclass(frozen=True)
class SAEFacts:
    """What an SAE says of itself.

    Attributes:
        architecture: as sae-lens names it.
        features: how many it has.
        width: of its decoder rows.
        model: name of the model that it was trained on; empty where unknown.
        fingerprint: of that model (`ModelFacts.fingerprint`), which SAEs trained here record; empty elsewhere.
        hook_name: where it reads; empty where unknown.
        writes_to: where its decoder rows live: another place for transcoders only.
        site: ``hook_name`` as a place in the residual stream; None where it is none.
        neuronpedia_id: ``model/source`` on Neuronpedia, or empty.
        block_signs: of that model (`ModelFacts.block_signs`), which SAEs trained here record; empty elsewhere.
    """

    architecture: str
    features: int
    width: int
    model: str
    fingerprint: str
    hook_name: str
    writes_to: str
    site: Site | None
    neuronpedia_id: str
    block_signs: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class SAEVectors:
    """Decoder rows as directions.

    Attributes:
        vectors: rows of length one, float32; zeros for a feature without a direction.
        index: number of each row's feature.
        norms: how far the residual stream moves, along its vector, for a feature's activation of one; NaN for an SAE
            that scales each token's activations by their own length or spread (``constant_norm_rescale``,
            ``layer_norm``), since there it depends on the token.
        dead: features that never fire, as far as is known, or have no direction.
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


def sae_facts(sae: Any) -> SAEFacts:
    """The `SAEFacts` of an SAE object."""
    metadata = sae.cfg.metadata
    # The metadata gives None for whatever it does not hold.
    hook_name = str(metadata.hook_name or "")
    features, width = sae.W_dec.shape
    return SAEFacts(
        architecture=sae.cfg.architecture(),
        features=features,
        width=width,
        model=str(metadata.model_name or ""),
        fingerprint=str(metadata.model_fingerprint or ""),
        hook_name=hook_name,
        writes_to=str(metadata.hook_name_out or hook_name),
        site=_site(hook_name),
        neuronpedia_id=str(metadata.neuronpedia_id or ""),
        block_signs=tuple(metadata.model_block_signs or ()),
    )


def sae_digest(sae: Any) -> str:
    """16 hexadecimal digits that name an SAE, its weights and how they are used, for results files."""
    used = {name: getattr(sae.cfg, name, None) for name in _USE}
    told = hashlib.sha256(f"{sae.cfg.architecture()} {sorted(used.items())}".encode())
    for name, value in sorted(sae.state_dict().items()):
        told.update(f"{name} {tuple(value.shape)}".encode())
        told.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return told.hexdigest()[:16]


def check_sae(
    sae: Any, model: Any = None, adapter: Adapter | None = None, *, any_model: bool = False, any_site: bool = False
) -> SAEFacts:
    """Refuse an SAE that does not belong to a hooked model or an adapter.

    Fingerprints of models and the signs in their blocks decide where both sides have them; else the last parts of their
    names do.

    Args:
        sae: the SAE.
        model: a hooked model of either class, or None.
        adapter: an adapter with its contract, or None.
        any_model: whether another model of the same width will do, as a base model's SAE for its chat model.
        any_site: whether an adapter of another site will do.

    Returns:
        its facts.

    Raises:
        ContractError: another model, width, layer or site; the text says which.
    """
    facts = sae_facts(sae)
    of = f"the SAE ({facts.model or 'of an unnamed model'}, {facts.hook_name or 'no hook point named'})"
    if model is not None:
        own = model_facts(model)
        if facts.width != own.d_model:
            raise ContractError(
                f"{of} has decoder rows of width {facts.width}, the model {own.model_id} has d_model {own.d_model}; "
                f"load the SAE's own model, or an SAE of this one"
            )
        known = facts.fingerprint or facts.model
        same = facts.fingerprint == own.fingerprint if facts.fingerprint else _short(facts.model, own.model_id)
        if known and not (same and own.same_blocks(facts.block_signs)) and not any_model:
            raise ContractError(
                f"{of} was trained on another model than {own.model_id}; load its own, or pass any_model=True "
                f"(--any-model) if this is the same model under another name, or a fine-tune of it"
            )
        if facts.site is not None:
            _check_layer(facts.site, own.n_layers, of)
    if adapter is not None:
        _check_adapter(facts, of, adapter, any_model, any_site)
    return facts


@plain_defaults()
def sae_vectors(
    sae: Any, indices: Sequence[int] | None = None, *, firing: Float[Tensor, " features"] | None = None
) -> SAEVectors:
    """Decoder rows of an SAE, as directions of length one.

    What a feature adds to the residual stream is its activation times its decoder row, whatever its encoder does and
    whatever bias is taken off the input: so the direction is the row alone, and folding or decoder-norm rescaling
    changes its length only. ``norms`` keeps what length means: 1 where activations already count in units of the row
    (``rescale_acts_by_decoder_norm``), the row's length elsewhere.

    Args:
        sae: an SAE, or whatever `load_sae` takes without an id; a folder's ``sparsity.safetensors`` tells which
            features are dead.
        indices: numbers of features; None for all.
        firing: how often each of the SAE's features fires (any unit): 0 marks it as dead.

    Raises:
        InterpToolkitError: a number that the SAE does not have, rows that are no directions of the residual stream.

    Example:
        >>> found = sae_vectors(sae, [7, 11])
        >>> adapter(found.vectors[~found.dead])
    """
    if firing is None and isinstance(sae, (str, Path)) and is_folder(sae):
        firing = read_firing(sae)
    sae = sae if is_inference_sae(sae) else load_sae(sae)
    facts = sae_facts(sae)
    _check_rows(sae, facts)
    index = check_features(range(facts.features) if indices is None else indices, facts.features)
    if firing is not None and firing.shape != (facts.features,):
        raise InterpToolkitError(
            f"expected for firing one number for each of the SAE's {facts.features} features, got shape "
            f"{tuple(firing.shape)}"
        )
    rows = sae.W_dec.detach()[torch.tensor(index, dtype=torch.long, device=sae.W_dec.device)].float().cpu()
    lengths = rows.norm(dim=1)
    empty = ~torch.isfinite(lengths) | (lengths == 0)
    vectors = torch.where(empty[:, None], 0.0, rows / torch.where(empty, 1.0, lengths)[:, None])
    rescaled = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    norms = torch.where(empty, 0.0, torch.ones_like(lengths) if rescaled else lengths)
    if sae.cfg.normalize_activations in _BY_TOKEN:
        norms = torch.full_like(norms, torch.nan)
    silent = torch.zeros(len(index), dtype=torch.bool) if firing is None else firing.cpu()[list(index)] == 0
    return SAEVectors(vectors, index, norms, empty | silent, facts)


def check_features(indices: Sequence[int], count: int) -> tuple[int, ...]:
    """Numbers of features, where an SAE of ``count`` has them.

    Raises:
        InterpToolkitError: it does not.
    """
    for number in indices:
        if not 0 <= number < count:
            raise InterpToolkitError(
                f"feature {number} does not exist: the SAE has {count} features, numbered 0 to {count - 1}"
            )
    return tuple(int(number) for number in indices)


def require_site(sae: Any) -> Site:
    """The place in the residual stream that an SAE reads, of one that can be run on what is read there.

    Raises:
        InterpToolkitError: it reads elsewhere, says not where, or as `check_encoding`.
    """
    facts = sae_facts(sae)
    if facts.site is None:
        raise InterpToolkitError(
            f"expected an SAE that reads the residual stream, got one of {facts.hook_name or 'no named hook point'}; "
            f"only its decoder rows can be used here"
        )
    check_encoding(sae)
    return facts.site


def check_encoding(sae: Any) -> None:
    """Refuse an SAE that cannot encode tokens one by one, as they are.

    Raises:
        InterpToolkitError: it encodes whole sequences, or waits for a scaling that nobody told.
    """
    if sae.cfg.architecture() == "temporal":
        raise InterpToolkitError(
            "a temporal SAE encodes whole sequences at once, and this takes tokens one by one; only its decoder rows "
            "can be used here"
        )
    if sae.cfg.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise InterpToolkitError(
            f"the SAE was trained on activations under {sae.cfg.normalize_activations!r}, and its files do not say "
            f"with what numbers; fold them first, for a mean norm m: "
            f"sae.fold_activation_norm_scaling_factor(sae.cfg.d_in ** 0.5 / m)"
        )


def _site(hook_name: str) -> Site | None:
    try:
        return Site.parse(hook_name)
    except InterpToolkitError:
        pass
    block = _BLOCK.fullmatch(hook_name)
    if block is None:
        return None
    number = int(block[1])
    return Site.parse(f"blocks.{number}.hook_resid_pre") if block[2] in ("in", "input") else Site.after(number)


def _check_rows(sae: Any, facts: SAEFacts) -> None:
    place = facts.writes_to
    if place and _site(place) is None and not _ADDED.fullmatch(place):
        raise InterpToolkitError(
            f"the SAE's decoder rows are directions at {place}, not of the residual stream; take one of a "
            f"hook_resid_pre, hook_resid_mid, hook_resid_post, hook_mlp_out or hook_attn_out"
        )
    if sae.cfg.normalize_activations == "covariance_whitening":
        raise InterpToolkitError(
            "the SAE's decoder rows are in a whitened space, and its files do not say which; fold the whitening first "
            "(sae.fold_activation_whitening)"
        )


def _check_layer(site: Site, n_layers: int, of: str) -> None:
    if site.layer >= n_layers:
        raise ContractError(f"{of} reads {site}, and the model has {n_layers} layers; load the SAE's own model")


def _check_adapter(facts: SAEFacts, of: str, adapter: Adapter, any_model: bool, any_site: bool) -> None:
    if adapter.config.width != facts.width:
        at = f" ({adapter.config.sites} sites side by side)" if adapter.config.sites > 1 else ""
        raise ContractError(
            f"{of} has decoder rows of width {facts.width}, the adapter takes vectors of width "
            f"{adapter.config.width}{at}; use an adapter for single vectors of this model"
        )
    contract = adapter.contract
    if contract is None:
        return
    if facts.fingerprint and contract.fingerprint:
        same = facts.fingerprint == contract.fingerprint
    else:
        same = not facts.model or _short(facts.model, contract.model_id)
    if not (same and same_blocks(facts.block_signs, contract.block_signs)) and not any_model:
        raise ContractError(
            f"{of} was trained on another model than the adapter ({contract.model_id}); use an adapter of the same "
            f"model, or pass any_model=True (--any-model) if it is one under another name, or a fine-tune of it"
        )
    if facts.site is not None and not any_site:
        contract.check_site(facts.site)


def _short(one: str, other: str) -> bool:
    """Whether two names end alike, as a hub id and a folder of the same model do."""
    return one.rstrip("/").rsplit("/", 1)[-1].lower() == other.rstrip("/").rsplit("/", 1)[-1].lower()
