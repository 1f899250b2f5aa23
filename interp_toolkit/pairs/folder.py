"""The folder in which vector-label pairs are stored: vectors in safetensors, labels in parquet, the rest in JSON.

The writer of safetensors takes whole tensors alone, and its reader maps a file as memory of the process; both would
refuse pairs larger than memory. So vectors are written and mapped here, in the same format.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.files import sha256_of, sha256_of_json
from interp_toolkit.json_lines import parse_json
from interp_toolkit.pairs.checks import check_mean

VECTORS, LABELS, ORIGIN = "vectors.safetensors", "labels.parquet", "origin.json"
# The second has questions, which a reader of the first would overlook.
_FORMAT, _WITH_QUESTIONS = "vector_label_pairs_v1", "vector_label_pairs_v2"
# Room for the header, which can be written only when the number of vectors is known.
_HEADER = 1024
# The key of a SHA-256: of the numbers in the header of the vectors; of the labels, and of its own other keys, in JSON.
_DIGEST = "sha256"
# What the readers of three formats raise where a file is damaged.
_DAMAGE = (
    *(OSError, EOFError, MemoryError, RuntimeError, ArithmeticError),
    *(ValueError, TypeError, LookupError, AttributeError, SafetensorError, ArrowException),
)
# Vectors are compared with their digest when a folder is opened, up to as many bytes as take a few seconds.
_CHECKED = 2**32
_BLOCK = 2**24  # bytes


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """What a folder holds.

    Attributes:
        vectors: mapped from the file and read-only: nothing is read before it is used, and writing to it is a crash.
        mean: the centring mean, or None.
        labels: of each vector.
        splits: of each vector.
        weights: of each vector.
        site: where the vectors were read, as a text, or None.
        sources: provenance of each source.
        source_of: for each vector the number of its source.
        questions: of each vector; empty where its labels describe it.
    """

    vectors: Tensor
    mean: Tensor | None
    labels: tuple[tuple[str, ...], ...]
    splits: list[str]
    weights: list[float]
    site: str | None
    sources: list[dict[str, str]]
    source_of: list[int]
    questions: list[str]


def write_vectors(path: Path, blocks: Iterable[Tensor], mean: Tensor | None, shape: Sequence[int] = ()) -> int:
    """Write float32 blocks one after another as one tensor of a safetensors file, without holding more than one.

    Args:
        path: the file.
        blocks: of vectors, [n, width], or of spans, [n, span, width].
        mean: the centring mean, [width], or None.
        shape: of a row; by default that of the first block.

    Returns:
        The number of rows.

    Raises:
        InterpToolkitError: blocks of different widths, or none at all.
    """
    count = 0
    with open(path, "wb") as stream:
        stream.write(bytes(_HEADER))
        digest = hashlib.sha256()
        for block in blocks:
            shape = shape or block.shape[1:]
            if tuple(block.shape[1:]) != tuple(shape):
                expected, got = (" x ".join(map(str, one)) for one in (shape, block.shape[1:]))
                raise InterpToolkitError(f"expected vectors of width {expected}, got {got} from row {count} on")
            stream.write(values := _bytes(block))
            digest.update(values)
            count += len(block)
        if not shape:
            raise InterpToolkitError("expected at least one block of vectors, got none")
        width = shape[-1]
        check_mean(mean, width)
        end = 4 * count * math.prod(shape)
        header: dict[str, Any] = dict(vectors=dict(dtype="F32", shape=[count, *shape], data_offsets=[0, end]))
        if mean is not None:
            stream.write(values := _bytes(mean))
            digest.update(values)
            header["mean"] = dict(dtype="F32", shape=[width], data_offsets=[end, end + 4 * width])
        header["__metadata__"] = {_DIGEST: digest.hexdigest()}
        stream.seek(0)
        stream.write((_HEADER - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(_HEADER - 8))
    return count


def write_table(folder: Path, pairs: Any) -> None:
    """Write everything of `VectorLabelPairs` but the vectors.

    Args:
        folder: where the vectors are.
        pairs: the pairs.
    """
    columns: dict[str, list[Any]] = dict(
        labels=[list(x) for x in pairs.labels],
        split=list(pairs.splits),
        weight=list(pairs.weights),
        source=list(pairs.source_of),
    )
    if has_questions := any(pairs.questions):
        columns["question"] = list(pairs.questions)
    pd.DataFrame(columns).to_parquet(folder / LABELS)
    origin = dict(
        format=_WITH_QUESTIONS if has_questions else _FORMAT,
        site=None if pairs.site is None else str(pairs.site),
        centring="none" if pairs.mean is None else "mean",
        sources=[dict(x) for x in pairs.sources],
    )
    digests = dict(labels=sha256_of(folder / LABELS), origin=sha256_of_json(origin))
    text = json.dumps({**origin, _DIGEST: digests}, indent=1, ensure_ascii=False)
    (folder / ORIGIN).write_text(text, encoding="utf-8")


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Raise whatever reading a damaged folder raises as an error that names the folder."""
    try:
        yield
    except FileFormatError:
        raise
    except _DAMAGE as error:
        raise FileFormatError(f"the vector-label pairs at {folder} are damaged: {first_line(error)}") from error


def read_folder(folder: Path) -> StoredPairs:
    """Read a folder, leaving the vectors where they are; their values were checked when they were written.

    Raises:
        FileFormatError: a file is missing.
        Exception: one that `naming_damage` knows: cut off, changed since, or files that do not belong together.
    """
    for name in (VECTORS, LABELS, ORIGIN):
        if not (folder / name).exists():
            raise FileFormatError(f"expected a folder of vector-label pairs at {folder}, and {name} is missing")
    vectors, mean = map_vectors(folder / VECTORS)
    origin = _read_origin(folder)
    table = pd.read_parquet(folder / LABELS)
    has_questions = origin["format"] == _WITH_QUESTIONS
    if missing := {"labels", "split", "weight", "source", *(["question"] if has_questions else [])} - set(table):
        raise ValueError(f"{sorted(missing)} missing")
    if len(table) != len(vectors):
        raise ValueError(f"{len(vectors)} vectors, but {len(table)} rows in {LABELS}")
    if origin["centring"] != ("none" if mean is None else "mean"):
        raise ValueError(f"{ORIGIN} says centring {origin['centring']!r}, and {VECTORS} says otherwise")
    sources, source_of = origin["sources"], table["source"].tolist()
    if wrong := [x for x in source_of if type(x) is not int or not 0 <= x < len(sources)]:
        raise ValueError(f"expected the number of one of {len(sources)} sources, got {wrong[0]!r}")
    labels = tuple(tuple(map(str, x)) for x in table["labels"])
    splits, weights = table["split"].tolist(), table["weight"].tolist()
    questions = table["question"].tolist() if has_questions else [""] * len(table)
    return StoredPairs(vectors, mean, labels, splits, weights, origin["site"], sources, source_of, questions)


def _read_origin(folder: Path) -> dict[str, Any]:
    origin = parse_json((folder / ORIGIN).read_text(encoding="utf-8"))
    if not isinstance(origin, dict) or origin.get("format") not in (_FORMAT, _WITH_QUESTIONS):
        raise ValueError(f"expected format {_FORMAT!r} in {ORIGIN}")
    digests = origin.pop(_DIGEST, None)  # folders that 0.1 wrote have none
    if missing := {"site", "sources", "centring"} - set(origin):
        raise ValueError(f"{sorted(missing)} missing in {ORIGIN}")
    sources = origin["sources"]
    texts = [text for source in sources for text in source.values()] if _is_list_of(sources, dict) else [None]
    if not _is_list_of(texts, str):
        raise ValueError(f"expected a list of sources with texts in {ORIGIN}, got {sources!r:.60}")
    if digests is not None:
        if not isinstance(digests, dict) or digests.get("labels") != sha256_of(folder / LABELS):
            raise ValueError(f"the SHA-256 of {LABELS} is not the one in {ORIGIN}")
        if digests.get("origin") != sha256_of_json(origin):
            raise ValueError(f"the SHA-256 of {ORIGIN} is not the one written in it")
    return origin


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def map_vectors(path: Path) -> tuple[Tensor, Tensor | None]:
    """Map the vectors of a file, and read its mean."""
    # This compares the header with the size of the file, and so refuses one that was cut off.
    with safe_open(path, framework="np") as stream:
        mean = torch.from_numpy(stream.get_tensor("mean")) if "mean" in stream.keys() else None  # noqa: SIM118
        digest = (stream.metadata() or {}).get(_DIGEST)
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        if digest is not None and path.stat().st_size <= _CHECKED:
            _check_numbers(stream, digest)
    facts = header["vectors"]
    if facts["dtype"] != "F32" or len(facts["shape"]) not in (2, 3):
        raise ValueError(f"expected a float32 matrix in {VECTORS}, got {facts['dtype']} of shape {facts['shape']}")
    if mean is not None and mean.dtype != torch.float32:
        raise ValueError(f"expected a float32 mean in {VECTORS}, got {mean.dtype}")
    shape = tuple(facts["shape"])
    if not shape[0]:
        return torch.empty(shape), mean
    # Mapped for reading alone: a private mapping that could be written to counts as memory, and a file larger than
    # memory would be refused.
    mapped = np.memmap(path, "<f4", "r", offset=8 + length + facts["data_offsets"][0], shape=shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(mapped), mean


def _check_numbers(stream: BinaryIO, digest: str) -> None:
    """Compare the rest of a file with its digest, a block at a time."""
    hasher = hashlib.sha256()
    while block := stream.read(_BLOCK):
        hasher.update(block)
    if hasher.hexdigest() != digest:
        raise ValueError(f"the SHA-256 of the numbers in {VECTORS} is not the one in its header")


def _bytes(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes()
