"""The one store of derived data: what takes long to make is kept under a name made of all that decides it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp_toolkit.files import check_digest, whole_file, with_digest

T = TypeVar("T")


def cache_folder() -> Path:
    """Where derived data is kept: ``$INTERP_TOOLKIT_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("INTERP_TOOLKIT_CACHE") or user_cache_dir("interp_toolkit"))


class Cache(Generic[T]):
    """Values on disk, each in a file named for a digest of its key.

    A key is a JSON value that holds all that the value depends on: the weights of the model (`weights_key`), settings,
    inputs, and versions of code. So nothing is ever out of date, and two processes that make the same value write the
    same file. A file that is damaged counts as missing: its SHA-256 stands in it.

    Args:
        kind: name of the folder within ``folder``: ``"descriptions"``.
        folder: of all kinds; by default `cache_folder`.
    """

    suffix: str

    def __init__(self, kind: str, folder: str | Path | None = None) -> None:
        self.folder = (cache_folder() if folder is None else Path(folder)) / kind

    def path(self, key: Any) -> Path:
        """The file that holds, or would hold, the value of a key."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{digest}{self.suffix}"

    def load(self, key: Any) -> T | None:
        """The value of a key; None where there is none, or its file is damaged."""
        try:
            return self._read(self.path(key))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def save(self, key: Any, value: T) -> T:
        """Keep a value, whole or not at all, and return it."""
        with whole_file(self.path(key)) as draft:
            self._write(draft, value)
        return value

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of a key, made and kept where there is none.

        Example:
            >>> JsonCache("questions").get([weights_key(model), questions], lambda: ask(model, questions))
        """
        value = self.load(key)
        return self.save(key, make()) if value is None else value

    def _read(self, path: Path) -> T:
        raise NotImplementedError

    def _write(self, path: Path, value: T) -> None:
        raise NotImplementedError


class JsonCache(Cache[Any]):
    """JSON values; NaN stays NaN, tuples come back as lists, and None is no value."""

    suffix = ".json"

    def _read(self, path: Path) -> Any:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["sha256"] != _sha256(entry["value"]):
            raise ValueError("damaged")
        return entry["value"]

    def _write(self, path: Path, value: Any) -> None:
        value = json.loads(json.dumps(value))  # as it will be read, so that the digest is of that
        path.write_text(json.dumps({"sha256": _sha256(value), "value": value}), encoding="utf-8")


class TensorCache(Cache[Mapping[str, Tensor]]):
    """Named tensors on the CPU."""

    suffix = ".safetensors"

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
        if "sha256" not in header:
            raise ValueError("damaged")
        check_digest(header, ((name, _numbers(tensor)) for name, tensor in tensors.items()))
        return tensors

    def _write(self, path: Path, value: Mapping[str, Tensor]) -> None:
        tensors = {name: tensor.contiguous() for name, tensor in value.items()}
        numbers = {name: _numbers(tensor) for name, tensor in tensors.items()}
        save_file(tensors, path, with_digest({"format": "interp_toolkit cache"}, numbers))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _numbers(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers as numpy has them; it has no bfloat16, whose bits stand in for it."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
