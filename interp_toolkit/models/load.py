"""Loading a hooked model: the embedded one, a hub id, a local folder, a model of transformers in memory."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import embedded
from interp_toolkit.models.backend import backend_of, is_hooked_model
from interp_toolkit.models.check import find_difference, hooked_pass, hugging_face_pass, refuse
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.facts import name_model
from interp_toolkit.models.hooked_transformer import build_hooked_transformer
from interp_toolkit.models.wrapped import has_wrapped_modules, kept_bridge, keep_bridge, use_native_attention

logger = logging.getLogger(__name__)

BackendName = Literal["bridge", "hooked_transformer"]

_checked: weakref.WeakSet[nn.Module] = weakref.WeakSet()
# Buffers that old checkpoints hold and today's classes compute themselves.
_BUFFERS = re.compile(r"(^|\.)(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids)$")


def load_model(
    name: Any = embedded.NAME,
    *,
    backend: BackendName = "bridge",
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
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
        if device is not None or revision is not None or backend != "bridge":
            raise InterpToolkitError(
                f"device, revision and backend are for models that are loaded by name, got {type(name).__name__}; move "
                f"a model in memory with its own .to(...)"
            )
        return _in_memory(name, dtype, tokenizer, check)
    if backend not in ("bridge", "hooked_transformer"):
        raise InterpToolkitError(f"expected backend 'bridge' or 'hooked_transformer', got {backend!r}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = "auto" if dtype == "own" else choose_dtype(dtype, place)
    if name == embedded.NAME:
        source, model_id, commit = str(embedded.embedded_checkpoint()), embedded.MODEL_ID, embedded.REVISION
    else:
        source, model_id, commit = str(name), str(name), revision or ""
    revision = None if source != name else revision
    hf_model = _read_model(source, number, revision)
    tokenizer = tokenizer or _read_tokenizer(source, revision)
    hf_model.to(place)
    commit = commit or str(getattr(hf_model.config, "_commit_hash", None) or "")
    return _hooked(hf_model, tokenizer, backend, model_id, commit, check)


def _in_memory(model: Any, dtype: Any, tokenizer: Any, check: bool) -> Any:
    """A model that is there already: hooked, or to be wrapped."""
    if isinstance(model, PreTrainedModel) and (bridge := kept_bridge(model)) is not None:
        model = bridge
    if is_hooked_model(model):
        if tokenizer is not None and tokenizer is not model.tokenizer:
            raise InterpToolkitError("this model is hooked and has its tokenizer; set model.tokenizer for another")
        if dtype not in (None, "own") and choose_dtype(dtype, torch.device("cpu")) != backend_of(model).dtype:
            raise InterpToolkitError(f"expected a model in {dtype}, this one is in {backend_of(model).dtype}; convert it")
        if check and model not in _checked:
            _check_given(model)
        elif not check:
            _checked.add(model)
        return _frozen(model)
    if not isinstance(model, PreTrainedModel):
        raise InterpToolkitError(
            f"expected {embedded.NAME!r}, a hub id, a folder, a PreTrainedModel or a hooked model (TransformerBridge "
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
    tokenizer = tokenizer or _read_tokenizer(source, None)
    commit = str(getattr(model.config, "_commit_hash", None) or "")
    bridge = _hooked(model, tokenizer, "bridge", source or type(model).__name__, commit, check)
    keep_bridge(model, bridge)
    return bridge


def _hooked(hf_model: Any, tokenizer: Any, backend: BackendName, model_id: str, commit: str, check: bool) -> Any:
    """A model of transformers with hook points, seen to compute what it did."""
    family = type(hf_model).__name__
    hf_model.eval()
    if hf_model.get_output_embeddings() is None:
        raise InterpToolkitError(f"expected a causal language model, which gives logits, got {family}")
    # TransformerLens looks the family up under the name that a saved checkpoint has.
    hf_model.config.architectures = hf_model.config.architectures or [family]
    try:
        truth = hugging_face_pass(hf_model) if check else None
        with _library_chatter_off():
            if backend == "bridge":
                hf_model.set_attn_implementation("eager")
                model = TransformerBridge.boot_transformers(
                    model_id, hf_model=hf_model, tokenizer=tokenizer, device=str(hf_model.device), dtype=hf_model.dtype
                )
            else:
                model = build_hooked_transformer(hf_model, tokenizer, model_id)
        name_model(model, model_id, commit)
        difference = find_difference(model, truth) if truth else None
        if truth and difference and backend == "bridge" and use_native_attention(model):
            before, difference = difference, find_difference(model, truth)
            if not difference:
                logger.warning(
                    "%s runs Hugging Face's own attention, in which no hook points fire: with TransformerLens's, %s",
                    family,
                    before,
                )
    except InterpToolkitError:
        raise
    except Exception as error:  # whatever other libraries raise at a family that they do not know
        raise InterpToolkitError(f"{family} cannot be used with backend={backend!r}: {_short(error)}") from error
    if difference:
        other = "use backend='bridge'" if backend == "hooked_transformer" else "try another version of TransformerLens"
        raise refuse(family, difference, other)
    _checked.add(model)
    return _frozen(model)


def _check_given(model: Any) -> None:
    """Check a hooked model of the user's, unless something is laid over it, which a later call may find gone."""
    if any(point.has_hooks() for point in model.hook_dict.values()):
        return
    _frozen(model)
    if not getattr(model, "compatibility_mode", False) and (difference := find_difference(model, hooked_pass(model))):
        raise refuse(f"this {type(model).__name__}", difference, "load it by its name with load_model")
    _checked.add(model)


def _read_model(source: str, dtype: torch.dtype | str, revision: str | None) -> Any:
    from transformers import AutoModelForCausalLM

    local = Path(source).expanduser()
    if source.startswith((".", "/", "~")) and not local.is_dir():
        raise InterpToolkitError(f"expected a folder with a Hugging Face checkpoint, but {source} is no folder")
    try:
        # Eager attention is what the bridge's hook points stand in, and what its parity is stated against.
        hf_model, info = AutoModelForCausalLM.from_pretrained(
            local if local.is_dir() else source,
            dtype=dtype,
            revision=revision or "main",
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers and what it builds on raise at a damaged or unknown checkpoint
        raise InterpToolkitError(
            f"could not load a causal language model from {source!r}: {_short(error)} "
            f"(give {embedded.NAME!r}, a hub id such as 'org/name', or a local checkpoint folder)"
        ) from error
    for kind, keys in (("lacks", info["missing_keys"]), ("has no place for", info["unexpected_keys"])):
        keys = sorted(key for key in keys if not _BUFFERS.search(key))
        if keys:
            raise InterpToolkitError(
                f"the checkpoint {source!r} and its config do not belong together: {type(hf_model).__name__} "
                + (f"lacks {len(keys)} weights there" if kind == "lacks" else f"has no place for {len(keys)} weights")
                + f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}); get the whole checkpoint anew"
            )
    return hf_model


def _read_tokenizer(source: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    local = Path(source).expanduser()
    try:
        return AutoTokenizer.from_pretrained(local if local.is_dir() else source, revision=revision or "main")
    except Exception as error:  # likewise
        raise InterpToolkitError(
            f"could not load the tokenizer of {source!r}: {_short(error)} (give one with load_model(..., tokenizer=...))"
        ) from error


def _short(error: BaseException) -> str:
    line = first_line(error)
    return line if len(line) <= 300 else f"{line[:300]}..."


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
