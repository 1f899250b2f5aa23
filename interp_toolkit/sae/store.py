"""Residual streams of a corpus on disk, in shards, so that SAEs can be trained and looked through without the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_activations
from interp_toolkit.cache import TensorCache
from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.models import backend_of, weights_key
from interp_toolkit.sae.passages import TokenRows
from interp_toolkit.sites import Site, SiteLike, parse_sites
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

# Rows of a shard: what an interruption can lose.
_ROWS = 64
# Shards that are mixed together before batches are cut: memory against how well neighbours are parted.
_MIXED = 16


@renamed_fields(tokens_a_second="tokens_per_second")
@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Residual-stream vectors of every token but the first of each row, on disk in shards of rows.

    Attributes:
        rows: the tokens.
        site: where they were read.
        d_model: width of the vectors.
        weights: of the model, see `weights_key`.
        cache: where the shards are kept.
        tokens_per_second: how fast missing shards were read; None where none was missing.
    """

    rows: TokenRows
    site: Site
    d_model: int
    weights: str
    cache: TensorCache
    tokens_per_second: float | None = None

    __repr__ = brief_repr

    @property
    def tokens(self) -> int:
        """The number of vectors."""
        return self.rows.tokens

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, one per shard."""
        return tuple(self.cache.path(self._key(shard)) for shard in range(self.shard_count))

    @property
    def shard_count(self) -> int:
        """The number of shards."""
        return -(-len(self.rows) // _ROWS)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name what is stored: model, site and tokens."""
        return hashlib.sha256(" ".join(file.stem for file in self.files).encode()).hexdigest()[:16]

    def shards(self, start: int = 0) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Shard by shard from number ``start`` on: the numbers of its rows, and the vectors of each row, float32."""
        for shard in range(start, self.shard_count):
            numbers = self._row_numbers(shard)
            yield numbers, list(self._read(shard).float().split([len(self.rows.ids[i]) - 1 for i in numbers]))

    def batches(self, size: int, seed: int = 0, skip: int = 0) -> Iterator[Float[Tensor, "size d_model"]]:
        """Endless batches for training, float32; the same seed gives the same ones.

        In each epoch the shards are shuffled, then the vectors of some of them at a time. What does not fill a batch
        at the end of such a group is left out of that epoch.

        Args:
            size: vectors per batch.
            seed: of the order.
            skip: how many batches to leave out at the beginning, which costs nothing.

        Raises:
            InterpToolkitError: fewer vectors than a batch has.
        """
        counts = [self._token_count(shard) for shard in range(self.shard_count)]
        if sum(counts) < size or size < 1:
            raise InterpToolkitError(
                f"expected at least one batch of {size} vectors in the store, which has {sum(counts)}; take more "
                f"passages or a smaller batch"
            )
        # Groups of about the same size; the largest fills at least one batch.
        groups = max(1, min(len(counts) // _MIXED, sum(counts) // size))
        epoch = 0
        while True:
            order = torch.randperm(len(counts), generator=_generator(seed, epoch), device="cpu").tolist()
            for number in range(groups):
                group = order[number::groups]
                whole = sum(counts[shard] for shard in group) // size
                if skip >= whole:
                    skip -= whole
                    continue
                vectors = torch.cat([self._read(shard) for shard in group])
                mixed = torch.randperm(len(vectors), generator=_generator(seed, epoch, number), device="cpu")
                for batch in mixed[: whole * size].split(size)[skip:]:
                    yield vectors[batch].float()
                skip = 0
            epoch += 1

    @plain_defaults()
    def sample(self, count: int, seed: int = 0) -> Float[Tensor, "count d_model"]:
        """Vectors of ``count`` tokens drawn from all (all of them, where there are fewer), float32."""
        if count >= self.tokens:
            return torch.cat([self._read(shard) for shard in range(self.shard_count)]).float()
        chosen = torch.randperm(self.tokens, generator=_generator(seed), device="cpu")[:count].sort().values
        vectors, start = [], 0
        for shard in range(self.shard_count):
            end = start + self._token_count(shard)
            in_shard = chosen[(chosen >= start) & (chosen < end)] - start
            if len(in_shard):
                vectors.append(self._read(shard)[in_shard].float())
            start = end
        return torch.cat(vectors)

    def _row_numbers(self, shard: int) -> list[int]:
        return list(range(shard * _ROWS, min((shard + 1) * _ROWS, len(self.rows))))

    def _token_ids(self, shard: int) -> list[list[int]]:
        return [list(self.rows.ids[i]) for i in self._row_numbers(shard)]

    def _token_count(self, shard: int) -> int:
        return sum(len(self.rows.ids[i]) - 1 for i in self._row_numbers(shard))

    def _key(self, shard: int) -> list[Any]:
        return [self.weights, str(self.site), self._token_ids(shard)]

    def _has(self, shard: int) -> bool:
        return self.cache.load(self._key(shard)) is not None

    def _save(self, shard: int, vectors: Tensor) -> None:
        self.cache.save(self._key(shard), {"vectors": vectors})

    def _read(self, shard: int) -> Tensor:
        tensors = self.cache.load(self._key(shard))
        if tensors is None:
            raise FileFormatError(
                f"shard {shard} of the activation store is missing or damaged; store the activations again, which "
                f"reads only what is missing"
            )
        return tensors["vectors"]


@plain_defaults()
def store_activations(
    model: Any,
    rows: TokenRows,
    sites: SiteLike | Sequence[SiteLike],
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> dict[Site, ActivationStore]:
    """Read the residual stream of every token at some sites, and keep it on disk.

    The first position of each row is left out: attention sinks there are many times longer than anything else. Rows are
    padded to run together; nothing of the padding is stored. The model runs up to the deepest site, once for all sites.
    A shard is named for the model's weights, its site and its tokens: an interrupted reading goes on where it stopped,
    and rows added at the end change no shard but the last, unfilled one. A damaged shard is read anew. Numbers are
    stored in the model's own dtype, exactly as they were read.

    Args:
        model: the hooked model.
        rows: the tokens that it reads, see `token_rows`.
        sites: where to read.
        folder: the cache folder; by default the user's. 2 or 4 bytes per number: 1.2 GB per million tokens of width 576
            in bfloat16.
        progress: whether to show a bar, with tokens per second.

    Returns:
        for each site its store.

    Raises:
        InterpToolkitError: a site that the model does not have, or a model with hooks or replaced forwards of your own.

    Example:
        >>> rows = token_rows(model.tokenizer, read_passages("passages.jsonl.gz", "train")["text"])
        >>> store = store_activations(model, rows, 15)[Site.after(15)]
    """
    unique_sites = list(dict.fromkeys(parse_sites(sites)))
    if not unique_sites:
        raise InterpToolkitError("expected at least one site, got none")
    backend = backend_of(model)
    for site in unique_sites:
        backend.require(site)
    weights, cache = weights_key(model), TensorCache("activations", folder)
    stores = [ActivationStore(rows, site, backend.d_model, weights, cache) for site in unique_sites]
    tokens, seconds = 0, 0.0
    with tqdm(total=rows.tokens, desc="activations", unit="token", unit_scale=True, disable=not progress) as bar:
        for shard in range(stores[0].shard_count):
            if missing := [store for store in stores if not store._has(shard)]:
                started = time.perf_counter()
                vectors = _read_shard(model, stores[0]._token_ids(shard), [store.site for store in missing])
                for store in missing:
                    store._save(shard, vectors[store.site].to(backend.dtype))
                tokens, seconds = tokens + stores[0]._token_count(shard), seconds + time.perf_counter() - started
            bar.update(stores[0]._token_count(shard))
    speed = tokens / seconds if tokens else None
    return {store.site: replace(store, tokens_per_second=speed) for store in stores}


def _read_shard(model: Any, ids: list[list[int]], sites: list[Site]) -> dict[Site, Tensor]:
    activations = read_activations(model, ids, sites, "all")
    after_first = activations.table["position"] > 0
    rows = {site: np.flatnonzero(after_first & (activations.table["site"] == str(site))) for site in sites}
    return {site: activations.vectors[torch.from_numpy(numbers)] for site, numbers in rows.items()}


def _generator(*seeds: int) -> torch.Generator:
    digest = hashlib.sha256(json.dumps(seeds).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "little"))
