"""The ways to make vector-label pairs from what others have: tensors, batches of them, data frames, published JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from torch import Tensor

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_folder
from interp_toolkit.pairs import checks, folder, published, table
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import PlaceLike
from interp_toolkit.torch_defaults import plain_defaults

P = TypeVar("P", bound="PairConstructors")


class PairConstructors:
    """Constructors of `VectorLabelPairs`, which has the fields."""

    @classmethod
    @plain_defaults()
    def from_tensors(
        cls: type[P],
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
    ) -> P:
        """Make pairs from vectors and labels. The same label for several vectors is fine.

        Args:
            vectors: [n, width], not copied.
            labels: for each vector a text or a list of texts.
            splits: for each vector ``"train"`` or ``"val"``; by default ``val_fraction`` of them is drawn by ``seed``.
            weights: for each vector how much it counts in the loss; by default 1.
            val_fraction: share of the vectors that is held out.
            seed: of that draw; the same seed, the same split.
            site: where the vectors were read.
            mean: what was subtracted from them, [width].
            origin: provenance: model, revision, source, prompt.

        Returns:
            The pairs, of one source.

        Raises:
            InterpToolkitError: counts that differ, a row of NaN or zeros, a vector without a label, an empty label or
                the same twice, a weight that is not above 0; the text names the row.
        """
        checks.check_shape(vectors, labels)
        stored = StoredRows.from_matrix(vectors.detach().cpu())
        checks.check_values(stored)
        splits = checks.draw_splits(len(stored), val_fraction, seed) if splits is None else splits
        return cls._from_rows(stored, checks.group_labels(labels), splits, weights, site, mean, [origin or {}])

    @classmethod
    @plain_defaults()
    def from_batches(
        cls: type[P],
        path: str | Path,
        batches: Iterable[tuple[Tensor, Sequence[str | Sequence[str]]]],
        *,
        splits: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> P:
        """Make pairs that may be larger than memory: write batches to a folder, one at a time, and open it.

        Args:
            path: the folder, written whole or not at all; `load` opens it again.
            batches: (vectors, labels) as `from_tensors` takes them.
            splits: of the vectors of all batches together.
            weights: likewise.
            val_fraction: as in `from_tensors`.
            seed: as in `from_tensors`.
            site: as in `from_tensors`.
            mean: as in `from_tensors`.
            origin: as in `from_tensors`.

        Returns:
            The pairs, whose vectors stay in the folder.

        Raises:
            InterpToolkitError: as `from_tensors`, and no batch, or batches of different widths.

        Example:
            >>> batches = ((sae.W_dec[i : i + 4096], labels[i : i + 4096]) for i in range(0, len(labels), 4096))
            >>> pairs = VectorLabelPairs.from_batches("pairs", batches)
        """
        labels: list[tuple[str, ...]] = []

        def checked() -> Iterator[Tensor]:
            for vectors, batch_labels in batches:
                grouped = checks.group_labels(batch_labels)
                checks.check_shape(vectors, grouped, f" in the block from row {len(labels)} on")
                checks.check_values(StoredRows.from_matrix(vectors.detach().cpu()), start=len(labels))
                checks.check_labels(grouped, start=len(labels))
                labels.extend(grouped)
                yield vectors

        with whole_folder(Path(path)) as draft:
            count = folder.write_vectors(draft / folder.VECTORS, checked(), mean)
            stored = StoredRows.from_matrix(folder.map_vectors(draft / folder.VECTORS)[0])
            splits = checks.draw_splits(count, val_fraction, seed) if splits is None else splits
            cls._from_rows(stored, tuple(labels), splits, weights, site, mean, [origin or {}])._write_table(draft)
        return cls.load(path)

    @classmethod
    @plain_defaults()
    def from_frame(
        cls: type[P],
        vectors: Tensor,
        frame: pd.DataFrame,
        label_column: str = "label",
        *,
        index_column: str | None = None,
        split_column: str | None = None,
        weight_column: str | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> P:
        """Make pairs from vectors and a data frame.

        Args:
            vectors: [n, width].
            frame: one row per vector, in order; or with ``index_column`` any number of rows per vector, and vectors
                that no row names are left out.
            label_column: texts, or lists of them.
            index_column: numbers of vectors, from 0.
            split_column: ``"train"`` or ``"val"``, the same in all rows of a vector.
            weight_column: weights, the same in all rows of a vector.
            val_fraction: as in `from_tensors`.
            seed: as in `from_tensors`.
            site: as in `from_tensors`.
            mean: as in `from_tensors`.
            origin: as in `from_tensors`.

        Returns:
            The pairs, in the order in which the frame first names the vectors.

        Raises:
            InterpToolkitError: as `from_tensors`, and for rows that do not fit; the text names the row.

        Example:
            >>> frame = pd.DataFrame({"latent": [7, 7, 9], "text": ["cat", "feline", "dog"]})
            >>> pairs = VectorLabelPairs.from_frame(sae.W_dec, frame, "text", index_column="latent")
        """
        rows = table.read_frame(frame, len(vectors), label_column, index_column, split_column, weight_column)
        stored = StoredRows.from_matrix(vectors.detach().cpu()).take(rows.index)
        name = lambda row: checks.vector_number(rows.index[row])  # noqa: E731
        checks.check_values(stored, name)
        splits = checks.draw_splits(len(stored), val_fraction, seed) if rows.splits is None else rows.splits
        labels = checks.group_labels(rows.labels)
        return cls._from_rows(stored, labels, splits, rows.weights, site, mean, [origin or {}], name=name)

    @classmethod
    @plain_defaults()
    def from_json(
        cls: type[P],
        path: str | Path,
        vectors: Tensor | Mapping[str, Tensor] | None = None,
        *,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> P:
        """Read pairs in the published format: JSON with labels, ``.pt`` files with vectors, of which no code is run.

        Each section is a source, and its metadata the provenance.

        Args:
            path: ``.json`` or ``.json.gz``.
            vectors: what the indices count in, where a section names no file: of the only section, or by section
                (``dataset_name@l{layer}``).
            site: where they were read. By default the stream after the sections' layer; none for SAE decoder rows, and
                none where layers differ.
            mean: what was subtracted from them. Published topic vectors are centred, and their mean is in a file
                apart: without it an adapter trained on them reads vectors that are not centred.
            origin: further provenance, for every section: the model, if the file does not say.

        Returns:
            The pairs, section by section.

        Raises:
            FileFormatError: missing, damaged, of another format, or holding more than tensors.
            InterpToolkitError: as `from_tensors`, an index past the end or listed twice; the text names section and
                index.
        """
        sections = published.read_sections(Path(path).expanduser(), vectors)
        if len(widths := {section.rows.width for section in sections}) > 1:
            raise InterpToolkitError(f"expected vectors of one width in the sections of {path}, got {sorted(widths)}")
        sites = {section.site for section in sections}
        return cls._from_rows(
            StoredRows.concat([section.rows for section in sections]),
            tuple(x for section in sections for x in section.labels),
            [x for section in sections for x in section.splits],
            site=site if site is not None else sites.pop() if len(sites) == 1 else None,
            mean=mean,
            sources=[{**section.origin, **(origin or {})} for section in sections],
            source_of=[number for number, section in enumerate(sections) for _ in section.labels],
        )

    @classmethod
    def _from_rows(
        cls: type[P],
        stored: StoredRows,
        labels: checks.Labels,
        splits: Sequence[str],
        weights: Sequence[float] | None = None,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        sources: Sequence[Mapping[str, str]] = ({},),
        source_of: Sequence[int] | None = None,
        name: checks.Name = checks.vector_number,
    ) -> P:
        raise NotImplementedError

    def _write_table(self, draft: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls: type[P], path: str | Path) -> P:
        """Open a folder."""
        raise NotImplementedError

    @classmethod
    def build(cls: type[P], *args: Any, **kwargs: Any) -> P:
        """Make pairs from tensors, by the old name of `from_tensors`."""
        warn_renamed("VectorLabelPairs.build", "VectorLabelPairs.from_tensors")
        return cls.from_tensors(*args, **kwargs)

    @classmethod
    def write(cls: type[P], *args: Any, **kwargs: Any) -> P:
        """Make pairs from batches, by the old name of `from_batches`."""
        warn_renamed("VectorLabelPairs.write", "VectorLabelPairs.from_batches")
        return cls.from_batches(*args, **kwargs)
