"""Pairs from what others have: data frames, and the published JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs import checks, published, table
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import PlaceLike


def pairs_from_frame(
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
    """Pairs from vectors and a data frame, the rest as in `VectorLabelPairs.build`.

    Args:
        vectors: one a row.
        frame: one row a vector, in order; or with ``index_column`` any number of rows a vector, and vectors that
            no row names are left out.
        label_column: texts, or lists of them.
        index_column: numbers of vectors, from 0.
        split_column: ``"train"`` or ``"val"``.
        weight_column: weights; split and weight are the same in all rows of a vector.

    Raises:
        InterpToolkitError: as `VectorLabelPairs.build`, and for rows that do not fit; the text names the row.

    Example:
        >>> frame = pd.DataFrame({"latent": [7, 7, 9], "text": ["cat", "feline", "dog"]})
        >>> pairs = pairs_from_frame(sae.W_dec, frame, "text", index_column="latent")
    """
    told = table.read_frame(frame, len(vectors), label_column, index_column, split_column, weight_column)
    stored = StoredRows.of(vectors.detach().cpu()).take(told.index)
    name = lambda row: checks.vector_number(told.index[row])  # noqa: E731
    checks.check_values(stored, name)
    splits = checks.draw_splits(len(stored), val_fraction, seed) if told.splits is None else told.splits
    labels = checks.group_labels(told.labels)
    return VectorLabelPairs.assemble(stored, labels, splits, told.weights, site, mean, origin, name=name)


def pairs_from_json(
    path: str | Path,
    vectors: Tensor | Mapping[str, Tensor] | None = None,
    *,
    site: PlaceLike | None = None,
    mean: Tensor | None = None,
    origin: Mapping[str, str] | None = None,
) -> VectorLabelPairs:
    """Pairs in the published format: JSON with labels, ``.pt`` files with vectors, of which nothing is run.

    Each section is a source, and its metadata the provenance.

    Args:
        path: ``.json`` or ``.json.gz``.
        vectors: what the indices count in, where a section names no file: of the only section, or by section
            (``dataset_name@l{layer}``).
        site: where they were read. By default the stream after the sections' layer; none for SAE decoder rows, and
            none where layers differ.
        mean: what was taken off them. Published topic vectors are centred, and their mean is in a file apart:
            without it an adapter trained on them reads vectors that are not centred.
        origin: further provenance, for every section: the model, if the file does not say.

    Raises:
        FileFormatError: missing, damaged, of another format, or holding more than tensors.
        InterpToolkitError: as `VectorLabelPairs.build`, an index past the end or listed
            twice; the text names section and index.
    """
    sections = published.read_sections(Path(path).expanduser(), vectors)
    if len(widths := {section.rows.width for section in sections}) > 1:
        raise InterpToolkitError(f"expected vectors of one width in the sections of {path}, got {sorted(widths)}")
    sites = {section.site for section in sections}
    made = VectorLabelPairs.assemble(
        StoredRows.join([section.rows for section in sections]),
        tuple(x for section in sections for x in section.labels),
        [x for section in sections for x in section.splits],
        None,
        site if site is not None else sites.pop() if len(sites) == 1 else None,
        mean,
    )
    source_of = tuple(number for number, section in enumerate(sections) for _ in section.labels)
    sources = tuple({**section.origin, **(origin or {})} for section in sections)
    return replace(made, sources=sources, source_of=source_of)
