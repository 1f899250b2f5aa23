"""Reading torch's own files without running anything in them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.errors import FileFormatError, first_line

_ARCHIVE = b"PK\x03\x04"


def read_torch_file(path: Path, *, called: str, holds: str, instead: str) -> Any:
    """What a ``.pt`` file holds, on the CPU; mapped rather than read where its format allows.

    The format that torch has written since 1.6, an archive, has a checksum of each of its parts, which torch does not
    look at and this function does.

    Args:
        path: a file that is there.
        called: what an error calls it, path included.
        holds: what it may hold.
        instead: what to ask its author for, where it holds anything else.

    Raises:
        FileFormatError: damaged, or holding objects that would have to be run.
    """
    with open(path, "rb") as stream:
        archive = stream.read(len(_ARCHIVE)) == _ARCHIVE
    if archive and (fault := _damaged_part(path)):
        raise FileFormatError(f"{called} is damaged: {fault}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of old pickle protocols, which are refused or read anyway
            # Only an archive can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise FileFormatError(
            f"{path} holds pickled objects other than {holds}, which are never run; ask its author for {instead} "
            f"({first_line(error):.120})"
        ) from error
    # A damaged pickle can raise anything, and nothing but torch's reader runs here.
    except Exception as error:
        raise FileFormatError(f"{called} is damaged: {first_line(error):.160}") from error


def check_dense(tensor: Tensor, path: Path, called: str) -> None:
    """Refuse a tensor out of a ``.pt`` file that is not plain numbers, or claims more of them than the file can hold.

    Raises:
        FileFormatError: the text names the tensor as ``called``.
    """
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
        raise FileFormatError(f"expected floating-point numbers in {called}, got {tensor.dtype}, {tensor.layout}")
    # A view may repeat a few stored numbers without end.
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise FileFormatError(
            f"{called} is damaged: it claims the shape {tuple(tensor.shape)}, for which the file is too short"
        )


def _damaged_part(path: Path) -> str:
    """What is wrong with an archive by its checksums; empty where nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
    # zipfile raises much beside BadZipFile: NotImplementedError, struct.error, zlib.error, ValueError, ...
    except Exception as error:
        return first_line(error)
    return f"the checksum of its part {name!r} is wrong" if name else ""
