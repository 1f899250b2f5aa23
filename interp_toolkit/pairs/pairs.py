"""`VectorLabelPairs`, and the ways to make them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_folder
from interp_toolkit.pairs import checks, folder, mixing
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Place, PlaceLike, parse_place
from interp_toolkit.tables import escaped, html_table
from interp_toolkit.torch_defaults import plain_defaults

_FACE_ROWS = 10


@dataclass(frozen=True, eq=False)
class VectorLabelPairs:
    """Vectors with the labels given to them, several a vector, and where they came from.

    Made by `build`, `write`, `load`, `mix`, `pairs_from_frame` and `pairs_from_json`. Vectors are as the adapter
    receives them: centred where ``mean`` says so. They stay where they are stored, in memory or in a file.

    Attributes:
        stored: the vectors, wherever they are.
        labels: for each vector its labels, at least one and none twice.
        splits: for each vector ``"train"`` or ``"val"``; all its labels fall on that side.
        weights: for each vector how much its examples count in the loss, above 0.
        site: where the vectors were read, at one site or a stack of them; None for directions of no site.
        mean: what was taken off raw vectors to centre them, or None.
        sources: provenance of each source, as strings: model, revision, source, prompt.
        source_of: for each vector the number of its source.

    Example:
        >>> pairs = VectorLabelPairs.build(vectors, [["cat", "feline"], ["dog"]], val_fraction=0.1, seed=0)
        >>> pairs.split("train").examples
    """

    stored: StoredRows
    labels: checks.Labels
    splits: tuple[str, ...]
    weights: tuple[float, ...]
    site: Place | None
    mean: Float[Tensor, " width"] | None
    sources: tuple[Mapping[str, str], ...]
    source_of: tuple[int, ...]

    @classmethod
    @plain_defaults()
    def build(
        cls,
        vectors: Tensor,
        labels: Sequence[str | Sequence[str]],
        *,
        splits: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> VectorLabelPairs:
        """Pairs from vectors, which are not copied, and labels; a single text counts as a list of one.

        Without ``splits``, ``val_fraction`` of the vectors is drawn by ``seed``: the same seed, the same split. The
        same label for several vectors is fine.

        Raises:
            InterpToolkitError: counts that differ, a row of NaN or zeros, a vector without a label, an empty label or
                the same twice, a weight that is not above 0; the text names the row.
        """
        checks.check_shape(vectors, labels)
        stored = StoredRows.of(vectors.detach().cpu())
        checks.check_values(stored)
        splits = checks.draw_splits(len(stored), val_fraction, seed) if splits is None else splits
        return cls.assemble(stored, checks.group_labels(labels), splits, weights, site, mean, origin)

    @classmethod
    def write(
        cls,
        path: str | Path,
        blocks: Iterable[tuple[Tensor, Sequence[str | Sequence[str]]]],
        *,
        splits: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> VectorLabelPairs:
        """Write a folder that may be larger than memory, from blocks of (vectors, labels), and load it.

        A block is dropped when it is written; splits and weights are those of all blocks together. The rest as in
        `build`; the folder is written whole or not at all.

        Example:
            >>> blocks = ((sae.W_dec[i : i + 4096], labels[i : i + 4096]) for i in range(0, len(labels), 4096))
            >>> pairs = VectorLabelPairs.write("pairs", blocks)
        """
        labels: list[tuple[str, ...]] = []

        def checked() -> Iterator[Tensor]:
            for vectors, own in blocks:
                grouped = checks.group_labels(own)
                checks.check_shape(vectors, grouped, f" in the block from row {len(labels)} on")
                checks.check_values(StoredRows.of(vectors.detach().cpu()), start=len(labels))
                checks.check_labels(grouped, start=len(labels))
                labels.extend(grouped)
                yield vectors

        with whole_folder(Path(path)) as draft:
            count = folder.write_vectors(draft / folder.VECTORS, checked(), mean)
            stored = StoredRows.of(folder.map_vectors(draft / folder.VECTORS)[0])
            splits = checks.draw_splits(count, val_fraction, seed) if splits is None else splits
            cls.assemble(stored, tuple(labels), splits, weights, site, mean, origin)._write_table(draft)
        return cls.load(path)

    @classmethod
    @plain_defaults()
    def mix(cls, groups: Sequence[tuple[VectorLabelPairs, float]], seed: int = 0) -> VectorLabelPairs:
        """Pairs of several sources, each with its share of an epoch's (vector, label) examples.

        An epoch passes once over the source that limits it; of the others, as many training examples as their ratios
        ask for are drawn by ``seed``, once and for all epochs (arXiv 2602.10352's code draws them anew each epoch; mix
        with another seed for another draw). Ratios need not add up to one. All validation rows are kept. Vectors are
        not copied.

        Directions that were read nowhere (no site, no mean) mix with vectors that were read and centred: site and mean
        of those that have them are kept. Sites, means and models that differ are refused.

        Raises:
            InterpToolkitError: ratios or sources that cannot be mixed; the text names them.

        Example:
            >>> VectorLabelPairs.mix([(topics, 0.7), (decoder_rows, 0.3)], seed=0)
        """
        return mixing.mix(groups, seed)

    @classmethod
    def assemble(
        cls,
        stored: StoredRows,
        labels: checks.Labels,
        splits: Sequence[str],
        weights: Sequence[float] | None = None,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
        *,
        name: checks.Name = checks.vector_number,
    ) -> VectorLabelPairs:
        """Pairs of one source from vectors whose values were checked; the other ways of making pairs end here."""
        weights = [1.0] * len(stored) if weights is None else weights
        if not len(stored) == len(labels) == len(splits) == len(weights):
            raise InterpToolkitError(
                f"expected as many vectors as lists of labels, splits and weights, got {len(stored)} vectors, "
                f"{len(labels)} lists of labels, {len(splits)} splits and {len(weights)} weights"
            )
        checks.check_labels(labels, name)
        checks.check_splits_and_weights(splits, weights, name)
        checks.check_mean(mean, stored.width)
        return cls(
            stored=stored,
            labels=labels,
            splits=tuple(splits),
            weights=tuple(map(float, weights)),
            site=None if site is None else parse_place(site),
            mean=None if mean is None else mean.detach().float().cpu(),
            sources=(dict(origin or {}),),
            source_of=(0,) * len(stored),
        )

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        train = self.splits.count("train")
        where = f", read at {self.site}" if self.site else ""
        centred = "" if self.mean is None else ", centred"
        return (
            f"VectorLabelPairs: {len(self):,} vectors of width {self.width:,}, "
            f"{train:,} to train and {len(self) - train:,} to validate{where}{centred}"
        )

    def _repr_html_(self) -> str:
        first = zip(self.labels[:_FACE_ROWS], self.splits, self.weights)
        rows = [(str(i), " · ".join(labels), split, f"{weight:g}") for i, (labels, split, weight) in enumerate(first)]
        more = f"<small>{len(self) - len(rows):,} more</small>" if len(self) > len(rows) else ""
        table = html_table(["vector", "labels", "split", "weight"], rows, ["vector", "weight"])
        return f"<p>{escaped(repr(self))}</p>{table}{more}"

    @property
    def width(self) -> int:
        """Width of the vectors: d_model for each site."""
        return self.stored.width

    @property
    def examples(self) -> list[tuple[int, str]]:
        """Every (row, label): what one epoch passes over."""
        return [(i, label) for i, labels in enumerate(self.labels) for label in labels]

    @property
    def vectors(self) -> Float[Tensor, "n width"]:
        """All vectors, float32, copied into memory; `gather` fetches some."""
        return self.stored.gather(range(len(self)))

    @property
    def origin(self) -> dict[str, str]:
        """Provenance of all sources together; where they differ, their values with a plus between."""
        return mixing.joined_origin(self.sources)

    def gather(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "rows width"]:
        """The vectors of these rows, float32, on the CPU; nothing else is read."""
        return self.stored.gather(rows)

    def take(self, rows: Sequence[int]) -> VectorLabelPairs:
        """These rows, in this order; the vectors are shared, not copied."""
        return replace(
            self,
            stored=self.stored.take(rows),
            labels=tuple(self.labels[i] for i in rows),
            splits=tuple(self.splits[i] for i in rows),
            weights=tuple(self.weights[i] for i in rows),
            source_of=tuple(self.source_of[i] for i in rows),
        )

    def split(self, name: str) -> VectorLabelPairs:
        """The rows of one side, ``"train"`` or ``"val"``."""
        return self.take([i for i, split in enumerate(self.splits) if split == name])

    def save(self, path: str | Path) -> None:
        """Write a folder (safetensors, parquet, JSON), whole or not at all, a block of vectors at a time."""
        with whole_folder(Path(path)) as draft:
            folder.write_vectors(draft / folder.VECTORS, self.stored.blocks(), self.mean, self.width)
            self._write_table(draft)

    def _write_table(self, draft: Path) -> None:
        told = dict(
            labels=[list(x) for x in self.labels],
            split=list(self.splits),
            weight=list(self.weights),
            source=list(self.source_of),
        )
        site = None if self.site is None else str(self.site)
        folder.write_table(draft, pd.DataFrame(told), site, self.mean is not None, [dict(x) for x in self.sources])

    @classmethod
    @plain_defaults()
    def load(cls, path: str | Path) -> VectorLabelPairs:
        """Open a folder that `save` or `write` wrote; vectors are read when they are used, so it may exceed memory.

        Raises:
            FileFormatError: missing or damaged.
        """
        held = folder.read_folder(Path(path).expanduser())
        try:
            labels = tuple(tuple(map(str, x)) for x in held.table["labels"])
            splits, weights = held.table["split"].tolist(), held.table["weight"].tolist()
            made = cls.assemble(StoredRows.of(held.vectors), labels, splits, weights, held.origin["site"], held.mean)
            sources, source_of = tuple(held.origin["sources"]), tuple(held.table["source"].tolist())
            if wrong := [x for x in source_of if type(x) is not int or not 0 <= x < len(sources)]:
                raise ValueError(f"expected the number of one of {len(sources)} sources, got {wrong[0]!r}")
            return replace(made, sources=sources, source_of=source_of)
        except (ValueError, TypeError, KeyError) as error:
            raise FileFormatError(f"the vector-label pairs at {path} are damaged: {error}") from error
