"""Loading a hooked model: the embedded one, a hub id, a local folder."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import embedded
from interp_toolkit.models.backend import is_hooked_model, refuse_compiled
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.facts import name_model
from interp_toolkit.models.hooked_transformer import build_hooked_transformer
from interp_toolkit.torch_defaults import plain_defaults

BackendName = Literal["bridge", "hooked_transformer"]


@plain_defaults()
def load_model(
    name: Any = embedded.NAME,
    *,
    backend: BackendName = "bridge",
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> Any:
    """A frozen hooked model, in evaluation mode, with Hugging Face's weights as they are.

    Args:
        name: ``"smollm2-135m"`` (no network needed), a hub id, a local folder, or a hooked model, given back frozen.
        backend: ``"bridge"`` for a `TransformerBridge`, ``"hooked_transformer"`` for a `HookedTransformer`.
        dtype: of the weights: float32, bfloat16, float16, or ``"own"`` for the checkpoint's; by default bfloat16 where
            the hardware is fast at it and float32 elsewhere.
        device: by default a GPU where there is one.
        revision: branch, tag or commit of a hub id.

    Returns:
        a TransformerLens model: hook points, ``cfg``, ``tokenizer``, ``run_with_cache`` and the rest are the user's.

    Raises:
        InterpToolkitError: nothing loadable has that name, or an option is unknown.

    Example:
        >>> model = load_model("smollm2-135m")
        >>> model.cfg.n_layers, model.cfg.d_model
        (30, 576)
    """
    if is_hooked_model(name):
        return _frozen(name)
    refuse_compiled(name)
    if not isinstance(name, (str, Path)):
        raise InterpToolkitError(
            f"expected {embedded.NAME!r}, a hub id, a folder or a hooked model (TransformerBridge or "
            f"HookedTransformer), got {type(name).__name__}"
        )
    if backend not in ("bridge", "hooked_transformer"):
        raise InterpToolkitError(f"expected backend 'bridge' or 'hooked_transformer', got {backend!r}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = "auto" if dtype == "own" else choose_dtype(dtype, place)
    if name == embedded.NAME:
        source, model_id, commit = str(embedded.embedded_checkpoint()), embedded.MODEL_ID, embedded.REVISION
    else:
        source, model_id, commit = str(name), str(name), revision or ""
    hf_model, tokenizer = _read(source, number, None if source != name else revision)
    hf_model.to(place).eval()
    commit = commit or str(getattr(hf_model.config, "_commit_hash", None) or "")
    with _library_chatter_off():
        if backend == "bridge":
            model = TransformerBridge.boot_transformers(
                source, hf_model=hf_model, tokenizer=tokenizer, device=str(place), dtype=hf_model.dtype
            )
        else:
            model = build_hooked_transformer(hf_model, tokenizer, model_id)
    name_model(model, model_id, commit)
    return _frozen(model)


def as_hooked_model(model: Any, **settings: Any) -> Any:
    """A hooked model as it is, with its modes and gradients untouched; anything else through `load_model`."""
    return model if is_hooked_model(model) else load_model(model, **settings)


def _read(source: str, dtype: torch.dtype | str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        raise InterpToolkitError(f"expected a folder with a Hugging Face checkpoint, but {source} is no folder")
    local = Path(source).expanduser()
    try:
        # Eager attention is what the bridge's hook points stand in, and what its parity is stated against.
        hf_model = AutoModelForCausalLM.from_pretrained(
            local if local.is_dir() else source, dtype=dtype, revision=revision or "main", attn_implementation="eager"
        )
        tokenizer = AutoTokenizer.from_pretrained(local if local.is_dir() else source, revision=revision or "main")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InterpToolkitError(
            f"could not load a causal language model from {source!r}: {first_line(error)} "
            f"(give {embedded.NAME!r}, a hub id such as 'org/name', or a local checkpoint folder)"
        ) from error
    return hf_model, tokenizer


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
