"""Pairs of several sources together: how many examples of each, and what the sources must agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Place

T = TypeVar("T")


def joined_fields(pairs: Sequence[Any], ratios: Sequence[float] | None, seed: int) -> dict[str, Any]:
    """The fields of `VectorLabelPairs` of several sources, see `VectorLabelPairs.concat`.

    Args:
        pairs: the sources, each a `VectorLabelPairs`.
        ratios: the share of each, or None for all examples of each.
        seed: of the draw.

    Raises:
        InterpToolkitError: ratios or sources that do not go together; the text names them.
    """
    if not pairs or (ratios is not None and len(ratios) != len(pairs)):
        got = f"{len(pairs)} sources" + ("" if ratios is None else f" and {len(ratios)} ratios")
        raise InterpToolkitError(f"expected at least one source to mix, and a ratio for each, got {got}")
    counts = [sum(map(len, source.split("train").labels)) for source in pairs]
    counts = counts if ratios is None else counts_by_ratio(counts, ratios)
    if len(widths := {source.width for source in pairs}) > 1:
        raise InterpToolkitError(f"expected vectors of one width to mix, got {sorted(widths)}")
    if len(shapes := {source.stored.shape for source in pairs}) > 1:
        raise InterpToolkitError(
            f"expected single vectors to mix, or spans of one length, got vectors of shapes "
            f"{sorted(shapes)}; train on each apart"
        )
    check_models([source.origin for source in pairs])
    site, mean = agreed_site([x.site for x in pairs]), agreed_mean([x.mean for x in pairs])
    drawn = []
    for number, (source, count) in enumerate(zip(pairs, counts)):
        labels = draw_examples(source.labels, source.splits, count, (seed, number))
        drawn.append(replace(source.take(list(labels)), labels=tuple(labels.values())))
    starts = [sum(len(source.sources) for source in drawn[:number]) for number in range(len(drawn))]
    return dict(
        stored=StoredRows.concat([source.stored for source in drawn]),
        labels=tuple(x for source in drawn for x in source.labels),
        splits=tuple(x for source in drawn for x in source.splits),
        weights=tuple(x for source in drawn for x in source.weights),
        site=site,
        mean=mean,
        sources=tuple(x for source in drawn for x in source.sources),
        source_of=tuple(start + x for start, source in zip(starts, drawn) for x in source.source_of),
        questions=tuple(x for source in drawn for x in source.questions),
    )


def counts_by_ratio(available: Sequence[int], ratios: Sequence[float]) -> list[int]:
    """Count how many training examples of each source make an epoch of the wanted shares.

    An epoch holds all examples of the source that limits it.

    Args:
        available: training examples of each source.
        ratios: their shares, which need not add up to one.

    Returns:
        For each source how many of its examples to use.

    Raises:
        InterpToolkitError: a ratio that is not above 0, a source without training examples, a share below one example.
    """
    for number, (count, ratio) in enumerate(zip(available, ratios)):
        if not (math.isfinite(ratio) and ratio > 0):
            raise InterpToolkitError(f"source {number} has ratio {ratio}; expected one above 0, or leave it out")
        if not count:
            raise InterpToolkitError(f"source {number} has no training rows to mix; leave it out")
    epoch = min(count / ratio for count, ratio in zip(available, ratios))
    counts = [min(count, round(epoch * ratio)) for count, ratio in zip(available, ratios)]
    if 0 in counts:
        number = counts.index(0)
        raise InterpToolkitError(
            f"source {number} with ratio {ratios[number]} would give no example to an epoch of {sum(counts)}; raise it"
        )
    return counts


def draw_examples(
    labels: Sequence[tuple[str, ...]], splits: Sequence[str], count: int, seed: tuple[int, int]
) -> dict[int, tuple[str, ...]]:
    """Draw training examples of a source, and take every validation row.

    Args:
        labels: of each row.
        splits: of each row.
        count: how many training examples, that is (row, label), to draw.
        seed: of the draw.

    Returns:
        For each row that is left, in order, the labels that are left.
    """
    examples = [(row, k) for row, split in enumerate(splits) if split == "train" for k in range(len(labels[row]))]
    if count == len(examples):
        return dict(enumerate(labels))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:count]
    drawn: dict[int, list[int]] = {}
    for row, k in (examples[i] for i in chosen):
        drawn.setdefault(row, []).append(k)
    labels_left = {row: tuple(labels[row][k] for k in sorted(numbers)) for row, numbers in drawn.items()}
    labels_left |= {row: labels[row] for row, split in enumerate(splits) if split == "val"}
    return {row: labels_left[row] for row in sorted(labels_left)}


def agreed_site(sites: Sequence[Place | None]) -> Place | None:
    """Return the site of those sources that have one.

    Raises:
        InterpToolkitError: two sites.
    """
    known = _known(sites)
    for number, site in known[1:]:
        if site != known[0][1]:
            raise InterpToolkitError(
                f"source {known[0][0]} was read at {known[0][1]}, source {number} at {site}; an adapter is for one "
                f"site, so mix vectors of one, or train an adapter for each"
            )
    return known[0][1] if known else None


def agreed_mean(means: Sequence[Tensor | None]) -> Tensor | None:
    """Return the mean of those sources that have one.

    Raises:
        InterpToolkitError: two means.
    """
    known = _known(means)
    for number, mean in known[1:]:
        first = known[0][1]
        # Two readings of the same vectors may differ in the last bits.
        if not torch.allclose(mean, first, rtol=1e-4, atol=1e-5 * float(first.abs().max())):
            raise InterpToolkitError(
                f"sources {known[0][0]} and {number} were centred with different means (they are "
                f"{float((mean - first).norm()):.3g} apart); an adapter carries one mean, which it subtracts from "
                f"whatever it explains, so add each source's own mean again, subtract one mean from both, and make the "
                f"pairs anew"
            )
    return known[0][1] if known else None


def check_models(origins: Sequence[Mapping[str, str]]) -> None:
    """Refuse sources that say they are of different models or revisions.

    Models are compared by the last part of their names, since one may be loaded from the hub and from a folder.

    Raises:
        InterpToolkitError: the text names them.
    """
    for fact in ("model", "revision"):
        known = _known([origin.get(fact) or None for origin in origins])
        for number, value in known[1:]:
            if _short(value) != _short(known[0][1]):
                raise InterpToolkitError(
                    f"source {known[0][0]} is of {fact} {known[0][1]!r}, source {number} of {value!r}; an adapter is "
                    f"for one model, so mix vectors of one"
                )


def joined_origin(sources: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join what the sources say; where they differ, each value stands once, with a plus between."""
    keys = dict.fromkeys(key for source in sources for key in source)
    return {key: " + ".join(dict.fromkeys(x[key] for x in sources if key in x)) for key in keys}


def _known(values: Sequence[T | None]) -> list[tuple[int, T]]:
    """The values that are not None, with the numbers of their sources."""
    return [(number, value) for number, value in enumerate(values) if value is not None]


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
