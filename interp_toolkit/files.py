"""Files and folders that are written whole or not at all, and torch's own files, read without running anything."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from interp_toolkit.errors import FileFormatError, first_line
from interp_toolkit.tensor_type import Tensor

# The key of a digest in the header of a safetensors file.
_DIGEST = "sha256"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``target`` when the block ends without an error.

    An older folder at ``target`` stays untouched until then; after an error nothing is left behind.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield draft
        # Drafts are private; what takes a public place is to be read by whoever may read the place.
        draft.chmod(0o755)
        for path in draft.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if target.exists():
            # A folder cannot be renamed over a filled one: move the old one aside for the instant between.
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.replace(target, aside / "old")
            os.replace(draft, target)
            shutil.rmtree(aside)
        else:
            os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``target`` when the block ends without an error."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(data: Mapping[str, Any]) -> str:
    """The SHA-256 of what a JSON object says, in hexadecimal, whatever the order and layout of its text."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def with_digest(header: Mapping[str, str], tensors: Mapping[str, Tensor | np.ndarray]) -> dict[str, str]:
    """The header of a file together with the SHA-256 of it and of the tensors."""
    return {**header, _DIGEST: _digest(header, ((name, np.asarray(value)) for name, value in sorted(tensors.items())))}


def check_digest(header: dict[str, str], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Take the SHA-256 out of a header and hold header and tensors against it; version 0.1 wrote none.

    Raises:
        ValueError: they are not what was written.
    """
    digest = header.pop(_DIGEST, None)
    if digest is not None and digest != _digest(header, tensors):
        raise ValueError("its SHA-256 is not the one in its header")


def _digest(header: Mapping[str, str], tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """Of tensors in the order of their names, of which one is held at a time."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, values in tensors:
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


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
    import torch  # only here: all else in this module needs no torch

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

    Args:
        tensor: as it was read.
        path: of the file.
        called: what an error calls the tensor, path included.

    Raises:
        FileFormatError: the text names the tensor as ``called``.
    """
    if str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu" or not tensor.is_floating_point():
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
