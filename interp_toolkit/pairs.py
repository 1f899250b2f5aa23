"""Vector-label pairs: what adapters are trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_folder
from interp_toolkit.sites import Site

_VECTORS, _LABELS, _ORIGIN = "vectors.safetensors", "labels.parquet", "origin.json"


@dataclass(frozen=True, eq=False)
class VectorLabelPairs:
    """Vectors with the labels given to them, several a vector, and where they came from.

    Vectors are stored as the adapter receives them: centred where ``mean`` says so.

    Attributes:
        vectors: float32, one row a vector.
        labels: for each vector its labels, at least one.
        splits: for each vector ``"train"`` or ``"val"``; all its labels fall on that side.
        site: where the vectors were read; None for directions of no site.
        mean: what was taken off raw vectors to centre them, or None.
        origin: further provenance, as strings: model, revision, source, prompt.

    Raises:
        InterpToolkitError: counts that differ, a row of NaN or zeros, a vector without a label, an empty label; the
            text names the row.

    Example:
        >>> pairs = VectorLabelPairs.build(vectors, [["cat", "feline"], ["dog"]], val_fraction=0.1, seed=0)
        >>> pairs.split("train").examples
    """

    vectors: Float[Tensor, "n d_model"]
    labels: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    site: Site | None = None
    mean: Float[Tensor, " d_model"] | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.vectors)
        if self.vectors.ndim != 2 or len(self.labels) != n or len(self.splits) != n:
            raise InterpToolkitError(
                f"expected as many vectors as lists of labels and splits, got vectors of shape "
                f"{tuple(self.vectors.shape)}, {len(self.labels)} lists of labels and {len(self.splits)} splits"
            )
        if bad := _first(~torch.isfinite(self.vectors).all(1)):
            raise InterpToolkitError(f"vector {bad[0]} holds NaN or infinity; leave it out")
        if bad := _first(self.vectors.abs().amax(1) == 0 if n else torch.zeros(0)):
            raise InterpToolkitError(f"vector {bad[0]} is zero and has no direction; leave it out")
        for i, (labels, split) in enumerate(zip(self.labels, self.splits)):
            if isinstance(labels, str) or not labels or not all(isinstance(x, str) and x.strip() for x in labels):
                raise InterpToolkitError(f"vector {i} needs at least one label and no empty one, got {labels!r}")
            if split not in ("train", "val"):
                raise InterpToolkitError(f"vector {i} has split {split!r}; expected 'train' or 'val'")

    @classmethod
    def build(
        cls,
        vectors: Tensor,
        labels: Sequence[str | Sequence[str]],
        *,
        splits: Sequence[str] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        site: Site | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> VectorLabelPairs:
        """Pairs from vectors and labels; a single text counts as a list of one.

        Without ``splits``, ``val_fraction`` of the vectors is drawn by ``seed``: the same seed, the same split.
        """
        if splits is None:
            if not 0 <= val_fraction < 1:
                raise InterpToolkitError(f"expected a val_fraction from 0 up to 1, got {val_fraction}")
            held = np.random.default_rng(seed).permutation(len(vectors))[: round(val_fraction * len(vectors))]
            chosen = np.full(len(vectors), "train", dtype=object)
            chosen[held] = "val"
            splits = chosen.tolist()
        grouped = tuple((x,) if isinstance(x, str) else tuple(x) for x in labels)
        return cls(vectors.float(), grouped, tuple(splits), site, mean, dict(origin or {}))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def d_model(self) -> int:
        """Width of the vectors."""
        return self.vectors.shape[1]

    @property
    def examples(self) -> list[tuple[int, str]]:
        """Every (row, label): what one epoch passes over."""
        return [(i, label) for i, labels in enumerate(self.labels) for label in labels]

    def take(self, rows: Sequence[int]) -> VectorLabelPairs:
        """These rows, in this order."""
        index = torch.tensor(list(rows), dtype=torch.long)
        labels, splits = tuple(self.labels[i] for i in rows), tuple(self.splits[i] for i in rows)
        return VectorLabelPairs(self.vectors[index], labels, splits, self.site, self.mean, self.origin)

    def split(self, name: str) -> VectorLabelPairs:
        """The rows of one side, ``"train"`` or ``"val"``."""
        return self.take([i for i, split in enumerate(self.splits) if split == name])

    def save(self, folder: str | Path) -> None:
        """Write a folder (safetensors, parquet, JSON), whole or not at all."""
        tensors = {"vectors": self.vectors.contiguous(), **({} if self.mean is None else {"mean": self.mean})}
        origin = dict(site=str(self.site) if self.site else None, origin=dict(self.origin))
        with whole_folder(Path(folder)) as draft:
            save_file(tensors, draft / _VECTORS)
            table = pd.DataFrame(dict(labels=[list(x) for x in self.labels], split=list(self.splits)))
            table.to_parquet(draft / _LABELS)
            (draft / _ORIGIN).write_text(json.dumps(origin, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: str | Path) -> VectorLabelPairs:
        """Read a folder that `save` wrote.

        Raises:
            FileFormatError: missing or damaged.
        """
        folder = Path(folder)
        try:
            tensors = load_file(folder / _VECTORS)
            table = pd.read_parquet(folder / _LABELS)
            described = json.loads((folder / _ORIGIN).read_text())
            labels = tuple(tuple(map(str, x)) for x in table["labels"])
            site = Site.parse(described["site"]) if described["site"] else None
            return cls(
                tensors["vectors"], labels, tuple(table["split"]), site, tensors.get("mean"), described["origin"]
            )
        except FileNotFoundError as error:
            raise FileFormatError(f"expected a folder of vector-label pairs at {folder}: {error}") from None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise FileFormatError(f"the vector-label pairs at {folder} are damaged: {error}") from error


def _first(mask: Tensor) -> list[int]:
    return mask.nonzero()[:1].flatten().tolist()
