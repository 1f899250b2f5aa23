"""Residual streams of a corpus on disk, in shards, so that SAEs can be trained and looked through without the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_activations
from interp_toolkit.cache import cache_folder
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.models import backend_of, model_facts, weights_key
from interp_toolkit.sae.passages import TokenRows
from interp_toolkit.sites import Site, SiteLike, parse_sites
from interp_toolkit.tables import brief_repr
from interp_toolkit.torch_defaults import plain_defaults

# Rows of a shard: what an interruption can lose.
_ROWS = 64
# Shards that are mixed together before batches are cut: memory against how well neighbours are parted.
_MIXED = 16


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Residual-stream vectors of every token but the first of each row, on disk.

    Attributes:
        rows: the tokens.
        site: where they were read.
        files: one a shard of rows, in order.
        d_model: width of the vectors.
        tokens_a_second: how fast what was not there yet was read; None where all was.
    """

    rows: TokenRows
    site: Site
    files: tuple[Path, ...]
    d_model: int
    tokens_a_second: float | None = None

    __repr__ = brief_repr

    @property
    def tokens(self) -> int:
        """How many vectors there are."""
        return self.rows.tokens

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name what is stored: model, site and tokens."""
        return hashlib.sha256(" ".join(file.stem for file in self.files).encode()).hexdigest()[:16]

    def shards(self, start: int = 0) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Shard by shard from number ``start`` on: numbers of its rows, and for each its vectors, float32."""
        for shard in range(start, len(self.files)):
            numbers = self._numbers(shard)
            yield numbers, list(self._read(shard).float().split([len(self.rows.ids[i]) - 1 for i in numbers]))

    def batches(self, size: int, seed: int = 0, skip: int = 0) -> Iterator[Float[Tensor, "size d_model"]]:
        """Endless batches for training, float32; the same seed gives the same ones.

        In each epoch the shards are shuffled, then the vectors of some of them at a time. What does not fill a batch
        at the end of such a group is left out of that epoch.

        Args:
            size: vectors a batch.
            seed: of the order.
            skip: how many batches to leave out at the beginning, which costs nothing.

        Raises:
            InterpToolkitError: fewer vectors than a batch has.
        """
        counts = [sum(len(self.rows.ids[i]) - 1 for i in self._numbers(shard)) for shard in range(len(self.files))]
        if sum(counts) < size or size < 1:
            raise InterpToolkitError(
                f"expected at least one batch of {size} vectors in the store, which has {sum(counts)}; take more "
                f"passages or a smaller batch"
            )
        # Groups of about the same size, of which at least one fills a batch.
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
            return torch.cat([self._read(shard) for shard in range(len(self.files))]).float()
        chosen = torch.randperm(self.tokens, generator=_generator(seed), device="cpu")[:count].sort().values
        parts, start = [], 0
        for shard in range(len(self.files)):
            held = sum(len(self.rows.ids[i]) - 1 for i in self._numbers(shard))
            here = chosen[(chosen >= start) & (chosen < start + held)] - start
            if len(here):
                parts.append(self._read(shard)[here].float())
            start += held
        return torch.cat(parts)

    def _numbers(self, shard: int) -> list[int]:
        return list(range(shard * _ROWS, min((shard + 1) * _ROWS, len(self.rows))))

    def _read(self, shard: int) -> Tensor:
        try:
            return load_file(self.files[shard])["vectors"]
        except (OSError, SafetensorError, KeyError) as error:
            raise FileFormatError(
                f"shard {shard} of the activation store is missing or damaged ({error}); store the activations again, "
                f"which reads only what is missing"
            ) from error


@plain_defaults()
def store_activations(
    model: Any,
    rows: TokenRows,
    sites: SiteLike | Sequence[SiteLike],
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> dict[Site, ActivationStore]:
    """Residual streams of every token at some sites, kept on disk.

    The first position of each row is left out: attention sinks there are many times longer than anything else. Rows are
    padded to be run together, and of padding nothing is kept. The model runs up to the deepest site, once for all of
    them. Shards are named for what is in them (the model's weights, site and tokens), so an interrupted reading goes
    on, and rows added at the end leave all shards but the last unfilled one as they are. Numbers are kept in the
    model's own dtype, exactly as they were read.

    Args:
        model: the hooked model.
        rows: what it reads, see `token_rows`.
        sites: where.
        folder: where to keep them; by default in the cache folder. 2 or 4 bytes a number: 1.2 GB a million tokens of
            width 576 in bfloat16.
        progress: whether to show a bar, with tokens a second.

    Raises:
        InterpToolkitError: a site that the model does not have, or a model with hooks or replaced forwards of your own.

    Example:
        >>> rows = token_rows(model.tokenizer, read_passages("passages.jsonl.gz", "train")["text"])
        >>> store = store_activations(model, rows, 15)[Site.after(15)]
    """
    wanted = list(dict.fromkeys(parse_sites(sites)))
    if not wanted:
        raise InterpToolkitError("expected at least one site, got none")
    for site in wanted:
        backend_of(model).require(site)
    folder = cache_folder() / "activations" if folder is None else Path(folder)
    key, width, dtype = weights_key(model), model_facts(model).d_model, backend_of(model).dtype
    files: dict[Site, list[Path]] = {site: [] for site in wanted}
    read, seconds = 0, 0.0
    with tqdm(total=rows.tokens, desc="activations", unit="token", unit_scale=True, disable=not progress) as bar:
        for start in range(0, len(rows), _ROWS):
            ids = [list(row) for row in rows.ids[start : start + _ROWS]]
            tokens = sum(map(len, ids)) - len(ids)
            named = {site: _shard_file(folder, key, site, ids) for site in wanted}
            if missing := [site for site in wanted if not _is_whole(named[site], (tokens, width))]:
                begun = time.perf_counter()
                found = _read_shard(model, ids, missing)
                for site, vectors in found.items():
                    with whole_file(named[site]) as draft:
                        save_file({"vectors": vectors.to(dtype)}, draft)
                read, seconds = read + tokens, seconds + time.perf_counter() - begun
            for site in wanted:
                files[site].append(named[site])
            bar.update(tokens)
    speed = read / seconds if read else None
    return {site: ActivationStore(rows, site, tuple(files[site]), width, speed) for site in wanted}


def _read_shard(model: Any, ids: list[list[int]], sites: list[Site]) -> dict[Site, Tensor]:
    read = read_activations(model, ids, sites, "all")
    later = read.table["position"] > 0
    rows = {site: np.flatnonzero(later & (read.table["site"] == str(site))) for site in sites}
    return {site: read.vectors[torch.from_numpy(own)] for site, own in rows.items()}


def _is_whole(file: Path, shape: tuple[int, int]) -> bool:
    """Whether a shard is there; opening it holds its header against its size."""
    try:
        with safe_open(file, framework="pt") as stream:
            return tuple(stream.get_slice("vectors").get_shape()) == shape
    except (OSError, SafetensorError):
        return False


def _shard_file(folder: Path, key: str, site: Site, ids: list[list[int]]) -> Path:
    told = json.dumps([key, str(site), ids])
    return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.safetensors"


def _generator(*seeds: int) -> torch.Generator:
    told = hashlib.sha256(json.dumps(seeds).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(told[:7], "little"))
