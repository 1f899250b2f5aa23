"""Loading a hooked model: the embedded one, a hub id, a local folder, a model of transformers in memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import embedded
from interp_toolkit.models.check import PlainPass, find_difference, hooked_pass, hugging_face_pass, refuse
from interp_toolkit.models.checkpoints import read_model, read_tokenizer, short
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.facts import name_model
from interp_toolkit.models.hooked import backend_of, is_bridge, is_hooked_model
from interp_toolkit.models.hooked_transformer import build_hooked_transformer
from interp_toolkit.models.state import frozen, modules_of, refuse_compiled
from interp_toolkit.models.wrapped import (
    attach_bridge,
    attached_bridge,
    has_wrapped_modules,
    unwrapped,
    use_native_modules,
)
from interp_toolkit.torch_defaults import plain_defaults

logger = logging.getLogger(__name__)

BackendName = Literal["bridge", "hooked_transformer"]

_checked: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_wrapping = threading.RLock()


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    # Nearly all that imports and modules make stays, and looking through it again and again takes a tenth of the time.
    was_collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collected:
            gc.enable()


@plain_defaults()
@_garbage_left()
def load_model(
    name: Any = embedded.NAME,
    *,
    backend: BackendName = "bridge",
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    device_map: Any = None,
    quantization_config: Any = None,
    attn_implementation: str | None = None,
    tokenizer: Any = None,
    check: bool = True,
) -> Any:
    """A frozen hooked model, in evaluation mode, with Hugging Face's weights as they are.

    Args:
        name: ``"smollm2-135m"`` (no network needed), a hub id, a local folder, a model of transformers
            (`PreTrainedModel`), or a hooked model, given back frozen. A model of transformers is wrapped where it is,
            without a copy: from then on its modules lie inside TransformerLens's, its attention is eager, an
            unembedding without a bias has one of zeros, and it is frozen and in evaluation mode. It goes on to compute
            the same, and is wrapped once, however often it is given.
        backend: ``"bridge"`` for a `TransformerBridge`, ``"hooked_transformer"`` for a `HookedTransformer`.
        dtype: of the weights: float32, bfloat16, float16, or ``"own"`` for the checkpoint's; by default bfloat16 where
            the hardware is fast at it and float32 elsewhere.
        device: by default a GPU where there is one.
        revision: branch, tag or commit of a hub id.
        token: of the hub, for models that ask for one; by default that of ``hf auth login``.
        device_map: where each part goes, as Hugging Face's ``from_pretrained`` takes it, such as ``"auto"``; instead of
            ``device``. Layers on several devices were tried without numbers only, see docs/how-to/one-node.md.
        quantization_config: as ``from_pretrained`` takes it. Adapters are for the model in the dtype that they were
            trained in: a contract refuses other weights.
        attn_implementation: of Hugging Face's modules, as ``from_pretrained`` takes it; by default ``"eager"``, in
            which alone the hook points of scores and patterns fire. Passes of this library that nobody listens inside
            have an attention of their own, whatever this says.
        tokenizer: in place of the one that lies with the model, which a model in memory may not have.
        check: whether a few tokens are run, once, to see that the hooked model computes what the model itself does.

    Returns:
        a TransformerLens model: hook points, ``cfg``, ``tokenizer``, ``run_with_cache`` and the rest are the user's.

    Raises:
        InterpToolkitError: nothing loadable has that name, weights are missing or left over, an option is unknown or
            does not go with a model in memory, or the hooked model computes something else.

    Example:
        >>> model = load_model("smollm2-135m")
        >>> model.cfg.n_layers, model.cfg.d_model
        (30, 576)
    """
    if not isinstance(name, (str, Path)):
        by_name = (device, revision, token, device_map, quantization_config, attn_implementation)
        if any(value is not None for value in by_name) or backend != "bridge":
            raise InterpToolkitError(
                f"device, revision, token, device_map, quantization_config, attn_implementation and backend are for "
                f"models that are loaded by name, got {type(name).__name__}; move a model in memory with its own "
                f".to(...)"
            )
        return _frozen(_in_memory(name, dtype, tokenizer, check))
    if backend not in ("bridge", "hooked_transformer"):
        raise InterpToolkitError(f"expected backend 'bridge' or 'hooked_transformer', got {backend!r}")
    if device is not None and device_map is not None:
        raise InterpToolkitError("expected a device or a device_map, got both; leave one out")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = "auto" if dtype == "own" else choose_dtype(dtype, place)
    logger.info("loading the model %s", name)
    source, model_id, commit = checkpoint_of(name, revision)
    revision = None if source != name else revision
    # Eager attention is what the bridge's hook points stand in, and what its parity is stated against.
    attention = attn_implementation or "eager"
    options: dict[str, Any] = dict(attn_implementation=attention, token=token)
    options |= dict(device_map=device_map, quantization_config=quantization_config)
    if quantization_config is not None and device_map is None:
        options["device_map"] = {"": place}  # quantized weights cannot be moved afterwards
    hf_model = read_model(source, number, revision, **options)
    tokenizer = _as_given(tokenizer) if tokenizer is not None else _with_bos(source, revision, token)
    if options["device_map"] is None:
        hf_model.to(place)
    commit = commit or str(getattr(hf_model.config, "_commit_hash", None) or "")
    return _frozen(_hooked(hf_model, tokenizer, backend, model_id, commit, check, attention))


def checkpoint_of(name: str | Path, revision: str | None = None) -> tuple[str, str, str]:
    """Where a model's checkpoint is (a folder or a hub id), by which id it goes, and its commit, empty if not known.

    Args:
        name: ``"smollm2-135m"``, a hub id or a folder.
        revision: branch, tag or commit of a hub id.
    """
    if name == embedded.NAME:
        return str(embedded.embedded_checkpoint()), embedded.MODEL_ID, embedded.REVISION
    return str(name), str(name), revision or ""


def as_hooked_model(model: Any, **settings: Any) -> Any:
    """A model in memory with hook points, its modes and gradients untouched; anything else through `load_model`."""
    if isinstance(model, (str, Path)):
        return load_model(model, **settings)
    return _in_memory(model, settings.get("dtype"), None, True)


def _in_memory(model: Any, dtype: Any, tokenizer: Any, check: bool) -> Any:
    """A model that is there already, hooked or to be wrapped; of several threads the first wraps and checks it."""
    with _wrapping:
        return _wrapped_and_checked(model, dtype, tokenizer, check)


def _wrapped_and_checked(model: Any, dtype: Any, tokenizer: Any, check: bool) -> Any:
    from transformers import PreTrainedModel

    refuse_compiled(model)
    if isinstance(model, PreTrainedModel) and (bridge := attached_bridge(model)) is not None:
        model = bridge
    if is_hooked_model(model):
        if tokenizer is not None and tokenizer is not model.tokenizer:
            raise InterpToolkitError("this model is hooked and has its tokenizer; set model.tokenizer for another")
        if dtype not in (None, "own") and choose_dtype(dtype, torch.device("cpu")) != backend_of(model).dtype:
            raise InterpToolkitError(
                f"expected a model in {dtype}, this one is in {backend_of(model).dtype}; convert it"
            )
        if check and model not in _checked:
            _check_given(model)
        elif not check:
            _checked.add(model)
        return model
    if not isinstance(model, PreTrainedModel):
        raise InterpToolkitError(
            f"expected {embedded.NAME!r}, a hub id, a PreTrainedModel, a folder or a hooked model (TransformerBridge "
            f"or HookedTransformer), got {type(model).__name__}"
        )
    source = str(getattr(model, "name_or_path", "") or "")
    if dtype not in (None, "own") and choose_dtype(dtype, torch.device("cpu")) != model.dtype:
        raise InterpToolkitError(f"expected a model in {dtype}, this one is in {model.dtype}; convert it with .to(...)")
    if has_wrapped_modules(model):
        raise InterpToolkitError(
            f"this {type(model).__name__} lies inside a TransformerBridge already; give that bridge instead"
        )
    if tokenizer is None and not source:
        raise InterpToolkitError(
            f"this {type(model).__name__} does not say where it comes from, so its tokenizer cannot be found; give "
            f"load_model(model, tokenizer=...), and its answer to whatever asked for a model"
        )
    tokenizer = _as_given(tokenizer) if tokenizer is not None else _with_bos(source)
    commit = str(getattr(model.config, "_commit_hash", None) or "")
    hf_model: Any = model
    attention, bias = model.config._attn_implementation, getattr(model.get_output_embeddings(), "bias", None)
    try:
        bridge = _hooked(model, tokenizer, "bridge", source or type(model).__name__, commit, check)
    except InterpToolkitError:
        with unwrapped(model, for_good=True):  # as it was
            hf_model.set_attn_implementation(attention)
            if bias is None and getattr(model.get_output_embeddings(), "bias", None) is not None:
                hf_model.get_output_embeddings().bias = None
        raise
    attach_bridge(model, bridge)
    return bridge


def _hooked(
    hf_model: Any,
    tokenizer: Any,
    backend: BackendName,
    model_id: str,
    commit: str,
    check: bool,
    attention: str = "eager",
) -> Any:
    """A model of transformers with hook points, seen to compute what it did."""
    family = type(hf_model).__name__
    if hf_model.get_output_embeddings() is None:
        raise InterpToolkitError(f"expected a causal language model, which gives logits, got {family}")
    # TransformerLens looks the family up under the name that a saved checkpoint has.
    hf_model.config.architectures = hf_model.config.architectures or [family]
    try:
        with frozen(list(hf_model.modules()), list(hf_model.parameters())):
            truth = hugging_face_pass(hf_model) if check else None
        with _library_chatter_off():
            if backend == "bridge":
                from transformer_lens.model_bridge import TransformerBridge

                hf_model.set_attn_implementation(attention)
                model = TransformerBridge.boot_transformers(
                    model_id, hf_model=hf_model, tokenizer=tokenizer, device=str(hf_model.device), dtype=hf_model.dtype
                )
                # TransformerLens 4 sets eager attention itself.
                hf_model.set_attn_implementation(attention)
            else:
                model = build_hooked_transformer(hf_model, tokenizer, model_id)
        name_model(model, model_id, commit)
        if truth:
            _settle(model, truth, family)
    except InterpToolkitError:
        raise
    except Exception as error:  # whatever other libraries raise at a family that they do not know
        raise InterpToolkitError(f"{family} cannot be used with backend={backend!r}: {short(error)}") from error
    _checked.add(model)
    return model


def _settle(model: Any, truth: PlainPass, family: str) -> None:
    """Make a hooked model compute what it should, by Hugging Face's modules where TransformerLens's do not.

    Raises:
        InterpToolkitError: it computes something else all the same.
    """
    first = difference = find_difference(model, truth)
    if not is_bridge(model):
        if difference:
            raise refuse(family, f"as HookedTransformer {difference}", "use backend='bridge'")
        return
    for all_inside in (False, True):
        names = use_native_modules(model, all_inside) if difference else []
        if names and not (difference := find_difference(model, truth)):
            logger.warning(
                "%s runs Hugging Face's own %s, where no hook points fire, since with TransformerLens's %s",
                family,
                " and ".join(names),
                first,
            )
    if difference:
        raise refuse(family, str(first), "try another version of TransformerLens")


def _with_bos(source: str, revision: str | None = None, token: str | bool | None = None) -> Any:
    """A tokenizer as TransformerLens reads it anew otherwise, and then without its revision and token."""
    with contextlib.suppress(InterpToolkitError):  # some tokens cannot be put in front
        tokenizer = read_tokenizer(source, revision, token, add_bos_token=True)
        if tokenizer.bos_token is not None:
            return tokenizer
    return read_tokenizer(source, revision, token)


def _as_given(tokenizer: Any) -> Any:
    """A copy of a user's tokenizer that TransformerLens takes as it is, instead of reading it anew from its folder."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.init_kwargs = tokenizer.init_kwargs | {"name_or_path": tokenizer.name_or_path, "add_bos_token": True}
    return tokenizer


def _check_given(model: Any) -> None:
    """Check a hooked model of the user's, unless its weights were processed or something is laid over it."""
    if not backend_of(model).plain() or getattr(model, "compatibility_mode", False):
        return
    with frozen(modules_of(model), list(model.parameters())):
        truth = hooked_pass(model)
    if difference := find_difference(model, truth):
        raise refuse(f"this {type(model).__name__}", difference, "load it by its name with load_model")
    _checked.add(model)


def _frozen(model: Any) -> Any:
    model.requires_grad_(False)
    model.eval()
    return model


@contextlib.contextmanager
def _library_chatter_off() -> Iterator[None]:
    # HookedTransformer announces its removal in TransformerLens 4 at each construction.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
