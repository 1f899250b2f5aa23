"""Reading checkpoints of transformers: a model with all of its weights, and its tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import embedded

# Buffers that old checkpoints hold and today's classes compute themselves.
_BUFFERS = re.compile(
    r"(^|\.)(inv_freq|cos_cached|sin_cached|causal_mask|masked_bias|attn\.bias|attention\.bias|position_ids)$"
)


def read_model(source: str, dtype: torch.dtype | str, revision: str | None, **options: Any) -> Any:
    """A causal language model of transformers, with all of its weights from the checkpoint.

    Args:
        source: a hub id or a folder.
        dtype: of the weights, or ``"auto"`` for the checkpoint's.
        revision: branch, tag or commit of a hub id.
        options: further ones of ``from_pretrained``; None leaves one to it.

    Raises:
        InterpToolkitError: it cannot be loaded, or weights are missing or left over.
    """
    from transformers import AutoModelForCausalLM

    local = Path(source).expanduser()
    if source.startswith((".", "/", "~")) and not local.is_dir():
        raise InterpToolkitError(f"expected a folder with a Hugging Face checkpoint, but {source} is no folder")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            local if local.is_dir() else source,
            dtype=dtype,
            revision=revision or "main",
            output_loading_info=True,
            **{name: value for name, value in options.items() if value is not None},
        )
        hf_model, info = loaded
    except Exception as error:  # whatever transformers and what it builds on raise at a damaged or unknown checkpoint
        raise InterpToolkitError(
            f"could not load a causal language model from {source!r}: {short(error)} "
            f"(give {embedded.NAME!r}, a hub id such as 'org/name', or a local checkpoint folder)"
        ) from error
    family = type(hf_model).__name__
    for fault, keys in (
        (f"lacks weights of {family}", info["missing_keys"]),
        (f"has weights that {family} has no place for", info["unexpected_keys"]),
    ):
        keys = sorted(key for key in keys if not _BUFFERS.search(key))
        if keys:
            raise InterpToolkitError(
                f"the checkpoint {source!r} {fault}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''} "
                f"({len(keys)} in all); expected those that its config asks for, so get both anew from one place"
            )
    return hf_model


def read_tokenizer(source: str, revision: str | None, token: str | bool | None = None, **options: Any) -> Any:
    """The tokenizer of a hub id or a folder.

    Args:
        source: a hub id or a folder.
        revision: branch, tag or commit of a hub id.
        token: of the hub, for models that ask for one.
        options: further ones of ``from_pretrained``.

    Raises:
        InterpToolkitError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    local = Path(source).expanduser()
    try:
        place = local if local.is_dir() else source
        return AutoTokenizer.from_pretrained(place, revision=revision or "main", token=token, **options)
    except Exception as error:  # likewise
        raise InterpToolkitError(
            f"could not load the tokenizer of {source!r}: {short(error)} (give one with load_model(..., tokenizer=...))"
        ) from error


def short(error: BaseException) -> str:
    """What another library's error says first, cut where it goes on for long."""
    line = first_line(error)
    return line if len(line) <= 300 else f"{line[:300]}..."
