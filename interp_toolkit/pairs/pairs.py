"""`VectorLabelPairs`: vectors, their labels, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.deprecation import renamed_classmethod, warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_folder
from interp_toolkit.pairs import checks, folder, mixing, published, shown, table
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Place, PlaceLike, parse_place
from interp_toolkit.torch_defaults import plain_defaults


@dataclass(frozen=True, eq=False)
class VectorLabelPairs:
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
        questions: for each vector what its labels answer; empty where they describe it.

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
    questions: tuple[str, ...]

    @classmethod
    @plain_defaults()
    def from_tensors(
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
        """Make pairs from vectors and labels. The same label for several vectors is fine.

        Args:
            vectors: [n, width], not copied; or spans of one text's tokens, [n, span, width].
            labels: for each vector a text or a list of texts.
            splits: for each vector ``"train"`` or ``"val"``; by default ``val_fraction`` of them is drawn by ``seed``.
            weights: for each vector how much it counts in the loss; by default 1.
            val_fraction: share of the vectors that is held out.
            seed: of that draw.
            site: where the vectors were read.
            mean: what was subtracted from them, [width].
            origin: provenance: model, revision, source, prompt.

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
        cls,
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
    ) -> VectorLabelPairs:
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
            pairs = cls._from_rows(stored, tuple(labels), splits, weights, site, mean, [origin or {}])
            folder.write_table(draft, pairs)
        return cls.load(path)

    @classmethod
    @plain_defaults()
    def from_frame(
        cls,
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
    ) -> VectorLabelPairs:
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
        cls,
        path: str | Path,
        vectors: Tensor | Mapping[str, Tensor] | None = None,
        *,
        site: PlaceLike | None = None,
        mean: Tensor | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> VectorLabelPairs:
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
        x = published.read_file(Path(path).expanduser(), vectors)
        sources = [{**source, **(origin or {})} for source in x.origins]
        site = x.site if site is None else site
        return cls._from_rows(x.rows, x.labels, x.splits, None, site, mean, sources, x.source_of)

    @classmethod
    @plain_defaults()
    def concat(
        cls, pairs: Sequence[VectorLabelPairs], ratios: Sequence[float] | None = None, seed: int = 0
    ) -> VectorLabelPairs:
        """Put pairs of several sources together, all of each, or by the share of each in an epoch's examples.

        With ratios, an epoch passes once over the source that limits it; of the others, as many training (vector,
        label) examples as their ratios ask for are drawn by ``seed``, once for all epochs (in arXiv 2602.10352's code
        anew for each). All validation rows are kept. Vectors are not copied.

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
        return cls(**mixing.joined_fields(pairs, ratios, seed))

    build = renamed_classmethod("VectorLabelPairs", "build", "from_tensors")
    write = renamed_classmethod("VectorLabelPairs", "write", "from_batches")

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
            rows = StoredRows.from_matrix(x.vectors)
            pairs = cls._from_rows(rows, x.labels, x.splits, x.weights, x.site, x.mean, x.sources, x.source_of)
            return pairs.with_questions(x.questions)

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
            questions=("",) * len(stored),
        )

    def __len__(self) -> int:
        return len(self.stored)

    def __repr__(self) -> str:
        return shown.as_text(self)

    def _repr_html_(self) -> str:
        return shown.as_html(self)

    @property
    def width(self) -> int:
        """Width of the vectors: d_model for each site."""
        return self.stored.width

    @property
    def examples(self) -> list[tuple[int, str]]:
        """Every (row, label): what one epoch passes over."""
        return [(i, label) for i, labels in enumerate(self.labels) for label in labels]

    @property
    def vectors(self) -> Float[Tensor, "n *vectors"]:
        """All vectors, float32, copied into memory; `gather` reads some."""
        return self.stored.gather(range(len(self)))

    @property
    def origin(self) -> dict[str, str]:
        """Provenance of all sources together; where they differ, their values with a plus between."""
        return mixing.joined_origin(self.sources)

    def gather(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "rows *vectors"]:
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
            questions=tuple(self.questions[i] for i in rows),
        )

    def with_questions(self, questions: str | Sequence[str]) -> VectorLabelPairs:
        """The same pairs, whose labels answer questions about their vectors.

        Args:
            questions: for each vector, or one for all; an empty one asks for a description, as without questions.

        Raises:
            InterpToolkitError: another count, or something other than a text.

        Example:
            >>> kinds = VectorLabelPairs.from_tensors(vectors, yes_or_no).with_questions("Is this about a person?")
            >>> VectorLabelPairs.concat([pairs, kinds])
        """
        questions = [questions] * len(self) if isinstance(questions, str) else list(questions)
        checks.check_questions(questions, len(self))
        return replace(self, questions=tuple(question.strip() for question in questions))

    def split(self, name: str) -> VectorLabelPairs:
        """Choose the rows of one side, ``"train"`` or ``"val"``."""
        return self.take([i for i, split in enumerate(self.splits) if split == name])

    def save(self, path: str | Path) -> None:
        """Write a folder (safetensors, parquet, JSON), whole or not at all, a block of vectors at a time."""
        with whole_folder(Path(path)) as draft:
            folder.write_vectors(draft / folder.VECTORS, self.stored.blocks(), self.mean, self.stored.shape)
            folder.write_table(draft, self)
