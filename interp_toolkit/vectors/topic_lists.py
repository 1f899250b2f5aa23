"""Lists of topics: titles with further labels and splits, from files and data sets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.tables import brief_repr


@dataclass(frozen=True)
class Topics:
    """Topics to make pairs of, see `topic_pairs`.

    Attributes:
        titles: what the model is asked about.
        labels: for each title its labels: the title first, then descriptions, none twice in whatever case.
        splits: ``"train"`` or ``"val"`` a title, or None where not every title has one.
    """

    titles: list[str]
    labels: list[tuple[str, ...]]
    splits: list[str] | None

    __repr__ = brief_repr

    def __len__(self) -> int:
        return len(self.titles)


def read_topics(path: str | Path, labels: int | None = None) -> Topics:
    """Topics from a file.

    Args:
        path: JSON Lines with ``title``, perhaps ``split``, and perhaps ``descriptions`` (texts, or objects with a
            ``description``); or plain text with a title a line; either may be gzipped.
        labels: how many labels a title may have, its own text included; None for all.

    Raises:
        FileFormatError: missing, cut off, or a row that is not as said; the text names the line.

    Example:
        >>> topics = read_topics("topics.jsonl.gz")
        >>> pairs = topic_pairs(model, topics.titles, 23, labels=topics.labels, splits=topics.splits)
    """
    path = Path(path).expanduser()
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
            lines = [line.rstrip("\n") for line in stream]
    except FileNotFoundError:
        raise FileFormatError(f"expected a file of topic titles at {path}, and there is none") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FileFormatError(f"the file of topic titles {path} is damaged: {error}") from error
    if ".json" not in path.name:
        titles = [line for line in lines if line.strip()]
        return _topics(titles, [[]] * len(titles), [None] * len(titles), labels)
    titles, texts, splits = [], [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            titles.append(row["title"])
            texts.append([x if isinstance(x, str) else x["description"] for x in row.get("descriptions") or []])
            splits.append(row.get("split"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path}, line {number}: expected a JSON object with a title: {error}") from error
        if not all(isinstance(x, str) for x in [titles[-1], *texts[-1]]):
            raise FileFormatError(f"{path}, line {number}: expected a title and descriptions that are texts")
    return _topics(titles, texts, splits, labels)


def topics_from_dataset(
    dataset: Any,
    title_column: str = "title",
    label_column: str | None = "labels",
    split_column: str | None = None,
    labels: int | None = None,
) -> Topics:
    """Topics from anything with columns: a Hugging Face ``datasets.Dataset``, a data frame, a mapping of lists.

    Args:
        dataset: one row a topic.
        title_column: titles.
        label_column: lists of further labels; None for titles alone.
        split_column: ``"train"`` or ``"val"``; None to have the split drawn.
        labels: how many labels a title may have, its own text included; None for all.

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
    for row, (title, own) in enumerate(zip(titles, texts)):
        if not isinstance(title, str):
            raise InterpToolkitError(f"row {row} of the data set: expected a text in {title_column!r}, got {title!r}")
        if isinstance(own, str) or not isinstance(own, Iterable) or not all(isinstance(x, str) for x in own):
            raise InterpToolkitError(
                f"row {row} of the data set: expected a list of texts in {label_column!r}, got {own!r}"
            )
    return _topics(titles, texts, splits, labels)


def read_titles(path: str | Path) -> tuple[list[str], list[str] | None]:
    """Titles, and their splits where every row has one, from a file; see `read_topics`."""
    topics = read_topics(path, labels=1)
    return topics.titles, topics.splits


def _topics(titles: list[str], texts: list[Any], splits: list[Any], most: int | None) -> Topics:
    if most is not None and most < 1:
        raise InterpToolkitError(f"expected at least 1 for labels, since the title is one, got {most}")
    labels = []
    for title, own in zip(titles, texts):
        first: dict[str, str] = {}
        for text in (title, *own):
            first.setdefault(text.strip().lower(), text)
        labels.append(tuple(text for text in first.values() if text.strip())[:most])
    return Topics(titles, labels, splits if titles and all(splits) else None)
