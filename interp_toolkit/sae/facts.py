"""What an SAE says of itself, and the checks that it belongs to a model or an adapter."""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import same_blocks
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sites import Site

F = TypeVar("F", bound=Callable[..., Any])
OnMismatch = Literal["error", "warn"]

# How Hugging Face's classes name a block, whose output is meant unless the name says otherwise. Only parts of language
# models are listed: the blocks of a vision tower have the same names behind another beginning.
_BLOCK = re.compile(
    r"(?:(?:base_model|model|language_model|text_model|transformer|gpt_neox|decoder|backbone)\.)*"
    r"(?:layers|blocks|h)\.(\d+)(?:\.(?:hook_)?(in|out|input|output))?"
)
# Settings under which the same weights give other activations.
_SETTINGS = ("k", "rescale_acts_by_decoder_norm", "apply_b_dec_to_input", "normalize_activations")


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
        site=parse_site(hook_name),
        neuronpedia_id=str(metadata.neuronpedia_id or ""),
        block_signs=tuple(metadata.model_block_signs or ()),
    )


def sae_digest(sae: Any) -> str:
    """16 hexadecimal digits that name an SAE, its weights and how they are used, for results files."""
    settings = {name: getattr(sae.cfg, name, None) for name in _SETTINGS}
    digest = hashlib.sha256(f"{sae.cfg.architecture()} {sorted(settings.items())}".encode())
    for name, value in sorted(sae.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def flags_renamed(function: F) -> F:
    """Let a function take ``any_model`` and ``any_site`` of version 0.1 for ``on_mismatch``."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in ("any_model", "any_site") if name in kwargs}
        for name in flags:
            warn_renamed(f"{function.__name__}({name}=...)", 'on_mismatch="warn"')
        if any(flags.values()):
            kwargs.setdefault("on_mismatch", "warn")
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


@flags_renamed
def check_sae(
    sae: Any, model: Any = None, adapter: Adapter | None = None, *, on_mismatch: OnMismatch = "error"
) -> SAEFacts:
    """Refuse an SAE that does not belong to a hooked model or an adapter.

    Fingerprints of models and the signs in their blocks decide where both sides have them; else the last parts of their
    names do.

    Args:
        sae: the SAE.
        model: a hooked model of either class, or None.
        adapter: an adapter with its contract, or None.
        on_mismatch: ``"warn"`` lets an SAE of another model or site pass with a warning, as a base model's SAE for its
            chat model. Another width, or a layer that the model does not have, is refused all the same.

    Returns:
        the SAE's facts.

    Raises:
        ContractError: another model, width, layer or site; the text says which.
        InterpToolkitError: an ``on_mismatch`` that is neither ``"error"`` nor ``"warn"``.
    """
    if on_mismatch not in ("error", "warn"):
        raise InterpToolkitError(f"expected 'error' or 'warn' for on_mismatch, got {on_mismatch!r}")
    facts = sae_facts(sae)
    name = f"the SAE ({facts.model or 'of an unnamed model'}, {facts.hook_name or 'no hook point named'})"
    mismatches = [] if model is None else list(_model_mismatches(facts, name, model))
    mismatches += [] if adapter is None else list(_adapter_mismatches(facts, name, adapter))
    for mismatch in mismatches:
        if on_mismatch == "error":
            raise ContractError(mismatch)
        warnings.warn(mismatch, stacklevel=3)
    return facts


def check_features(indices: Sequence[int], count: int) -> tuple[int, ...]:
    """Numbers of features, where an SAE of ``count`` features has them.

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
    """The place in the residual stream that an SAE reads.

    Raises:
        InterpToolkitError: it reads elsewhere, does not say where, or `check_encoding` refuses it.
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
        InterpToolkitError: it encodes whole sequences, or its files lack the scaling of its activations.
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


def parse_site(hook_name: str) -> Site | None:
    """A hook point, by the name of any library, as a place in the residual stream; None where it is none."""
    try:
        return Site.parse(hook_name)
    except InterpToolkitError:
        pass
    block = _BLOCK.fullmatch(hook_name)
    if block is None:
        return None
    number = int(block[1])
    return Site.parse(f"blocks.{number}.hook_resid_pre") if block[2] in ("in", "input") else Site.after(number)


def _model_mismatches(facts: SAEFacts, name: str, model: Any) -> Iterator[str]:
    """In what an SAE differs from a model, where it could be run on it all the same.

    Raises:
        ContractError: it cannot be run on the model.
    """
    known = model_facts(model)
    if facts.width != known.d_model:
        raise ContractError(
            f"{name} has decoder rows of width {facts.width}, the model {known.model_id} has d_model {known.d_model}; "
            f"load the SAE's own model, or an SAE of this one"
        )
    if facts.site is not None and facts.site.layer >= known.n_layers:
        raise ContractError(
            f"{name} reads {facts.site}, and the model has {known.n_layers} layers; load the SAE's own model"
        )
    if facts.fingerprint:
        same = facts.fingerprint == known.fingerprint
    else:
        same = not facts.model or _same_name(facts.model, known.model_id)
    named = facts.fingerprint or facts.model
    if named and not (same and same_blocks(known.block_signs, facts.block_signs)):
        yield (
            f'{name} was trained on another model than {known.model_id}; load its own, or pass on_mismatch="warn" '
            f"(--on-mismatch warn) if this is the same model under another name, or a fine-tune of it"
        )


def _adapter_mismatches(facts: SAEFacts, name: str, adapter: Adapter) -> Iterator[str]:
    """In what an SAE differs from an adapter, where the adapter takes its vectors all the same.

    Raises:
        ContractError: the adapter does not take vectors of this width.
    """
    contract = adapter.contract
    # An adapter of a stack may take the vectors of each site alone, see `Contract.filled`.
    alone = contract is not None and any(len(place.site.sites) == 1 for place in contract.more)
    if facts.width not in (adapter.config.width, *([adapter.config.d_model] if alone else [])):
        sites = f" ({adapter.config.sites} sites side by side)" if adapter.config.sites > 1 else ""
        raise ContractError(
            f"{name} has decoder rows of width {facts.width}, the adapter takes vectors of width "
            f"{adapter.config.width}{sites}; use an adapter for single vectors of this model"
        )
    if contract is None:
        return
    if facts.fingerprint and contract.fingerprint:
        same = facts.fingerprint == contract.fingerprint
    else:
        same = not facts.model or _same_name(facts.model, contract.model_id)
    if not (same and same_blocks(facts.block_signs, contract.block_signs)):
        yield (
            f"{name} was trained on another model than the adapter ({contract.model_id}); use an adapter of the same "
            f'model, or pass on_mismatch="warn" (--on-mismatch warn) if it is one under another name, or a fine-tune '
            f"of it"
        )
    if facts.site is not None:
        try:
            contract.check_site(facts.site)
        except ContractError as error:
            yield str(error)


def _same_name(one: str, other: str) -> bool:
    """Whether two names end alike, as a hub id and a folder of the same model do."""
    return one.rstrip("/").rsplit("/", 1)[-1].lower() == other.rstrip("/").rsplit("/", 1)[-1].lower()
