"""Text and JSON from plain and gzipped files; every error names the file, and the line where there are lines."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp_toolkit.errors import FileFormatError, first_line

_DAMAGED = (OSError, EOFError, UnicodeDecodeError, zlib.error)


def read_lines(path: Path, expected: str) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file, gzipped where its name ends in ``.gz``, with their numbers from 1.

    Args:
        path: of the file, in UTF-8, with or without a byte-order mark.
        expected: what the file is to be, for errors: ``"a file of topic titles"``.

    Raises:
        FileFormatError: missing or damaged; the text names the file and the last line that could be read.
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.rstrip("\n")
    except _DAMAGED as error:
        raise _unreadable(path, expected, error, f" after line {number}" if number else "") from error


def read_text(path: Path, expected: str) -> str:
    """Read the whole text of a file; the rest as in `read_lines`."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as stream:
            return stream.read()
    except _DAMAGED as error:
        raise _unreadable(path, expected, error) from error


def read_json(path: Path, expected: str) -> Any:
    """Read the value in a JSON file; the rest as in `read_lines`.

    Raises:
        FileFormatError: missing, damaged, or no JSON.
    """
    text = read_text(path, expected)
    try:
        return parse_json(text)
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: expected {expected}, and it is no JSON: {error}") from error


def read_json_lines(path: Path, expected: str, row: str = "a JSON object") -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a JSON Lines file, each with its name for errors, ``"FILE, line N"``; skip empty lines.

    Args:
        path: as in `read_lines`.
        expected: as in `read_lines`.
        row: what each line is to hold, for errors: ``"a JSON object with a title"``.

    Raises:
        FileFormatError: missing, damaged, or a line that holds anything other than an object.
    """
    for number, line in read_lines(path, expected):
        if not line.strip():
            continue
        name = f"{path}, line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            raise FileFormatError(f"{name}: expected {row}: {error}") from error
        if not isinstance(value, dict):
            raise FileFormatError(f"{name}: expected {row}, got {line[:60]!r}")
        yield name, value


def parse_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: no JSON, nested too deeply, or with half of a surrogate pair, which no text file can hold.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:  # only an escape can bring a lone surrogate
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text holds half of a surrogate pair ({error.reason})") from None
    return value


def _unreadable(path: Path, expected: str, error: BaseException, where: str = "") -> FileFormatError:
    if isinstance(error, FileNotFoundError):
        return FileFormatError(f"expected {expected} at {path}, and there is none")
    if isinstance(error, OSError) and error.strerror:  # what the system refuses: a folder, no permission
        return FileFormatError(f"expected {expected} at {path}, which cannot be read: {error.strerror}")
    return FileFormatError(f"{path} is damaged{where}: {first_line(error)}; expected {expected}")
