"""Titles to train on and to measure on, from a file with splits."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs import read_titles
from interp_toolkit.tables import brief_repr

_SEED = 0
# Training titles that choose the weights during training, so that split `val` is for measuring alone.
_DEV = 500


@dataclass(frozen=True)
class Titles:
    """The titles of one file.

    Attributes:
        index: all of them; descriptions are looked up among these.
        train: to train on, shuffled, so that the first n are a sample.
        dev: training titles that choose the weights.
        held_out: split ``val``, shuffled; to measure on.
        shards: all titles in the order in which their vectors are read (that of training recipes, which share them).
        digest: of titles and splits, for results.
    """

    index: list[str]
    train: list[str]
    dev: list[str]
    held_out: list[str]
    shards: list[str]
    digest: str

    __repr__ = brief_repr

    @classmethod
    def read(cls, path: Path, limit: int | None = None) -> Titles:
        """Read the titles of a file with splits.

        Args:
            path: JSON Lines, perhaps gzipped, with ``title`` and ``split`` (``train`` or ``val``).
            limit: how many titles of each side to take; by default all.

        Raises:
            FileFormatError: missing or damaged.
            InterpToolkitError: a title without a split, or too few titles of one side.
        """
        index, splits = read_titles(path)
        if splits is None:
            raise InterpToolkitError(f"expected a split, train or val, for each title in {path}, and some have none")
        train, held_out = ([title for title, split in zip(index, splits) if split == side] for side in ("train", "val"))
        for side in (train, held_out):
            random.Random(_SEED).shuffle(side)
        shards = train + held_out
        train, dev = train[:-_DEV], train[-_DEV:]
        if min(len(train), len(held_out)) < 2:
            raise InterpToolkitError(f"expected over {_DEV} train titles and some val titles in {path}, got too few")
        digest = hashlib.sha256(json.dumps([index, splits]).encode()).hexdigest()[:16]
        if limit is not None:
            train, dev, held_out = train[:limit], dev[:limit], held_out[:limit]
            shards = train + dev + held_out
        return cls(index, train, dev, held_out, shards, digest)
