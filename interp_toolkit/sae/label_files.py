"""Labels of SAE features, and the forms of files in which they are published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json, read_json_lines
from interp_toolkit.pairs import published
from interp_toolkit.tables import brief_repr

_COLUMNS = ["feature", "label", "explainer", "split"]
# No SAE has more; greater numbers are damage, and would take memory that is not there.
_MOST_FEATURES, _MOST_DIGITS = 2**40, 20
_KINDS = "a folder of *.jsonl or *.jsonl.gz, a JSON list of objects with 'index' and 'description', or {index: text}"


@dataclass(frozen=True, eq=False)
class SAELabels:
    """Labels of an SAE's features, several per feature, and who wrote them.

    Attributes:
        table: one row per label: ``feature`` (its number), ``label``, ``explainer`` (empty where unknown), ``split``
            (``"train"``, ``"val"``, or None where the source has none). No feature has a text twice.
        origin: where they came from, as strings.
    """

    table: pd.DataFrame
    origin: Mapping[str, str] = field(default_factory=dict)

    __repr__ = brief_repr

    @classmethod
    def from_dict(cls, labels: Mapping[int, str | Sequence[str]], explainer: str = "") -> SAELabels:
        """Labels from a mapping of feature numbers to texts, one or several.

        Args:
            labels: by number of the feature.
            explainer: who wrote them.

        Raises:
            InterpToolkitError: an empty text, or a key that is no whole number.

        Example:
            >>> labels = SAELabels.from_dict({3: "cats", 5: ["dogs", "pets"]}, explainer="tokens")
        """
        rows = []
        for key, value in labels.items():
            several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
            texts = list(value) if several else [value]
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise InterpToolkitError(f"feature {key} needs at least one label and no empty one, got {value!r}")
            rows += [(_index(key, f"feature {key!r}"), text, explainer, None) for text in texts]
        return cls(_table(rows), {"explainer": explainer} if explainer else {})

    @classmethod
    def of(cls, labels: Mapping[int, str | Sequence[str]], explainer: str = "") -> SAELabels:
        """Deprecated name of `from_dict`."""
        warn_renamed("SAELabels.of", "SAELabels.from_dict")
        return cls.from_dict(labels, explainer)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def features(self) -> tuple[int, ...]:
        """Numbers of the features that have labels, in order."""
        return tuple(sorted({int(number) for number in self.table["feature"]}))

    def by_feature(self) -> dict[int, tuple[str, ...]]:
        """For each feature its labels."""
        groups = self.table.groupby("feature", sort=True)["label"]
        return {int(number): tuple(texts) for number, texts in groups}  # type: ignore[arg-type]

    def write(self, path: str | Path) -> None:
        """Write a JSON list in the form of a Neuronpedia export, whole or not at all; `labels` reads it."""
        rows = []
        for number, label, explainer, split in self.table[_COLUMNS].itertuples(index=False):
            row = dict(index=int(number), description=label, explanationModelName=explainer)
            rows.append(row if split is None else {**row, "split": split})
        with whole_file(Path(path)) as draft:
            draft.write_text(json.dumps(rows, ensure_ascii=False, indent=0), encoding="utf-8")


def labels(source: str | Path | Mapping[int, str | Sequence[str]]) -> SAELabels:
    """Read labels of an SAE's features from a file, a folder, or a mapping.

    Args:
        source: a Neuronpedia export (a folder of ``*.jsonl`` or ``*.jsonl.gz``, one such file, or a JSON list: objects
            with ``index`` and ``description``, and perhaps ``explanationModelName``, ``modelId``, ``layer``);
            a JSON object or a mapping ``{index: text or texts}``; or the published vector-label JSON with one section.
            Any JSON file may be gzipped. Rows of an export without a description are left out, and counted in
            ``origin``.

    Raises:
        FileFormatError: missing, cut off, empty, or of another format; the text names file and line.
        InterpToolkitError: an export of several SAEs, or rows that cannot be used.

    Example:
        >>> labels("gemma-2-2b/20-gemmascope-res-16k/explanations").by_feature()[7]
    """
    if isinstance(source, Mapping):
        return SAELabels.from_dict(source)
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")))
        if not files:
            raise FileFormatError(f"expected *.jsonl or *.jsonl.gz in the folder of labels {path}, and there are none")
        return _export([row for file in files for row in read_json_lines(file, _KINDS)], path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _export(list(read_json_lines(path, _KINDS)), path)
    data = read_json(path, _KINDS)
    if isinstance(data, dict):
        try:
            numbered = SAELabels.from_dict({_index(key, f"key {key!r}"): texts for key, texts in data.items()})
        except InterpToolkitError as error:
            raise FileFormatError(f"{path}: {error}") from error
        return SAELabels(numbered.table, {"labels": path.name})
    if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
        raise FileFormatError(f"expected {_KINDS} at {path}, got {str(data)[:60]}")
    if "vectors" in data[0]:
        return _published(data, path)
    return _export([(f"{path}, row {number}", row) for number, row in enumerate(data)], path)


def _export(rows: Sequence[tuple[str, dict[str, Any]]], path: Path) -> SAELabels:
    """Labels of rows as Neuronpedia exports them, each with what an error calls it."""
    labelled, sources, without = [], set(), 0
    for name, row in rows:
        if "index" not in row or "description" not in row:
            raise FileFormatError(f"{name}: expected 'index' and 'description', got {sorted(row)}")
        sources.add((str(row.get("modelId") or ""), str(row.get("layer") or "")))
        text = row["description"]
        if text is None or (isinstance(text, str) and not text.strip()):
            without += 1
            continue
        if not isinstance(text, str):
            raise FileFormatError(f"{name}: expected a text for 'description', got {text!r}")
        if not isinstance(row.get("split"), (str, type(None))):
            raise FileFormatError(f"{name}: expected 'train' or 'val' for 'split', got {row['split']!r:.60}")
        explainer = str(row.get("explanationModelName") or row.get("typeName") or "")
        labelled.append((_index(row["index"], name), text, explainer, row.get("split")))
    if len(sources) > 1:
        names = ", ".join(sorted("/".join(source) for source in sources))
        raise InterpToolkitError(f"{path} holds labels of several SAEs ({names}); give those of one")
    if not labelled:
        raise FileFormatError(f"expected labels in {path}, and there are none")
    ((model, layer),) = sources
    origin = {"labels": path.name}
    if model and layer:
        origin["neuronpedia_id"] = f"{model}/{layer}"
    if without:
        origin["without_description"] = str(without)
    return SAELabels(_table(labelled), origin)


def _published(data: list[dict[str, Any]], path: Path) -> SAELabels:
    if len(data) > 1:
        raise InterpToolkitError(
            f"{path} has {len(data)} sections of vector-label pairs; labels of one SAE are one section: take the "
            f"others out, or use VectorLabelPairs.from_json, which reads several"
        )
    rows = data[0]["vectors"]
    numbers = [row.get("index") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    count = max((number for number in numbers if type(number) is int), default=0) + 1
    if count > _MOST_FEATURES:
        raise FileFormatError(f"{path}: expected numbers of features, got {count - 1}, which no SAE has")
    # What checks this format wants the matrix that the indices count in: a row of ones stands in for all.
    (section,) = published.read_sections(path, torch.ones(1, 1).expand(max(count, 1), 1))
    explainer = section.origin.get("source", "")
    labelled = [
        (number, text, explainer, split)
        for number, texts, split in zip(section.rows.index.tolist(), section.labels, section.splits)
        for text in texts
    ]
    if not labelled:
        raise FileFormatError(f"expected labels in {path}, and there are none")
    named = section.origin.get("dataset_name", "")
    return SAELabels(_table(labelled), {"labels": path.name, **({"dataset": named} if named else {})})


def _table(rows: Sequence[tuple[int, str, str, str | None]]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=_COLUMNS).astype({"feature": "int64", "split": object})
    return table.drop_duplicates(["feature", "label"], ignore_index=True)


def _index(value: Any, name: str) -> int:
    number = -1
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _MOST_DIGITS:
        number = int(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
    if not 0 <= number < _MOST_FEATURES:
        raise FileFormatError(f"{name}: expected the number of a feature from 0, got {value!r:.60}")
    return number
