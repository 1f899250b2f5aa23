"""Mixing pairs of several sources: how many examples of each, and what the sources must agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.sites import Place


def mix(groups: Sequence[tuple[Any, float]], seed: int) -> Any:
    """See `VectorLabelPairs.mix`."""
    pairs = [own for own, _ in groups]
    examples = [sum(map(len, own.split("train").labels)) for own in pairs]
    counts = examples_of_each(examples, [ratio for _, ratio in groups])
    if len(widths := {own.width for own in pairs}) > 1:
        raise InterpToolkitError(f"expected vectors of one width to mix, got {sorted(widths)}")
    check_models([own.origin for own in pairs])
    site, mean = agreed_site([own.site for own in pairs]), agreed_mean([own.mean for own in pairs])
    parts = []
    for number, (own, count) in enumerate(zip(pairs, counts)):
        kept = keep_examples(own.labels, own.splits, count, (seed, number))
        parts.append(replace(own.take(list(kept)), labels=tuple(kept.values())))
    starts = [sum(len(own.sources) for own in parts[:number]) for number in range(len(parts))]
    return replace(
        parts[0],
        stored=StoredRows.join([own.stored for own in parts]),
        labels=tuple(x for own in parts for x in own.labels),
        splits=tuple(x for own in parts for x in own.splits),
        weights=tuple(x for own in parts for x in own.weights),
        site=site,
        mean=mean,
        sources=tuple(x for own in parts for x in own.sources),
        source_of=tuple(start + x for start, own in zip(starts, parts) for x in own.source_of),
    )


def examples_of_each(counts: Sequence[int], ratios: Sequence[float]) -> list[int]:
    """How many of each source's training examples make an epoch of the asked shares: all of the limiting source's.

    Raises:
        InterpToolkitError: a ratio that is not above 0, a source without training examples, a share below one example.
    """
    if not counts:
        raise InterpToolkitError("expected at least one (pairs, ratio) to mix, got none")
    for number, (count, ratio) in enumerate(zip(counts, ratios)):
        if not (math.isfinite(ratio) and ratio > 0):
            raise InterpToolkitError(f"source {number} has ratio {ratio}; expected one above 0, or leave it out")
        if not count:
            raise InterpToolkitError(f"source {number} has no training rows to mix; leave it out")
    epoch = min(count / ratio for count, ratio in zip(counts, ratios))
    kept = [min(count, round(epoch * ratio)) for count, ratio in zip(counts, ratios)]
    if 0 in kept:
        number = kept.index(0)
        raise InterpToolkitError(
            f"source {number} with ratio {ratios[number]} would give no example to an epoch of {sum(kept)}; raise it"
        )
    return kept


def keep_examples(
    labels: Sequence[tuple[str, ...]], splits: Sequence[str], count: int, seed: tuple[int, int]
) -> dict[int, tuple[str, ...]]:
    """Rows and the labels they keep: ``count`` training examples drawn by ``seed``, and every validation row."""
    examples = [(row, k) for row, split in enumerate(splits) if split == "train" for k in range(len(labels[row]))]
    if count == len(examples):
        return dict(enumerate(labels))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:count]
    drawn: dict[int, list[int]] = {}
    for row, k in (examples[i] for i in chosen):
        drawn.setdefault(row, []).append(k)
    kept = {row: tuple(labels[row][k] for k in sorted(own)) for row, own in drawn.items()}
    kept |= {row: labels[row] for row, split in enumerate(splits) if split == "val"}
    return {row: kept[row] for row in sorted(kept)}


def agreed_site(sites: Sequence[Place | None]) -> Place | None:
    """The site of those sources that have one.

    Raises:
        InterpToolkitError: two sites.
    """
    found = [(number, site) for number, site in enumerate(sites) if site is not None]
    for number, site in found[1:]:
        if site != found[0][1]:
            raise InterpToolkitError(
                f"source {found[0][0]} was read at {found[0][1]}, source {number} at {site}; an adapter is for one "
                f"site, so mix vectors of one, or train an adapter for each"
            )
    return found[0][1] if found else None


def agreed_mean(means: Sequence[Tensor | None]) -> Tensor | None:
    """The mean of those sources that have one.

    Raises:
        InterpToolkitError: two means.
    """
    found = [(number, mean) for number, mean in enumerate(means) if mean is not None]
    for number, mean in found[1:]:
        first = found[0][1]
        # Two readings of the same vectors may differ in the last bits.
        if not torch.allclose(mean, first, rtol=1e-4, atol=1e-5 * float(first.abs().max())):
            raise InterpToolkitError(
                f"sources {found[0][0]} and {number} were centred with different means (they are "
                f"{float((mean - first).norm()):.3g} apart); an adapter carries one mean, which it takes off whatever "
                f"it explains, so add each source's own mean again, take one mean off both, and build them anew"
            )
    return found[0][1] if found else None


def check_models(origins: Sequence[Mapping[str, str]]) -> None:
    """Refuse sources that say they are of different models or revisions.

    Models are compared by the last part of their names, since one may be loaded from the hub and from a folder.

    Raises:
        InterpToolkitError: the text names them.
    """
    for fact in ("model", "revision"):
        found = [(number, origin[fact]) for number, origin in enumerate(origins) if origin.get(fact)]
        for number, value in found[1:]:
            if _short(value) != _short(found[0][1]):
                raise InterpToolkitError(
                    f"source {found[0][0]} is of {fact} {found[0][1]!r}, source {number} of {value!r}; an adapter is "
                    f"for one model, so mix vectors of one"
                )


def joined_origin(sources: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What the sources say; where they differ, each value once, with a plus between."""
    keys = dict.fromkeys(key for source in sources for key in source)
    return {key: " + ".join(dict.fromkeys(x[key] for x in sources if key in x)) for key in keys}


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
