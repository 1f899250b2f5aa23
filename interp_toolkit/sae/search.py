"""The search for the top activating examples of every feature: one pass over stored activations, in little memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.cache import TensorCache, cache_folder
from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file, with_digest
from interp_toolkit.models.batches import consecutive_batches
from interp_toolkit.sae.encode import Encoder
from interp_toolkit.sae.facts import require_site, sae_digest, sae_facts
from interp_toolkit.sae.passages import TokenRows
from interp_toolkit.sae.store import ActivationStore
from interp_toolkit.sae.top_examples import FORMAT, TopExamples
from interp_toolkit.torch_defaults import plain_defaults

# Tokens encoded together.
_TOKENS = 2048
# Shards of the store after which the state is saved: what an interruption can lose.
_SAVE_EVERY = 32


@dataclass(frozen=True)
class _Window:
    """How many examples are saved per feature, and how long they are."""

    count: int
    before: int
    after: int
    pool: int
    seed: int

    @property
    def width(self) -> int:
        return self.before + self.after + 1

    def span(self, position: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where windows around positions begin, and how long they are; a row's first token is in none."""
        start = np.maximum(position - self.before, 1)
        return start, np.minimum(position + self.after, lengths - 1) - start + 1


@plain_defaults()
def find_top_examples(
    sae: Any,
    store: ActivationStore,
    path: str | Path | None,
    tokenizer: Any,
    *,
    count: int = 20,
    before: int = 24,
    after: int = 8,
    pool: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> TopExamples:
    """Find the windows of text in which each feature is most active, at most one per row of tokens.

    The memory that it takes does not grow with the corpus. The state is saved in the cache folder from time to time, so
    that an interrupted search goes on; a file that is there from the same search is opened.

    Args:
        sae: an SAE.
        store: activations at its site.
        path: the file to write, see `TopExamples`; None for one in the cache folder, which is written anew where it is
            damaged.
        tokenizer: of the model.
        count: examples per feature.
        before: tokens of an example before the peak.
        after: tokens of an example behind the peak.
        pool: how many random windows to save, for examples in which a feature is inactive.
        seed: of those windows.
        progress: whether to show a bar.

    Returns:
        the examples, of which a look-up reads one feature's.

    Raises:
        ContractError: activations of another site or width.
        FileFormatError: a file at the path that is damaged or holds something else.
        InterpToolkitError: a size below its least, or a file of another search.

    Example:
        >>> examples = find_top_examples(sae, store, "examples.safetensors", model.tokenizer)
        >>> examples.get(7).text
    """
    if min(count, pool) < 1 or min(before, after) < 0:
        raise InterpToolkitError(
            f"expected count and pool of at least 1, before and after of at least 0, got {count}, {pool}, {before} and "
            f"{after}"
        )
    facts, site = sae_facts(sae), require_site(sae)
    if (site, sae.cfg.d_in) != (store.site, store.d_model):
        raise ContractError(
            f"the SAE reads {site} at width {sae.cfg.d_in}, the activations are of {store.site} at width "
            f"{store.d_model}; store activations of the SAE's site"
        )
    window = _Window(count, before, after, pool, seed)
    metadata = dict(sae=sae_digest(sae), activations=store.digest, model=facts.model, site=str(site))
    search = hashlib.sha256(json.dumps([metadata, asdict(window)]).encode()).hexdigest()[:16]
    if path is None:
        path = cache_folder() / "top_examples" / f"{search}.safetensors"
        if path.exists():
            try:
                return TopExamples.open(path, tokenizer)
            except FileFormatError:
                pass  # damaged, and written anew
    elif (path := Path(path).expanduser()).exists():
        examples = TopExamples.open(path, tokenizer)
        if examples.metadata.get("search") != search:
            raise InterpToolkitError(f"{path} holds other examples; name another file, or delete it")
        return examples
    cache, key = TensorCache("searches"), ["unfinished", search]
    state = dict(cache.load(key) or _begin(store.rows, window, facts.features))
    encoder = Encoder(sae)
    done = int(state["done"])
    with tqdm(total=store.shard_count, initial=done, desc="examples", unit="shard", disable=not progress) as bar:
        for shard, (numbers, vectors) in enumerate(store.shards(done), done):
            _Shard(store.rows, numbers, vectors, encoder, state).merge(window)
            state["done"].add_(1)
            bar.update()
            if (shard + 1) % _SAVE_EVERY == 0 and shard + 1 < store.shard_count:
                cache.save(key, state)
    del state["done"]
    _write(path, state, dict(format=FORMAT, search=search, tokens=str(store.tokens), **metadata))
    cache.path(key).unlink(missing_ok=True)
    return TopExamples.open(path, tokenizer)


class _Shard:
    """The activations of all features on one shard of rows."""

    def __init__(
        self, rows: TokenRows, numbers: list[int], vectors: list[Tensor], encoder: Encoder, state: dict[str, Tensor]
    ) -> None:
        self.state = state
        self.numbers = np.array(numbers)
        self.passages = np.array([rows.passage[i] for i in numbers])
        self.lengths = np.array([len(rows.ids[i]) for i in numbers])
        # All rows behind one another: the token at a position of a row is at its offset plus the position.
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.ids = np.concatenate([np.array(rows.ids[i]) for i in numbers])
        features = len(state["fires"])
        self.best = torch.zeros(features, len(numbers))
        self.position = torch.zeros(features, len(numbers), dtype=torch.long)
        keys, values = [], []
        pooled = {int(row): place for place, row in enumerate(state["pool_row"])}
        for batch in consecutive_batches([len(row) for row in vectors], _TOKENS):
            acts = encoder(torch.cat([vectors[i] for i in batch])).relu()
            state["fires"] += (acts > 0).sum(0)
            state["total"] += acts.sum(0, dtype=torch.float64)
            for i, row_acts in zip(batch, acts.split([len(vectors[i]) for i in batch])):
                highest = row_acts.max(0)
                self.best[:, i], self.position[:, i] = highest.values, highest.indices + 1
                at = row_acts.nonzero()
                token = at[:, 0] + int(self.offsets[i]) + 1
                keys.append(at[:, 1] * len(self.ids) + token)
                values.append(row_acts[at[:, 0], at[:, 1]])
                if (place := pooled.get(numbers[i])) is not None:
                    start = int(state["pool_start"][place]) - 1
                    end = start + int(state["pool_length"][place])
                    state["pool_max"][:, place] = row_acts[start:end].amax(0)
        all_keys = torch.cat(keys)
        order = all_keys.argsort()
        self.keys, self.values = all_keys[order].numpy(), torch.cat(values)[order].numpy()

    def merge(self, window: _Window) -> None:
        """Put the windows of this shard among the best so far."""
        state, count = self.state, window.count
        joined = torch.cat([state["value"], self.best], dim=1)
        top = joined.topk(count, dim=1)
        changed = ((top.indices >= count) & (top.values > 0)).any(1).nonzero().flatten()
        if not len(changed):
            return
        chosen = top.indices[changed]
        # The rank of an earlier window; any rank for a new one, whose row is filled below.
        before = chosen.clamp(max=count - 1)
        state["value"][changed] = top.values[changed]
        for name in ("row", "passage", "position", "start", "length"):
            state[name][changed] = state[name][changed].gather(1, before)
        for name in ("ids", "activations"):
            wide = before[:, :, None].expand(-1, -1, window.width)
            state[name][changed] = state[name][changed].gather(1, wide)
        at, rank = ((chosen >= count) & (top.values[changed] > 0)).nonzero(as_tuple=True)
        feature, row = changed[at], chosen[at, rank] - count
        for name, values in self._windows(feature.numpy(), row.numpy(), window).items():
            state[name][feature, rank] = torch.from_numpy(values).to(state[name].dtype)

    def _windows(self, feature: np.ndarray, row: np.ndarray, window: _Window) -> dict[str, np.ndarray]:
        """Tokens and activations around the peaks of features in rows of this shard."""
        position = self.position[feature, row].numpy()
        start, length = window.span(position, self.lengths[row])
        steps = np.arange(window.width)
        inside = steps < length[:, None]
        token = np.where(inside, (self.offsets[row] + start)[:, None] + steps, 0)
        wanted = feature[:, None] * len(self.ids) + token
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return {
            "row": self.numbers[row],
            "passage": self.passages[row],
            "position": position,
            "start": start,
            "length": length,
            "ids": np.where(inside, self.ids[token], 0),
            "activations": np.where(inside & (self.keys[at] == wanted), self.values[at], 0),
        }


def _begin(rows: TokenRows, window: _Window, features: int) -> dict[str, Tensor]:
    generator = np.random.default_rng(window.seed)
    chosen = np.sort(generator.permutation(len(rows))[: window.pool])
    lengths = np.array([len(rows.ids[i]) for i in chosen])
    start, length = window.span(generator.integers(1, lengths), lengths)
    ids = np.zeros((len(chosen), window.width), dtype=np.int32)
    for place, i in enumerate(chosen):
        ids[place, : length[place]] = rows.ids[i][start[place] : start[place] + length[place]]
    state = {
        "done": torch.zeros((), dtype=torch.int64),
        "fires": torch.zeros(features, dtype=torch.int64),
        "total": torch.zeros(features, dtype=torch.float64),
        "value": torch.zeros(features, window.count),
        "ids": torch.zeros(features, window.count, window.width, dtype=torch.int32),
        "activations": torch.zeros(features, window.count, window.width),
        "pool_row": torch.from_numpy(chosen.astype(np.int32)),
        "pool_passage": torch.tensor([rows.passage[i] for i in chosen], dtype=torch.int32),
        "pool_start": torch.from_numpy(start.astype(np.int32)),
        "pool_length": torch.from_numpy(length.astype(np.int32)),
        "pool_ids": torch.from_numpy(ids),
        "pool_max": torch.zeros(features, len(chosen)),
    }
    names = ("row", "passage", "position", "start", "length")
    return state | {name: torch.zeros(features, window.count, dtype=torch.int32) for name in names}


def _write(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    tensors = {name: value.contiguous() for name, value in state.items()}
    with whole_file(path) as draft:
        save_file(tensors, draft, with_digest(metadata, tensors))
