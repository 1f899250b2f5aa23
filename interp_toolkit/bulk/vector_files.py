"""Files of vectors that may be larger than memory: opened once, and read a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from interp_toolkit.bulk.parts import JOB, job_settings, part_paths
from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line

# What a job of `read_file` calls what it stores.
ACTIVATIONS = "activations"
# Names under which vectors stand in files of several tensors: folders of pairs, and weights of SAEs.
_USUAL_NAMES = ("vectors", "W_dec")
# Rows of a parquet file that are read at a time, so that a large group of rows is never held whole.
_ROWS = 4096
_IDS = "id"


@dataclass(frozen=True, eq=False)
class VectorFile:
    """The vectors of a file.

    Attributes:
        path: of the file.
        rows: how many there are.
        width: of each.
        read: the rows from one number to another, [n, width] in float32, and the texts by which the file calls them,
            if it does. A row that the file leaves out is NaN.
        site: where a model's residual stream was read, for vectors that `read_file` stored; else empty.
        job: what `read_file` stored them with; else empty.
    """

    path: Path
    rows: int
    width: int
    read: Callable[[int, int], tuple[Tensor, list[str] | None]]
    site: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)


def open_vectors(path: str | Path, name: str | None = None) -> VectorFile:
    """Open vectors in a safetensors, npy or parquet file, in a folder of pairs, or in one that `read_file` wrote.

    Args:
        path: of the file or folder. A parquet file holds vectors in a column of lists, and may call them by a column
            ``id``.
        name: of the tensor or column, which for residual streams is their site; needed only where there are several.

    Raises:
        FileFormatError: there is no such file, it is damaged, or it holds no vectors.
        InterpToolkitError: ``name`` is not in it, or is needed.

    Example:
        >>> vectors = open_vectors("sae_weights.safetensors")
        >>> vectors.rows, vectors.width
        (4096, 576)
    """
    path = Path(path).expanduser()
    if path.is_dir() and (path / JOB).is_file():
        return _open_parts(path, name)
    if path.is_dir() and (path / "vectors.safetensors").is_file():
        path = path / "vectors.safetensors"
    opened = {".safetensors": _open_safetensors, ".npy": _open_npy, ".parquet": _open_parquet}.get(path.suffix)
    if opened is None or not path.is_file():
        raise FileFormatError(
            f"expected vectors in a .safetensors, .npy or .parquet file, in a folder of pairs or of `read`, got {path}"
            + ("" if path.exists() else ", where there is nothing")
        )
    with _damage_named(path):
        return opened(path, name)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever the readers of three formats raise at a damaged file becomes an error that names the file."""
    try:
        yield
    except InterpToolkitError:
        raise
    except Exception as error:
        raise FileFormatError(f"{path} is damaged: {first_line(error)}") from error


def _open_npy(path: Path, name: str | None) -> VectorFile:
    if name is not None:
        raise InterpToolkitError(f"{path} holds one array, which has no name; leave {name!r} out")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    _require_vectors(path, array.shape, array.dtype.kind == "f", str(array.dtype))

    rows, width = array.shape
    del array

    def read(start: int, stop: int) -> tuple[Tensor, None]:
        # Opened anew each time: pages of a file that stays open count as this process's memory.
        opened = np.load(path, mmap_mode="r", allow_pickle=False)
        return torch.from_numpy(np.array(opened[start:stop], dtype=np.float32)), None

    return VectorFile(path, rows, width, read)


def _open_safetensors(path: Path, name: str | None) -> VectorFile:
    with safe_open(path, framework="pt") as stream:
        shapes = {key: stream.get_slice(key).get_shape() for key in stream.keys()}  # noqa: SIM118 - no mapping
        name = _choose(path, name, [key for key, shape in shapes.items() if len(shape) == 2], "tensor")
        dtype = stream.get_slice(name).get_dtype()
    _require_vectors(path, shapes[name], dtype.lstrip("B").startswith("F"), dtype)

    def read(start: int, stop: int) -> tuple[Tensor, None]:
        with safe_open(path, framework="pt") as stream:
            return stream.get_slice(name)[start:stop].float(), None

    rows, width = shapes[name]
    return VectorFile(path, rows, width, read)


def _open_parquet(path: Path, name: str | None) -> VectorFile:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return _parquet_vectors(path, name, file)


def _parquet_vectors(path: Path, name: str | None, file: Any) -> VectorFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {column.name: column.type for column in file.schema_arrow}
    lists = [
        key
        for key, kind in fields.items()
        if (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and pa.types.is_floating(kind.value_type)
    ]
    name = _choose(path, name, lists, "column of lists of numbers")
    columns = [name, *({_IDS} & set(fields))]
    rows = file.metadata.num_rows
    first = next(file.iter_batches(1, columns=[name]), None)
    width = len(first.column(0)[0].as_py() or ()) if first else 0
    _require_vectors(path, (rows, width), True, "")
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])

    def read(start: int, stop: int) -> tuple[Tensor, list[str] | None]:
        groups = range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop)) + 1)
        position = int(ends[groups[0] - 1]) if groups[0] else 0
        blocks, ids = [], []
        # Opened anew each time, as the others are: a job has thousands of files.
        with _damage_named(path), pq.ParquetFile(path) as opened:
            for batch in opened.iter_batches(_ROWS, row_groups=list(groups), columns=columns):
                here = slice(max(start - position, 0), min(stop - position, len(batch)))
                if here.start < here.stop:
                    part = batch.slice(here.start, here.stop - here.start)
                    blocks.append(_rows(path, part.column(name), width, position + here.start))
                    ids += map(str, part.column(_IDS).to_pylist()) if _IDS in columns else ()
                position += len(batch)
        return torch.from_numpy(np.concatenate(blocks)), ids or None

    return VectorFile(path, rows, width, read)


def stored_sites(folder: str | Path, name: str | None = None) -> list[str]:
    """The sites of the residual streams that `read_file` stored.

    Args:
        folder: its output.
        name: the only one that is wanted.

    Raises:
        FileFormatError: the folder holds no such job.
        InterpToolkitError: ``name`` was not stored.
    """
    job = job_settings(folder)
    if job.get("what") != ACTIVATIONS:
        raise FileFormatError(f"expected a folder with vectors that `read` stored, got {folder}, which holds none")
    return list(job["sites"]) if name is None else [_choose(Path(folder), name, job["sites"], "site")]


def _open_parts(folder: Path, name: str | None) -> VectorFile:
    """The residual streams that `read_file` stored, from all of its files; none of these stays open."""
    site = _choose(folder, name, stored_sites(folder), "site")
    paths = part_paths(folder)
    with _damage_named(folder):
        files = [_open_parquet(path, site) for path in paths]
    ends = np.cumsum([file.rows for file in files])

    def read(start: int, stop: int) -> tuple[Tensor, list[str]]:
        blocks, ids = [], []
        for i in range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop)) + 1):
            before = int(ends[i]) - files[i].rows
            rows, names = files[i].read(max(start - before, 0), min(stop - before, files[i].rows))
            blocks.append(rows)
            ids += names or ()
        return torch.cat(blocks), ids

    return VectorFile(folder, int(ends[-1]), files[0].width, read, site, job_settings(folder))


def _rows(path: Path, column: Any, width: int, start: int) -> np.ndarray:
    """A column of lists as an array, with NaN for a row that is missing."""
    import pyarrow.compute as pc

    missing = column.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.call_function("list_value_length", [column]).fill_null(width).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        number = int((lengths != width).argmax())
        raise FileFormatError(
            f"expected vectors of width {width} in {path}, as that of row 0, got {lengths[number]} in row "
            f"{start + number}"
        )
    rows = np.full((len(missing), width), np.nan, dtype=np.float32)
    values = column.flatten().to_numpy(zero_copy_only=False)
    rows[~missing] = values.reshape(-1, width)
    return rows


def _choose(path: Path, name: str | None, names: Sequence[str], what: str) -> str:
    usual = [one for one in _USUAL_NAMES if one in names]
    if name is None and (usual or len(names) == 1):
        return (usual or names)[0]
    if name in names:
        return str(name)
    listed = ", ".join(names) or "none"
    raise InterpToolkitError(
        f"expected the name of a {what} in {path}, got {name!r}; there are: {listed}"
        if name is not None or names
        else f"expected a {what} in {path}, and there is none"
    )


def _require_vectors(path: Path, shape: Sequence[int], numbers: bool, dtype: str) -> None:
    if len(shape) != 2 or not all(shape) or not numbers:
        raise FileFormatError(f"expected vectors, [rows, width], in {path}, got shape {list(shape)} {dtype}".rstrip())
