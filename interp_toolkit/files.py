"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_dir
from torch import Tensor

# The key of a digest in the header of a safetensors file.
_DIGEST = "sha256"


def cache_folder() -> Path:
    """Where derived data is kept: ``$INTERP_TOOLKIT_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("INTERP_TOOLKIT_CACHE") or user_cache_dir("interp_toolkit"))


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


def with_digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The header of a file together with the SHA-256 of it and of the tensors."""
    return {**header, _DIGEST: _digest(header, ((name, value.numpy()) for name, value in sorted(tensors.items())))}


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
