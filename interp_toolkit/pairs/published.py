"""The format in which the paper's authors publish vector-label pairs: JSON with labels, ``.pt`` files with vectors.

``[{"metadata": {dataset_name, filename, layer, source, vector_type}, "vectors": [{index, labels, split}]}]``
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import check_dense, read_torch_file
from interp_toolkit.json_lines import read_json
from interp_toolkit.pairs.checks import check_labels, check_splits_and_weights, check_values
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Site


@dataclass
class Section:
    """One section of the JSON: vectors of one origin with their labels.

    Attributes:
        name: ``dataset_name@l{layer}``.
        origin: all its metadata, as strings; ``model`` is taken from ``model_name``.
        site: the stream after block ``layer``; None for decoder directions, which are read nowhere.
        file: the matrix that the indices count in, or None where the caller gave it.
        rows: its vectors.
        labels: of each vector.
        splits: of each vector.
    """

    name: str
    origin: dict[str, str]
    site: Site | None
    file: Path | None
    rows: StoredRows
    labels: list[tuple[str, ...]] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PublishedPairs:
    """What a published file holds, section by section.

    Attributes:
        rows: all vectors.
        labels: of each vector.
        splits: of each vector.
        site: where all were read; None where sections differ.
        origins: metadata of each section.
        source_of: for each vector the number of its section.
    """

    rows: StoredRows
    labels: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    site: Site | None
    origins: tuple[dict[str, str], ...]
    source_of: tuple[int, ...]


def read_file(path: Path, vectors: Tensor | Mapping[str, Tensor] | None) -> PublishedPairs:
    """Read a published file, see `read_sections`.

    Args:
        path: ``.json`` or ``.json.gz``.
        vectors: of the only section, or of sections by name.

    Raises:
        FileFormatError: as `read_sections`.
        InterpToolkitError: as `read_sections`, and sections with vectors of different widths.
    """
    sections = read_sections(path, vectors)
    if len(widths := {section.rows.width for section in sections}) > 1:
        raise InterpToolkitError(f"expected vectors of one width in the sections of {path}, got {sorted(widths)}")
    sites = {section.site for section in sections}
    return PublishedPairs(
        StoredRows.concat([section.rows for section in sections]),
        tuple(x for section in sections for x in section.labels),
        tuple(x for section in sections for x in section.splits),
        sites.pop() if len(sites) == 1 else None,
        tuple(section.origin for section in sections),
        tuple(number for number, section in enumerate(sections) for _ in section.labels),
    )


def read_sections(path: Path, vectors: Tensor | Mapping[str, Tensor] | None) -> list[Section]:
    """Read the sections of a published file, their vectors mapped where the file allows it.

    Args:
        path: ``.json`` or ``.json.gz``; a ``filename`` in it is relative to it.
        vectors: of the only section, or of sections by name; they go before a section's own file.

    Raises:
        FileFormatError: missing, damaged, of another format, or holding more than tensors.
        InterpToolkitError: a section without vectors, and rows that cannot be used; the text names them.
    """
    raw = _read_json(path)
    if isinstance(vectors, Tensor):
        if len(raw) != 1:
            names = ", ".join(repr(_name(x["metadata"])) for x in raw)
            raise InterpToolkitError(
                f"{path} has {len(raw)} sections, and one matrix of vectors was given; give them by name: {names}"
            )
        vectors = {_name(raw[0]["metadata"]): vectors}
    by_name, matrices, seen = dict(vectors or {}), {}, {}
    if unknown := sorted(set(by_name) - {_name(x["metadata"]) for x in raw}):
        names = ", ".join(repr(_name(x["metadata"])) for x in raw)
        raise InterpToolkitError(f"vectors were given for {unknown[0]!r}, which {path} does not have; it has {names}")
    sections = []
    for section in raw:
        metadata, name = section["metadata"], _name(section["metadata"])
        where, file = f"{path}, section {name!r}", None
        if name in by_name:
            key, matrix = name, by_name[name]
            _check_matrix(matrix, f"the vectors given for section {name!r}")
        elif metadata.get("filename"):
            file = key = _beside(path, metadata["filename"], where)
            matrix = matrices[file] if file in matrices else matrices.setdefault(file, _read_matrix(file))
        else:
            raise InterpToolkitError(
                f"section {name!r} of {path} names no file of vectors ('filename'); give the matrix that its indices "
                f"count in: VectorLabelPairs.from_json(path, vectors=matrix)"
            )
        index, labels, splits = _rows(section["vectors"], where, len(matrix), seen.setdefault(key, set()))
        rows = StoredRows((matrix.detach().cpu(),), torch.tensor(index, dtype=torch.long))

        def named(row: int, where: str = where, index: list[int] = index) -> str:
            return f"{where}, index {index[row]}"

        check_labels(labels, named)
        check_splits_and_weights(splits, [], named)
        check_values(rows, named)
        sections.append(Section(name, _origin(metadata, path), _site(metadata), file, rows, labels, splits))
    return sections


def _read_json(path: Path) -> list[dict[str, Any]]:
    raw = read_json(path, "a JSON file of vector-label pairs")
    if not isinstance(raw, list) or not raw:
        raise FileFormatError(f"expected a list of sections in {path}, got {str(raw)[:60]}")
    for number, section in enumerate(raw):
        content = section if isinstance(section, dict) else {}
        if not isinstance(content.get("metadata"), dict) or not isinstance(content.get("vectors"), list):
            raise FileFormatError(f"{path}, section {number}: expected an object with 'metadata' and a list 'vectors'")
    return raw


def _rows(
    entries: list[Any], where: str, count: int, seen: set[int]
) -> tuple[list[int], list[tuple[Any, ...]], list[Any]]:
    index, labels, splits = [], [], []
    for row, entry in enumerate(entries):
        at = entry.get("index") if isinstance(entry, dict) else None
        if type(at) is not int:
            raise FileFormatError(f"{where}, row {row}: expected an object with a whole number 'index'")
        if not 0 <= at < count:
            raise InterpToolkitError(
                f"{where}, row {row}: index {at} is past the end of its {count} vectors, numbered 0 to "
                f"{count - 1}; are these the vectors that belong to the file?"
            )
        # Twice in one matrix, be it from two sections: the labels of one vector could fall on both sides.
        if at in seen:
            raise InterpToolkitError(f"{where}, row {row}: index {at} is listed twice; join its labels")
        if not isinstance(entry.get("labels"), list):
            raise FileFormatError(f"{where}, index {at}: expected a list 'labels', got {entry.get('labels')!r}")
        seen.add(at)
        index.append(at)
        labels.append(tuple(entry["labels"]))
        splits.append(entry.get("split"))
    return index, labels, splits


def _beside(path: Path, filename: Any, where: str) -> Path:
    """The file of vectors that a section names."""
    if not isinstance(filename, str) or "\0" in filename:
        raise FileFormatError(f"{where}: expected the name of a file of vectors for 'filename', got {filename!r:.60}")
    return (path.parent / filename).resolve()


def _read_matrix(path: Path) -> Tensor:
    if not os.path.exists(path):  # which says no, too, of a name that no system takes
        raise FileFormatError(f"expected a file of vectors at {path}, and there is none")
    matrix = read_torch_file(path, called=f"the file of vectors {path}", holds="tensors", instead="a plain tensor")
    _check_matrix(matrix, f"{path}")
    check_dense(matrix, path, f"{path}")
    return matrix


def _check_matrix(matrix: Any, where: str) -> None:
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or not matrix.is_floating_point():
        came = f"{matrix.dtype} of shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise FileFormatError(f"expected a matrix of vectors, one per row, in {where}, got {came}")


def _name(metadata: Mapping[str, Any]) -> str:
    return f"{metadata.get('dataset_name', 'unnamed')}@l{metadata.get('layer')}"


def _site(metadata: Mapping[str, Any]) -> Site | None:
    layer = metadata.get("layer")
    decoder = str(metadata.get("vector_type", "")).startswith("sae")
    return Site.after(layer) if type(layer) is int and layer >= 0 and not decoder else None


def _origin(metadata: Mapping[str, Any], path: Path) -> dict[str, str]:
    origin = {str(key): x if isinstance(x, str) else json.dumps(x) for key, x in metadata.items() if x is not None}
    if "model_name" in origin:
        origin.setdefault("model", origin["model_name"])
    return {**origin, "file": path.name}
