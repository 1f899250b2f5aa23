"""Lists of topics: titles with further labels and splits, from files and data sets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.json_lines import read_json_lines, read_lines
from interp_toolkit.tables import brief_repr

_EXPECTED = "a file of topic titles"
_ROW = "a JSON object with a title"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".json", ".json-lines", ".ndjson")
_PLAIN = (".txt", "")


@dataclass(frozen=True)
class Topics:
    """Topics to make pairs of, see `topic_pairs`.

    Attributes:
        titles: what the model is asked about.
        labels: for each title its labels: the title first, then descriptions, none twice in whatever case.
        splits: ``"train"`` or ``"val"`` for each title, or None where not every title has one.
    """

    titles: list[str]
    labels: list[tuple[str, ...]]
    splits: list[str] | None

    __repr__ = brief_repr

    def __len__(self) -> int:
        return len(self.titles)


def read_topics(path: str | Path, labels: int | None = None) -> Topics:
    """Read topics from a file.

    Args:
        path: JSON Lines (``.jsonl``) with ``title``, perhaps ``split``, and perhaps ``descriptions`` (texts, or objects
            with a ``description``); a table (``.csv``, ``.tsv``) with a column ``title`` and perhaps ``split``, whose
            other columns are left out; or plain text (``.txt``) with one title per line. Each may be gzipped
            (``.jsonl.gz``).
        labels: largest number of labels per title, its own text included; None for all.

    Raises:
        FileFormatError: missing, damaged, of another kind, or a row that is not as said; the text names the line.

    Example:
        >>> topics = read_topics("topics.jsonl.gz")
        >>> pairs = topic_pairs(model, topics.titles, 23, labels=topics.labels, splits=topics.splits)
    """
    path = Path(path).expanduser()
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind in _DELIMITERS:
        rows = _table_rows(path, _DELIMITERS[kind])
    elif kind in _JSON_LINES:
        rows = read_json_lines(path, _EXPECTED, _ROW)
    elif kind in _PLAIN:
        rows = ((f"{path}, line {number}", {"title": line}) for number, line in read_lines(path, _EXPECTED))
        rows = (row for row in rows if row[1]["title"].strip())
    else:
        raise FileFormatError(
            f"{path} is of a kind whose titles are not known ({kind}); expected .txt with one title per line, .jsonl "
            f"with an object with a title per line, or .csv or .tsv with a column 'title'; each may be gzipped (.gz)"
        )
    titles, texts, splits = [], [], []
    for name, row in rows:
        try:
            titles.append(row["title"])
            texts.append([x if isinstance(x, str) else x["description"] for x in row.get("descriptions") or []])
            splits.append(row.get("split") or None)
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{name}: expected {_ROW}: {error}") from error
        if not all(isinstance(x, str) for x in [titles[-1], *texts[-1]]):
            raise FileFormatError(f"{name}: expected a title and descriptions that are texts")
        if not titles[-1].strip():
            raise FileFormatError(f"{name}: expected a title, got an empty one")
        if not isinstance(splits[-1], (str, type(None))):
            raise FileFormatError(f"{name}: expected a text for the split, got {splits[-1]!r:.60}")
    if not titles:
        raise FileFormatError(f"expected at least one title in {path}, got none")
    return _topics(titles, texts, splits, labels)


def _table_rows(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table, each with its name for errors."""
    lines = csv.reader((f"{line}\n" for _, line in read_lines(path, _EXPECTED)), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(lines, [])]
        if columns.count("title") != 1:
            raise FileFormatError(f"expected a column 'title' in the first line of {path}, got {columns!r:.80}")
        for row in lines:
            if not row:
                continue
            if len(row) != len(columns):
                raise FileFormatError(
                    f"{path}, line {lines.line_num}: expected {len(columns)} fields, got {len(row)}; a title with the "
                    f"delimiter in it is written between double quotes"
                )
            fields = dict(zip(columns, row))
            yield f"{path}, line {lines.line_num}", {key: fields[key] for key in ("title", "split") if key in fields}
    except csv.Error as error:
        raise FileFormatError(f"{path}, line {lines.line_num}: {first_line(error)}; expected {_EXPECTED}") from error


def topics_from_dataset(
    dataset: Any,
    title_column: str = "title",
    label_column: str | None = "labels",
    split_column: str | None = None,
    labels: int | None = None,
) -> Topics:
    """Read topics from anything with columns: a Hugging Face ``datasets.Dataset``, a data frame, a mapping of lists.

    Args:
        dataset: one row per topic.
        title_column: titles.
        label_column: lists of further labels; None for titles alone.
        split_column: ``"train"`` or ``"val"``; None to have the split drawn.
        labels: largest number of labels per title, its own text included; None for all.

    Raises:
        InterpToolkitError: a column that is not there, or a row that is not as said; the text names the row.

    Example:
        >>> rows = datasets.load_dataset("keenanpepper/fifty-thousand-things", split="train")
        >>> topics = topics_from_dataset(rows, "original_title", split_column="split")
    """
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, Mapping):  # a DatasetDict, whose rows are a level below
        raise InterpToolkitError(
            f"expected one data set, got parts {list(columns)}; choose one: dataset[{next(iter(columns))!r}]"
        )
    columns = list(dataset.columns if columns is None and hasattr(dataset, "columns") else columns or dataset)
    for column in (title_column, label_column, split_column):
        if column is not None and column not in columns:
            raise InterpToolkitError(f"the data set has no column {column!r}; it has {columns}")
    titles = list(dataset[title_column])
    texts = [[]] * len(titles) if label_column is None else list(dataset[label_column])
    splits = [None] * len(titles) if split_column is None else list(dataset[split_column])
    for row, (title, further, split) in enumerate(zip(titles, texts, splits)):
        if not isinstance(title, str) or not title.strip():
            raise InterpToolkitError(f"row {row} of the data set: expected a text in {title_column!r}, got {title!r}")
        if not isinstance(split, (str, type(None))):
            raise InterpToolkitError(f"row {row} of the data set: expected a text in {split_column!r}, got {split!r}")
        listed = isinstance(further, Iterable) and not isinstance(further, str)
        if not listed or not all(isinstance(x, str) for x in further):
            raise InterpToolkitError(
                f"row {row} of the data set: expected a list of texts in {label_column!r}, got {further!r}"
            )
    return _topics(titles, texts, splits, labels)


def read_titles(path: str | Path) -> tuple[list[str], list[str] | None]:
    """Read titles, and their splits where every row has one, from a file; see `read_topics`."""
    topics = read_topics(path, labels=1)
    return topics.titles, topics.splits


def _topics(titles: list[str], texts: list[Any], splits: list[Any], limit: int | None) -> Topics:
    if limit is not None and limit < 1:
        raise InterpToolkitError(f"expected at least 1 for labels, since the title is one, got {limit}")
    labels = []
    for title, further in zip(titles, texts):
        first: dict[str, str] = {}
        for text in (title, *further):
            first.setdefault(text.strip().lower(), text)
        labels.append(tuple(text for text in first.values() if text.strip())[:limit])
    return Topics(titles, labels, splits if titles and all(splits) else None)
