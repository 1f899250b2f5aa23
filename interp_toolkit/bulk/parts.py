"""A long job in parts: each a parquet file that is written whole, and made by whichever process comes to it first."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout
from pandas.util import hash_pandas_object

from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

JOB = "job.json"
_LOCKS = ".locks"
# Keys of a part's metadata: what changes with its inputs, and a digest of its rows.
_INPUTS, _ROWS = b"interp_toolkit.inputs", b"interp_toolkit.rows"
_FORMAT = "interp_toolkit_job"


@dataclass(frozen=True)
class Part:
    """Rows of a job that are made together.

    Attributes:
        number: of the part, from 0.
        count: of all parts.
        start: number of its first row.
        stop: number of the row behind its last.
    """

    number: int
    count: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"part-{self.number:05d}-of-{self.count:05d}.parquet"


@dataclass(frozen=True)
class Progress:
    """What a process did of a job.

    Attributes:
        written: parts that it made.
        there: parts that were there.
        elsewhere: parts that other processes are at.
        rows: in the parts that it made.
    """

    written: int = 0
    there: int = 0
    elsewhere: int = 0
    rows: int = 0


def split_rows(rows: int, rows_per_part: int) -> list[Part]:
    """The parts of so many rows.

    Args:
        rows: of the job.
        rows_per_part: the last part may have fewer.
    """
    starts = range(0, rows, rows_per_part)
    return [Part(i, len(starts), start, min(start + rows_per_part, rows)) for i, start in enumerate(starts)]


def parse_shard(text: str | None) -> tuple[int, int]:
    """Which share of the parts a process begins with: its number, and how many processes there are.

    Args:
        text: ``"0/4"`` for the first of four; by default what torchrun (``RANK``, ``WORLD_SIZE``) or SLURM
            (``SLURM_PROCID``, ``SLURM_NTASKS``) say, else the only one.

    Raises:
        InterpToolkitError: anything else.
    """
    if text is None:
        for number, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
            if number in os.environ and count in os.environ:
                text = f"{os.environ[number]}/{os.environ[count]}"
                break
        else:
            return 0, 1
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InterpToolkitError(f"expected a shard like 0/4, the first of four, got {text!r}")
    return int(number), int(count)


def run_parts(
    folder: Path,
    settings: Mapping[str, Any],
    plan: list[Part],
    read: Callable[[Part], tuple[Any, str]],
    make: Callable[[Part, Any], pd.DataFrame | pa.Table],
    *,
    shard: tuple[int, int] = (0, 1),
    progress: bool = False,
) -> Progress:
    """Make the parts of a job that are not there yet.

    A part is skipped where its file is whole and was made from the same inputs. Each is locked while it is made, so
    processes that share a folder share the work; the lock of a process that dies is free. What a part holds depends on
    its own inputs alone, so a job that was interrupted gives what one gives that was not.

    Args:
        folder: for the parts; made where it is missing.
        settings: all else that decides what the parts hold, as JSON can hold it.
        plan: the parts of the job.
        read: the inputs of a part, and a text that changes with them.
        make: the rows of a part, from its inputs; vectors stand in a table's columns of lists of fixed length.
        shard: number of this process and count of all. It begins with every count-th part, and then makes what is
            left.
        progress: whether to show a bar, in rows.

    Raises:
        InterpToolkitError: the folder holds another job, or other files.
    """
    _open_job(folder, {**settings, "rows": plan[-1].stop if plan else 0, "parts": len(plan)})
    number, count = shard
    ordered = sorted(plan, key=lambda part: part.number % count != number)
    written = there = elsewhere = rows = 0
    with _bar(plan, progress) as show:
        for part in ordered:
            inputs, digest = read(part)
            path = folder / part.name
            if _is_there(path, digest):
                there += 1
            else:
                try:
                    with FileLock(folder / _LOCKS / f"{part.name}.lock", timeout=0):
                        if _is_there(path, digest):
                            there += 1
                        else:
                            _write(path, make(part, inputs), digest)
                            written, rows = written + 1, rows + part.stop - part.start
                except Timeout:
                    elsewhere += 1
            show(part.stop - part.start)
    return Progress(written, there, elsewhere, rows)


def read_parts(folder: str | Path) -> pd.DataFrame:
    """All rows of a job, in the order of its inputs.

    Args:
        folder: of the job.

    Raises:
        FileFormatError: it holds no job, or a part is missing or damaged.
    """
    return pd.concat([read_part(path).to_pandas() for path in part_paths(folder)], ignore_index=True)


def part_paths(folder: str | Path) -> list[Path]:
    """The files of a job's parts, in the order of its inputs.

    Args:
        folder: of the job.

    Raises:
        FileFormatError: it holds no job, or a part is missing.
    """
    count = job_settings(folder)["parts"]
    paths = [Path(folder) / Part(i, count, 0, 0).name for i in range(count)]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise FileFormatError(
            f"expected {count:,} parts in {folder}, and {len(missing):,} are missing, such as {missing[0]}; run "
            f"the command of the job again, which makes them"
        )
    return paths


def job_settings(folder: str | Path) -> dict[str, Any]:
    """What a job was begun with.

    Args:
        folder: of the job.

    Raises:
        FileFormatError: it holds no job.
    """
    path = Path(folder) / JOB
    job = read_json(path, "a job") if path.is_file() else None
    if not isinstance(job, dict) or job.get("format") != _FORMAT:
        raise FileFormatError(f"expected the folder of a job, got {folder}, which has no {JOB} of one")
    return job


def _open_job(folder: Path, settings: dict[str, Any]) -> None:
    """Write what a job is, or compare it with what is written."""
    wanted = json.loads(json.dumps(dict(settings, format=_FORMAT)))
    (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
    path = folder / JOB
    with FileLock(folder / _LOCKS / f"{JOB}.lock"):
        if path.exists():
            there = read_json(path, "a job")
            if not isinstance(there, dict) or there.get("format") != _FORMAT:
                raise FileFormatError(f"{path} is not the description of a job; choose another folder")
            if names := sorted(name for name in wanted | there if wanted.get(name) != there.get(name)):
                name = names[0]
                raise InterpToolkitError(
                    f"{folder} holds another job, with {name} {there.get(name)!r:.100} where this one has "
                    f"{wanted.get(name)!r:.100}; choose another folder, or repeat that job's settings"
                )
            return
        if others := [one.name for one in folder.iterdir() if one.name != _LOCKS]:
            raise InterpToolkitError(
                f"expected an empty folder for a new job, and {folder} holds {others[0]}; choose another folder"
            )
        with whole_file(path) as draft:
            draft.write_text(json.dumps(wanted, indent=1, ensure_ascii=False), encoding="utf-8")


def _is_there(path: Path, digest: str) -> bool:
    """Whether a part's file is there to its end, and was made from the same inputs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        logger.warning("%s is damaged, and is made again", path)
        return False
    return metadata.get(_INPUTS) == digest.encode()


def _write(path: Path, rows: pd.DataFrame | pa.Table, digest: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Drafts of processes that were killed: this one has the lock.
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)
    table = pa.Table.from_pandas(rows, preserve_index=False) if isinstance(rows, pd.DataFrame) else rows
    stated = {_INPUTS: digest, _ROWS: _digest(table)}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **stated})
    # Half of the bytes of bfloat16 numbers that stand as float32 are zero, and side by side they take no room.
    packed: dict[str, Any] = {}
    if vectors := _vectors(table):
        numbers = [f"{name}.list.element" for name in vectors]
        packed = dict(use_dictionary=False, use_byte_stream_split=numbers, compression="zstd")
    with whole_file(path) as draft:
        pq.write_table(table, draft, write_page_checksum=True, **packed)


def read_part(path: Path) -> pa.Table:
    """The rows of one part.

    Args:
        path: one of `part_paths`.

    Raises:
        FileFormatError: the file is damaged.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        # Checksums of pages do not cover their headers.
        if _digest(table).encode() != (table.schema.metadata or {}).get(_ROWS):
            raise ValueError("its rows are not those that were written")
    # A damaged file can make the reader of parquet raise anything.
    except Exception as error:
        raise FileFormatError(
            f"{path} is damaged: {first_line(error)}; delete it and run the command of the job again"
        ) from error
    return table


def _digest(table: pa.Table) -> str:
    vectors = _vectors(table)
    frame = table.select([name for name in table.column_names if name not in vectors]).to_pandas()
    hashes: Any = hash_pandas_object(frame, index=False)  # type: ignore[operator]
    digest = hashlib.sha256(hashes.to_numpy().tobytes())
    for name in vectors:
        for chunk in table.column(name).chunks:
            digest.update(chunk.flatten().to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def _vectors(table: pa.Table) -> list[str]:
    """The names of the columns of vectors."""
    import pyarrow as pa

    return [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]


@contextmanager
def _bar(plan: list[Part], progress: bool) -> Iterator[Callable[[int], object]]:
    from tqdm.auto import tqdm

    with tqdm(total=sum(part.stop - part.start for part in plan), unit="row", disable=not progress) as bar:
        yield bar.update
