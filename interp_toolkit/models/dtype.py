"""The number format of a frozen model where the user chooses none."""

from __future__ import annotations

import os

import torch

from interp_toolkit.errors import InterpToolkitError

_NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones: on a GPU, or a CPU with AMX or AVX512-BF16."""
    if device.type == "cpu":
        checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        return any(supported() for supported in checks if supported)
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return ``dtype``, or ``$INTERP_TOOLKIT_DTYPE``, or bfloat16 where `fast_bfloat16` holds, else float32.

    Raises:
        InterpToolkitError: the name is not float32, bfloat16 or float16.
    """
    dtype = dtype or os.environ.get("INTERP_TOOLKIT_DTYPE") or None
    if dtype is None:
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if isinstance(dtype, str) and dtype in _NAMES:
        return _NAMES[dtype]
    if dtype in _NAMES.values():
        assert isinstance(dtype, torch.dtype)
        return dtype
    raise InterpToolkitError(f"expected dtype float32, bfloat16, float16 or own, got {dtype!r}")
