"""`VectorLabelPairs`: vectors, their labels, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_folder
from interp_toolkit.pairs import checks, folder, mixing
from interp_toolkit.pairs.constructors import PairConstructors
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Place, PlaceLike, parse_place
from interp_toolkit.tables import escaped, html_table
from interp_toolkit.torch_defaults import plain_defaults

_SHOWN_ROWS = 10


@dataclass(frozen=True, eq=False)
class VectorLabelPairs(PairConstructors):
    """Vectors with their labels, several per vector, and where they came from.

    Made by `from_tensors`, `from_batches`, `from_frame`, `from_json`, `concat` and `load`. Vectors are as the adapter
    receives them: centred where ``mean`` says so. They stay where they are stored, in memory or in a file.

    Attributes:
        stored: the vectors, wherever they are.
        labels: for each vector its labels, at least one and none twice.
        splits: for each vector ``"train"`` or ``"val"``; all its labels fall on that side.
        weights: for each vector how much its examples count in the loss, above 0.
        site: where the vectors were read, at one site or a stack of them; None for directions of no site.
        mean: what was subtracted from raw vectors to centre them, or None.
        sources: provenance of each source, as strings: model, revision, source, prompt.
        source_of: for each vector the number of its source.

    Example:
        >>> pairs = VectorLabelPairs.from_tensors(vectors, [["cat", "feline"], ["dog"]], val_fraction=0.1, seed=0)
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
    def concat(
        cls, pairs: Sequence[VectorLabelPairs], ratios: Sequence[float] | None = None, seed: int = 0
    ) -> VectorLabelPairs:
        """Put pairs of several sources together, all of each, or by the share of each in an epoch's examples.

        With ratios, an epoch passes once over the source that limits it; of the others, as many training (vector,
        label) examples as their ratios ask for are drawn by ``seed``, once and for all epochs (arXiv 2602.10352's code
        draws them anew each epoch; use another seed for another draw). All validation rows are kept. Vectors are not
        copied.

        Directions of no site and no mean go with vectors that were read and centred: site and mean of those that have
        them are kept. Sites, means and models that differ are refused.

        Args:
            pairs: the sources.
            ratios: the share of each, which need not add up to one; by default all examples of each.
            seed: of the draw.

        Returns:
            The pairs, source by source.

        Raises:
            InterpToolkitError: ratios or sources that do not go together; the text names them.

        Example:
            >>> VectorLabelPairs.concat([topics, decoder_rows], ratios=[0.7, 0.3], seed=0)
        """
        if not pairs or (ratios is not None and len(ratios) != len(pairs)):
            got = f"{len(pairs)} sources" + ("" if ratios is None else f" and {len(ratios)} ratios")
            raise InterpToolkitError(f"expected at least one source to mix, and a ratio for each, got {got}")
        counts = [sum(map(len, source.split("train").labels)) for source in pairs]
        counts = counts if ratios is None else mixing.counts_by_ratio(counts, ratios)
        if len(widths := {source.width for source in pairs}) > 1:
            raise InterpToolkitError(f"expected vectors of one width to mix, got {sorted(widths)}")
        mixing.check_models([source.origin for source in pairs])
        site, mean = mixing.agreed_site([x.site for x in pairs]), mixing.agreed_mean([x.mean for x in pairs])
        drawn = []
        for number, (source, count) in enumerate(zip(pairs, counts)):
            labels = mixing.draw_examples(source.labels, source.splits, count, (seed, number))
            drawn.append(replace(source.take(list(labels)), labels=tuple(labels.values())))
        starts = [sum(len(source.sources) for source in drawn[:number]) for number in range(len(drawn))]
        return cls(
            stored=StoredRows.concat([source.stored for source in drawn]),
            labels=tuple(x for source in drawn for x in source.labels),
            splits=tuple(x for source in drawn for x in source.splits),
            weights=tuple(x for source in drawn for x in source.weights),
            site=site,
            mean=mean,
            sources=tuple(x for source in drawn for x in source.sources),
            source_of=tuple(start + x for start, source in zip(starts, drawn) for x in source.source_of),
        )

    @classmethod
    def mix(cls, groups: Sequence[tuple[VectorLabelPairs, float]], seed: int = 0) -> VectorLabelPairs:
        """Put pairs together by their ratios, by the old name of `concat`."""
        warn_renamed("VectorLabelPairs.mix", "VectorLabelPairs.concat")
        return cls.concat([pairs for pairs, _ in groups], [ratio for _, ratio in groups], seed)

    @classmethod
    @plain_defaults()
    def load(cls, path: str | Path) -> VectorLabelPairs:
        """Open a folder that `save` or `from_batches` wrote; vectors are read when needed, so it may exceed memory.

        Raises:
            FileFormatError: missing or damaged.
        """
        with folder.naming_damage(path := Path(path).expanduser()):
            x = folder.read_folder(path)
            rows, sources = StoredRows.from_matrix(x.vectors), x.sources
            return cls._from_rows(rows, x.labels, x.splits, x.weights, x.site, x.mean, sources, x.source_of)

    @classmethod
    def _from_rows(
        cls,
        stored: StoredRows,
        labels: checks.Labels,
        splits: Sequence[str],
        weights: Sequence[float] | None = None,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        sources: Sequence[Mapping[str, str]] = ({},),
        source_of: Sequence[int] | None = None,
        name: checks.Name = checks.vector_number,
    ) -> VectorLabelPairs:
        """Pairs from vectors whose values were checked, by default of one source; errors call a row ``name(row)``."""
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
            sources=tuple(map(dict, sources)),
            source_of=(0,) * len(stored) if source_of is None else tuple(source_of),
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
        first = zip(self.labels[:_SHOWN_ROWS], self.splits, self.weights)
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
        """All vectors, float32, copied into memory; `gather` reads some."""
        return self.stored.gather(range(len(self)))

    @property
    def origin(self) -> dict[str, str]:
        """Provenance of all sources together; where they differ, their values with a plus between."""
        return mixing.joined_origin(self.sources)

    def gather(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "rows width"]:
        """Read the vectors of these rows, float32, on the CPU; nothing else is read."""
        return self.stored.gather(rows)

    def take(self, rows: Sequence[int]) -> VectorLabelPairs:
        """Choose these rows, in this order; the vectors are shared, not copied."""
        return replace(
            self,
            stored=self.stored.take(rows),
            labels=tuple(self.labels[i] for i in rows),
            splits=tuple(self.splits[i] for i in rows),
            weights=tuple(self.weights[i] for i in rows),
            source_of=tuple(self.source_of[i] for i in rows),
        )

    def split(self, name: str) -> VectorLabelPairs:
        """Choose the rows of one side, ``"train"`` or ``"val"``."""
        return self.take([i for i, split in enumerate(self.splits) if split == name])

    def save(self, path: str | Path) -> None:
        """Write a folder (safetensors, parquet, JSON), whole or not at all, a block of vectors at a time."""
        with whole_folder(Path(path)) as draft:
            folder.write_vectors(draft / folder.VECTORS, self.stored.blocks(), self.mean, self.width)
            self._write_table(draft)

    def _write_table(self, draft: Path) -> None:
        columns = dict(
            labels=[list(x) for x in self.labels],
            split=list(self.splits),
            weight=list(self.weights),
            source=list(self.source_of),
        )
        site = None if self.site is None else str(self.site)
        folder.write_table(draft, pd.DataFrame(columns), site, self.mean is not None, [dict(x) for x in self.sources])
