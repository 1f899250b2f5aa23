"""Safetensors files, read as arrays of numpy or as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import deserialize, safe_open

from interp_toolkit.errors import FileFormatError, first_line
from interp_toolkit.tensor_type import Tensor

# The format's names for types of numbers, and those of torch and numpy.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A tensor of a file.

    Attributes:
        dtype: of the numbers in the file, such as ``"bfloat16"``.
        values: the numbers, those of bfloat16 as float32, since numpy has no bfloat16.
    """

    dtype: str
    values: np.ndarray

    @property
    def is_floating_point(self) -> bool:
        """Whether the file holds floating-point numbers."""
        return self.dtype.removeprefix("b").startswith("float")

    def as_float32(self) -> np.ndarray:
        """A copy in float32: infinite where a number is too large, and the real part where it is complex."""
        with np.errstate(over="ignore"):
            return np.real(self.values).astype(np.float32)


def read_arrays(path: Path) -> dict[str, StoredArray]:
    """All tensors of a safetensors file, in the file's order, without torch.

    Raises:
        FileFormatError: missing or damaged, or with numbers of a type that numpy does not know.
    """
    with _naming_damage(path):
        with safe_open(path, framework="np") as stream:
            # The order of `safetensors.torch.load_file`; older versions have that of the keys alone.
            names = getattr(stream, "offset_keys", stream.keys)()
        stored = dict(deserialize(path.read_bytes()))
    for name in names:
        if stored[name]["dtype"] not in _DTYPES:
            raise FileFormatError(f"{path} is damaged: {name} holds {stored[name]['dtype']}")
    return {name: _array(**stored[name]) for name in names}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        FileFormatError: missing or damaged.
    """
    from safetensors.torch import load_file  # only here: the other functions need no torch

    with _naming_damage(path):
        return load_file(path)


def read_names(path: Path) -> list[str]:
    """The names of the tensors of a safetensors file.

    Raises:
        FileFormatError: missing or damaged.
    """
    with _naming_damage(path), safe_open(path, framework="np") as stream:
        return list(stream.keys())


def read_header(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file.

    Raises:
        FileFormatError: missing or damaged.
    """
    with _naming_damage(path), safe_open(path, framework="np") as stream:
        return dict(stream.metadata() or {})


def _array(dtype: str, shape: list[int], data: bytearray) -> StoredArray:
    if dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, _DTYPES[dtype])
    return StoredArray(_DTYPES[dtype], values.reshape(shape))


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileFormatError(f"{path} is missing; the adapter is not whole") from None
    # Nothing but the reader of safetensors runs here, and a damaged header can make it raise anything.
    except Exception as error:
        raise FileFormatError(f"{path} is damaged: {first_line(error)}") from error
