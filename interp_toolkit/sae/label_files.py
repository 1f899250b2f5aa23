"""Labels of SAE features: reading the forms in which they are published, and joining them with decoder rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.json_lines import read_json, read_json_lines
from interp_toolkit.pairs import VectorLabelPairs, published
from interp_toolkit.sae.directions import sae_digest, sae_facts, sae_vectors
from interp_toolkit.sae.sae_files import is_folder, load_sae, read_firing
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

_COLUMNS = ["feature", "label", "explainer", "split"]
# No SAE has more; greater numbers are damage, and would take memory that is not there.
_MOST_FEATURES, _MOST_DIGITS = 2**40, 20
_KINDS = "a folder of *.jsonl or *.jsonl.gz, a JSON list of objects with 'index' and 'description', or {index: text}"


@dataclass(frozen=True, eq=False)
class SAELabels:
    """Labels of an SAE's features, several a feature, and who gave them.

    Attributes:
        table: one row a label: ``feature`` (its number), ``label``, ``explainer`` (empty where unknown), ``split``
            (``"train"``, ``"val"``, or None where the source has none). No feature has a text twice.
        origin: where they came from, as strings.
    """

    table: pd.DataFrame
    origin: Mapping[str, str] = field(default_factory=dict)

    __repr__ = brief_repr

    @classmethod
    def of(cls, labels: Mapping[int, str | Sequence[str]], explainer: str = "") -> SAELabels:
        """Labels from a mapping of feature numbers to texts, one or several.

        Raises:
            InterpToolkitError: an empty text, or a key that is no whole number.

        Example:
            >>> labels = SAELabels.of({3: "cats", 5: ["dogs", "pets"]}, explainer="tokens")
        """
        rows = []
        for key, own in labels.items():
            several = isinstance(own, Iterable) and not isinstance(own, (str, bytes, Mapping))
            texts = list(own) if several else [own]
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise InterpToolkitError(f"feature {key} needs at least one label and no empty one, got {own!r}")
            rows += [(_index(key, f"feature {key!r}"), text, explainer, None) for text in texts]
        return cls(_table(rows), {"explainer": explainer} if explainer else {})

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
        """Write a JSON list in the form of a Neuronpedia export, whole or not at all; `read_labels` reads it."""
        rows = []
        for number, label, explainer, split in self.table[_COLUMNS].itertuples(index=False):
            row = dict(index=int(number), description=label, explanationModelName=explainer)
            rows.append(row if split is None else {**row, "split": split})
        with whole_file(Path(path)) as draft:
            draft.write_text(json.dumps(rows, ensure_ascii=False, indent=0), encoding="utf-8")


def read_labels(source: str | Path | Mapping[int, str | Sequence[str]]) -> SAELabels:
    """Labels of an SAE's features from a file, a folder, or a mapping.

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
        >>> labels = read_labels("gemma-2-2b/20-gemmascope-res-16k/explanations")
        >>> labels.by_feature()[7]
    """
    if isinstance(source, Mapping):
        return SAELabels.of(source)
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
            held = SAELabels.of({_index(key, f"key {key!r}"): own for key, own in data.items()})
        except InterpToolkitError as error:
            raise FileFormatError(f"{path}: {error}") from error
        return SAELabels(held.table, {"labels": path.name})
    if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
        raise FileFormatError(f"expected {_KINDS} at {path}, got {str(data)[:60]}")
    if "vectors" in data[0]:
        return _published(data, path)
    return _export([(f"{path}, row {number}", row) for number, row in enumerate(data)], path)


@plain_defaults()
def sae_pairs(
    sae: Any,
    labels: SAELabels | Mapping[int, str | Sequence[str]] | str | Path,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    firing: Float[Tensor, " features"] | None = None,
) -> VectorLabelPairs:
    """Pairs of an SAE's decoder directions and their labels, split by feature.

    They are directions, read at no site and centred by no mean. Dead features are left out, and counted in the origin.

    Args:
        sae: an SAE, or whatever `load_sae` takes without an id.
        labels: `SAELabels`, or what `read_labels` takes.
        val_fraction: share of the features that is held out, where the labels bring no split.
        seed: of that draw.
        firing: as `sae_vectors` takes it.

    Raises:
        InterpToolkitError: labels of another SAE, of features that do not exist, or of none that lives.

    Example:
        >>> pairs = sae_pairs(sae, read_labels("explanations"))
    """
    if firing is None and isinstance(sae, (str, Path)) and is_folder(sae):
        firing = read_firing(sae)
    sae = load_sae(sae)
    held = labels if isinstance(labels, SAELabels) else read_labels(labels)
    facts = sae_facts(sae)
    if not len(held):
        raise InterpToolkitError("expected labels for at least one feature, got none")
    if wrong := [number for number in held.features if number >= facts.features]:
        raise InterpToolkitError(
            f"there are labels for feature {wrong[-1]}, and the SAE has {facts.features} features, numbered 0 to "
            f"{facts.features - 1}; are these the labels of another SAE?"
        )
    named = held.origin.get("neuronpedia_id")
    if named and facts.neuronpedia_id and named != facts.neuronpedia_id:
        raise InterpToolkitError(
            f"the labels are of {named} and the SAE is {facts.neuronpedia_id} on Neuronpedia; take the SAE's own"
        )
    found = sae_vectors(sae, held.features, firing=firing)
    alive = [row for row, dead in enumerate(found.dead.tolist()) if not dead]
    if not alive:
        raise InterpToolkitError(f"all {len(found)} features that have labels are dead; expected at least one alive")
    texts, sides = held.by_feature(), _splits(held)
    numbers = [found.index[row] for row in alive]
    explainers = sorted({name for name in held.table["explainer"] if name})
    origin = {
        "model": facts.model,
        "source": "SAE decoder rows",
        "hook_name": facts.writes_to,
        "sae": sae_digest(sae),
        "neuronpedia_id": facts.neuronpedia_id,
        "explainer": ", ".join(explainers),
        "dead_left_out": str(len(found) - len(alive)) if len(alive) < len(found) else "",
        **held.origin,
    }
    return VectorLabelPairs.build(
        found.vectors[torch.tensor(alive)],
        [tuple({text.strip(): text for text in texts[number]}.values()) for number in numbers],
        splits=None if sides is None else [sides[number] for number in numbers],
        val_fraction=val_fraction,
        seed=seed,
        origin={key: text for key, text in origin.items() if text},
    )


def _splits(held: SAELabels) -> dict[int, str] | None:
    """The side of each feature, or None where not every one has one."""
    if held.table["split"].isna().to_numpy().any():
        return None
    sides: dict[int, str] = {}
    for number, split in zip(held.table["feature"], held.table["split"]):
        if sides.setdefault(int(number), split) != split:
            raise InterpToolkitError(f"feature {number} has labels in both splits; a feature belongs to one")
    return sides


def _export(rows: Sequence[tuple[str, dict[str, Any]]], path: Path) -> SAELabels:
    """Labels of rows as Neuronpedia exports them, each with what an error calls it."""
    found, sources, without = [], set(), 0
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
        found.append((_index(row["index"], name), text, explainer, row.get("split")))
    if len(sources) > 1:
        told = ", ".join(sorted("/".join(source) for source in sources))
        raise InterpToolkitError(f"{path} holds labels of several SAEs ({told}); give those of one")
    if not found:
        raise FileFormatError(f"expected labels in {path}, and there are none")
    ((model, layer),) = sources
    origin = {"labels": path.name}
    if model and layer:
        origin["neuronpedia_id"] = f"{model}/{layer}"
    if without:
        origin["without_description"] = str(without)
    return SAELabels(_table(found), origin)


def _published(data: list[dict[str, Any]], path: Path) -> SAELabels:
    if len(data) > 1:
        raise InterpToolkitError(
            f"{path} has {len(data)} sections of vector-label pairs; labels of one SAE are one section: take the "
            f"others out, or use pairs_from_json, which reads several"
        )
    rows = data[0]["vectors"]
    numbers = [row.get("index") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    count = max((number for number in numbers if type(number) is int), default=0) + 1
    if count > _MOST_FEATURES:
        raise FileFormatError(f"{path}: expected numbers of features, got {count - 1}, which no SAE has")
    # What checks this format wants the matrix that the indices count in: a row of ones stands in for all.
    (section,) = published.read_sections(path, torch.ones(1, 1).expand(max(count, 1), 1))
    explainer = section.origin.get("source", "")
    found = [
        (number, text, explainer, split)
        for number, own, split in zip(section.rows.index.tolist(), section.labels, section.splits)
        for text in own
    ]
    if not found:
        raise FileFormatError(f"expected labels in {path}, and there are none")
    named = section.origin.get("dataset_name", "")
    return SAELabels(_table(found), {"labels": path.name, **({"dataset": named} if named else {})})


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
