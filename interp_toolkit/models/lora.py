"""Fine-tunes that are saved as a LoRA adapter of peft: a copy of their base, with the adapter merged into it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.json_lines import read_json
from interp_toolkit.models.checkpoints import read_model, read_tokenizer, short
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.load import checkpoint_of, load_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_lora(path: str | Path) -> bool:
    """Whether a folder holds an adapter of peft.

    Args:
        path: of the folder; what is no folder holds none.
    """
    config = Path(path).expanduser() / CONFIG
    return config.is_file() and "peft_type" in read_json(config, "the configuration of a peft adapter")


def load_lora(path: str | Path, base: str | Path | None = None, dtype: str | torch.dtype | None = None) -> Any:
    """A hooked model with an adapter of peft merged into its weights, which are read anew and shared with no other.

    Args:
        path: folder of the adapter, with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the model that it was trained on, by name; by default the one that the adapter names.
        dtype: of the weights once merged, as of `load_model`.

    Raises:
        FileFormatError: the folder lacks weights in safetensors, which alone are read.
        InterpToolkitError: peft is not installed, or the adapter does not fit the base.

    Example:
        >>> tuned = load_lora("organisms/albania", "smollm2-135m")
    """
    folder = Path(path).expanduser()
    config = read_json(folder / CONFIG, "the configuration of a peft adapter")
    if not (folder / WEIGHTS).is_file():
        raise FileFormatError(
            f"expected {WEIGHTS} in {folder}, and there is none; save the adapter with safe_serialization=True, since "
            f"pickled weights are not read"
        )
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise InterpToolkitError(
            "a LoRA adapter needs peft: pip install 'interp-toolkit[diff]', or give a merged checkpoint"
        ) from error
    source = checkpoint_of(base or config.get("base_model_name_or_path") or "")[0]
    # Merged in float32: a small change would be lost in the rounding of bfloat16.
    hf_model = read_model(source, torch.float32, None)
    try:
        with warnings.catch_warnings():
            # peft asks transformers 5 by a name of transformers 4.
            warnings.simplefilter("ignore", FutureWarning)
            merged: Any = PeftModel.from_pretrained(hf_model, str(folder)).merge_and_unload()
    except Exception as error:  # whatever peft raises at an adapter of another model
        raise InterpToolkitError(
            f"the adapter in {folder} does not fit {source!r}: {short(error)}; name the model that it was trained on"
        ) from error
    merged.to(choose_dtype(dtype, merged.device))
    return load_model(merged, tokenizer=read_tokenizer(source, None))
