"""Whether a folder can hold an SAE: checked before and after sae-lens reads it, which trusts what it finds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from interp_toolkit.errors import FileFormatError
from interp_toolkit.files import check_digest
from interp_toolkit.json_lines import parse_json, read_json

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def check_folder(folder: Path) -> None:
    """Refuse a folder whose config is none, or has other sizes than the weights: sae-lens takes memory by the config.

    Raises:
        FileFormatError: the text names the file. What is missing is left to sae-lens, which knows other names too.
    """
    config = folder / CONFIG
    if not config.exists():
        return
    described = read_json(config, "the config of an SAE")
    if not isinstance(described, dict) or not isinstance(described.get("metadata", {}), (dict, type(None))):
        raise FileFormatError(f"expected an object with the settings of an SAE in {config}, got {described!r:.80}")
    sizes = {name: described[name] for name in ("d_sae", "d_in") if name in described}
    if wrong := [name for name, size in sizes.items() if type(size) is not int or size < 1]:
        raise FileFormatError(f"{config}: expected a whole number above 0 for {wrong[0]}, got {sizes[wrong[0]]!r:.60}")
    if (folder / WEIGHTS).exists():
        _check_digest(folder / WEIGHTS)
    shape = _shape(folder / WEIGHTS, "W_dec")
    if shape is not None and len(sizes) == len(shape) and list(sizes.values()) != shape:
        raise FileFormatError(f"{config} is damaged: it says {sizes}, and W_dec in {WEIGHTS} has the shape {shape}")


def check_weights(sae: Any, folder: Path) -> None:
    """Refuse weights that are not finite, but for decoder rows, whose features are dead, and infinite thresholds.

    Raises:
        FileFormatError: the text names them.
    """
    for name, value in sae.state_dict().items():
        bad = value.isnan() if name == "threshold" else ~value.isfinite()
        if name != "W_dec" and bad.any():
            raise FileFormatError(f"the SAE at {folder} is damaged: {name} holds NaN or infinity")


def _check_digest(path: Path) -> None:
    """Hold weights against the digest in their header, which those that this library trained have."""
    try:
        with safe_open(path, framework="np") as stream:
            header = dict(stream.metadata() or {})
            check_digest(header, ((name, stream.get_tensor(name)) for name in sorted(stream.keys())))
    except (OSError, SafetensorError):
        return  # sae-lens will say what is wrong
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error


def _shape(path: Path, name: str) -> list[int] | None:
    """The shape of a tensor as the header of a safetensors file has it; None where it does not say."""
    try:
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return parse_json(stream.read(min(length, path.stat().st_size)).decode())[name]["shape"]
    except (OSError, struct.error, ValueError, KeyError, TypeError):
        return None  # sae-lens will say what is wrong
