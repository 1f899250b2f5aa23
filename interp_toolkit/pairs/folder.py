"""The folder in which vector-label pairs are kept: vectors in safetensors, labels in parquet, the rest in JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.pairs.checks import check_mean

VECTORS, LABELS, ORIGIN = "vectors.safetensors", "labels.parquet", "origin.json"
_FORMAT = "vector_label_pairs_v1"
# Room for the header, which can be written only when the number of vectors is known.
_HEADER = 1024


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """What a folder holds.

    Attributes:
        vectors: mapped from the file and read-only: nothing is read before it is used, and writing to it is a crash.
        mean: the centring mean, or None.
        table: ``labels``, ``split``, ``weight``, ``source`` of each vector.
        origin: ``site`` and ``sources``.
    """

    vectors: Tensor
    mean: Tensor | None
    table: pd.DataFrame
    origin: dict[str, Any]


def write_vectors(path: Path, blocks: Iterable[Tensor], mean: Tensor | None, width: int | None = None) -> int:
    """Write float32 blocks one after another as one tensor of a safetensors file, without holding more than one.

    Returns:
        The number of rows.

    Raises:
        InterpToolkitError: blocks of different widths, or none at all.
    """
    count = 0
    with open(path, "wb") as stream:
        stream.write(bytes(_HEADER))
        for block in blocks:
            width = block.shape[1] if width is None else width
            if block.shape[1] != width:
                raise InterpToolkitError(f"expected vectors of width {width}, got {block.shape[1]} from row {count} on")
            stream.write(_bytes(block))
            count += len(block)
        if width is None:
            raise InterpToolkitError("expected at least one block of vectors, got none")
        check_mean(mean, width)
        end = 4 * count * width
        header: dict[str, Any] = dict(vectors=dict(dtype="F32", shape=[count, width], data_offsets=[0, end]))
        if mean is not None:
            stream.write(_bytes(mean))
            header["mean"] = dict(dtype="F32", shape=[width], data_offsets=[end, end + 4 * width])
        stream.seek(0)
        stream.write((_HEADER - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(_HEADER - 8))
    return count


def write_table(
    folder: Path, table: pd.DataFrame, site: str | None, centred: bool, sources: list[dict[str, str]]
) -> None:
    """Write everything but the vectors."""
    table.to_parquet(folder / LABELS)
    told = dict(format=_FORMAT, site=site, centring="mean" if centred else "none", sources=sources)
    (folder / ORIGIN).write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")


def read_folder(folder: Path) -> StoredPairs:
    """Read a folder, leaving the vectors where they are; their values were checked when they were written.

    Raises:
        FileFormatError: missing, cut off, or parts that do not belong together.
    """
    try:
        vectors, mean = map_vectors(folder / VECTORS)
        table = pd.read_parquet(folder / LABELS)
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        if not isinstance(origin, dict) or origin.get("format") != _FORMAT:
            raise ValueError(f"expected format {_FORMAT!r} in {ORIGIN}")
        if missing := {"labels", "split", "weight", "source"} - set(table) | {"site", "sources"} - set(origin):
            raise ValueError(f"{sorted(missing)} missing")
        if len(table) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors, but {len(table)} rows in {LABELS}")
        if origin.get("centring") != ("none" if mean is None else "mean"):
            raise ValueError(f"{ORIGIN} says centring {origin.get('centring')!r}, and {VECTORS} says otherwise")
    except FileNotFoundError as error:
        raise FileFormatError(f"expected a folder of vector-label pairs at {folder}: {error}") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FileFormatError(f"the vector-label pairs at {folder} are damaged: {error}") from error
    return StoredPairs(vectors, mean, table, origin)


def map_vectors(path: Path) -> tuple[Tensor, Tensor | None]:
    """The vectors of a file, mapped, and its mean."""
    # This opening holds the header against the size of the file, and so refuses one that was cut off.
    with safe_open(path, framework="np") as stream:
        mean = torch.from_numpy(stream.get_tensor("mean")) if "mean" in stream.keys() else None  # noqa: SIM118
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        told = json.loads(stream.read(length))["vectors"]
    if told["dtype"] != "F32" or len(told["shape"]) != 2:
        raise ValueError(f"expected a float32 matrix in {VECTORS}, got {told['dtype']} of shape {told['shape']}")
    count, width = told["shape"]
    if not count:
        return torch.empty(0, width), mean
    # Mapped for reading alone: a private mapping that could be written to counts as memory, and a file larger than
    # memory would be refused.
    mapped = np.memmap(path, "<f4", "r", offset=8 + length + told["data_offsets"][0], shape=(count, width))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(mapped), mean


def _bytes(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes()
