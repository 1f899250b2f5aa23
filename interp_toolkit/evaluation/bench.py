"""What every measurement of topics shares: titles, model, index, descriptions that are kept, and their look-up."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

import interp_toolkit
from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import cache_folder
from interp_toolkit.contract import library_versions
from interp_toolkit.embedder import NAME as EMBEDDER
from interp_toolkit.embedder import Embedder
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.protocols import best_by_answer, best_by_evidence, description_ranks
from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks
from interp_toolkit.explain import self_explain
from interp_toolkit.files import whole_file
from interp_toolkit.models import as_hooked_model, model_facts, weights_key
from interp_toolkit.pairs import read_titles
from interp_toolkit.results import intervals_by_measure
from interp_toolkit.runtime import Sampling
from interp_toolkit.tables import brief_repr

SITE = "blocks.23.hook_resid_post"
SEED = 0
SAMPLES = 6
TEMPERATURE = 0.7
GREEDY, ORACLE, EVIDENCE = "greedy", "best of six by answer", "best of six by evidence"
# Training titles on which weights are chosen during training, so that `val` is for measuring alone.
_DEV = 500
# Vectors described at a time and kept on disk: what an interruption can lose.
_SHARD = 256
# Groups of six texts that are drawn for the null vector: one group for all titles would be a matter of luck.
_NULL_GROUPS = 64


@dataclass(frozen=True)
class Titles:
    """The titles of one benchmark.

    Attributes:
        index: all of them, among which descriptions are looked up.
        train: to train on, shuffled, so that the first n are a sample.
        dev: training titles that choose the weights.
        held: split ``val``, shuffled; to measure on.
        shards: all titles in the order in which their vectors are read (that of training recipes, which share them).
        digest: of titles and splits, for results.
    """

    index: list[str]
    train: list[str]
    dev: list[str]
    held: list[str]
    shards: list[str]
    digest: str

    __repr__ = brief_repr

    @classmethod
    def read(cls, path: Path, limit: int | None) -> Titles:
        """The titles of a file with splits; of each side the first ``limit``."""
        index, splits = read_titles(path)
        if splits is None:
            raise InterpToolkitError(f"expected a split, train or val, for each title in {path}, and some have none")
        train, held = ([t for t, split in zip(index, splits) if split == side] for side in ("train", "val"))
        for side in (train, held):
            random.Random(SEED).shuffle(side)
        shards = train + held
        train, dev = train[:-_DEV], train[-_DEV:]
        if min(len(train), len(held)) < 2:
            raise InterpToolkitError(f"expected over {_DEV} train titles and some val titles in {path}, got too few")
        digest = hashlib.sha256(json.dumps([index, splits]).encode()).hexdigest()[:16]
        if limit is not None:
            train, dev, held = train[:limit], dev[:limit], held[:limit]
            shards = train + dev + held
        return cls(index, train, dev, held, shards, digest)


@dataclass(frozen=True)
class Told:
    """What an adapter said: for each vector its samples with their evidence, and the seconds that they took."""

    texts: list[list[str]]
    evidence: Tensor
    seconds: float

    __repr__ = brief_repr

    def repeated(self, n: int) -> Told:
        """For n vectors, these in turn: what a bias says is the same for all."""
        rows = [i % len(self.texts) for i in range(n)]
        return Told([self.texts[i] for i in rows], self.evidence[rows], self.seconds)


class Bench:
    """Titles, model, embedder and index; all but the titles are loaded at their first use.

    Attributes:
        data: folder of the data, in which the titles are ``topics/topics.jsonl.gz``.
        titles: of the benchmark.
        limit: how many of each side, None for all.
        progress: whether long work shows bars.
    """

    def __init__(self, path: Path, limit: int | None, model: Any = "smollm2-135m", *, progress: bool = True) -> None:
        self.data = path.parent.parent
        self._model = model
        self.titles = Titles.read(path, limit)
        self.limit = limit
        self.progress = progress
        self._embedded: dict[str, Tensor] = {}
        self._embedder = Embedder()

    @cached_property
    def model(self) -> Any:
        """The hooked model."""
        return as_hooked_model(self._model)

    @cached_property
    def index(self) -> Tensor:
        """Embeddings of all titles, [titles, 384]."""
        return self._embedder.cached(self.titles.index)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What results are compared by, and what they are of."""
        facts = model_facts(self.model)
        return dict(
            model=facts.model_id,
            revision=facts.revision,
            dtype=str(next(self.model.parameters()).dtype),
            weights=weights_key(self.model)[:16],
            embedder=EMBEDDER,
            titles=self.titles.digest,
            index=len(self.titles.index),
            split="val",
            seed=SEED,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that the figures depend on."""
        return library_versions() | {"sentence-transformers": version("sentence-transformers")}

    def describe(self, adapter: Adapter, vectors: Tensor, samples: int) -> Told:
        """Descriptions of centred vectors, greedy where one is asked for; kept in the cache folder shard by shard."""
        parts = [
            self._shard(adapter, shard, samples, null=False)
            for shard in tqdm(
                vectors.split(_SHARD), desc=f"describing x{samples}", unit="shard", disable=not self.progress
            )
        ]
        texts = [row for part in parts for row in part.texts]
        return Told(texts, torch.cat([part.evidence for part in parts]), sum(part.seconds for part in parts))

    def describe_nothing(self, adapter: Adapter, samples: int) -> Told:
        """What the adapter says of the null vector; several groups of samples where there are samples."""
        groups = 1 if samples == 1 else _NULL_GROUPS
        told = self._shard(adapter, torch.zeros(0, adapter.config.width), groups * samples, null=True)
        texts = told.texts[0]
        return Told(
            [texts[i : i + samples] for i in range(0, len(texts), samples)],
            told.evidence.view(groups, samples),
            told.seconds,
        )

    def look_up(self, greedy: Told, sampled: Told | None, answers: Tensor) -> dict[str, Any]:
        """Recall and mean reciprocal rank of descriptions, under each protocol: value, low, high."""
        ranks = {GREEDY: self._ranks(greedy, answers)[:, 0]}
        if sampled is not None:
            each = self._ranks(sampled, answers)
            ranks |= {ORACLE: best_by_answer(each), EVIDENCE: best_by_evidence(each, sampled.evidence)}
        return {protocol: intervals_by_measure(recall_table(found, seed=SEED)) for protocol, found in ranks.items()}

    def answers(self, titles: Sequence[str]) -> Tensor:
        """Numbers of these titles in the index."""
        number = {title: i for i, title in enumerate(self.titles.index)}
        return torch.tensor([number[title] for title in titles])

    def ceiling(self, titles: Sequence[str]) -> dict[str, list[float]]:
        """What the titles themselves find: less than all, where two titles are embedded alike."""
        ranks = retrieval_ranks(self.embed(list(titles)), self.index, self.answers(titles))
        return intervals_by_measure(recall_table(ranks, seed=SEED))

    def _ranks(self, told: Told, answers: Tensor) -> Tensor:
        return description_ranks(told.texts, self.embed, self.index, answers)

    def embed(self, texts: list[str]) -> Tensor:
        """Embeddings, remembered: the same descriptions are looked up for their own titles and for others'."""
        if new := [text for text in texts if text not in self._embedded]:
            self._embedded |= zip(new, self._embedder(new))
        return torch.stack([self._embedded[text] for text in texts])

    def _shard(self, adapter: Adapter, vectors: Tensor, samples: int, null: bool) -> Told:
        path = self._file(adapter, vectors, samples, null)
        try:
            told: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            start = time.perf_counter()
            said = self_explain(
                vectors,
                model=self.model,
                adapter=adapter,
                include_null=null,
                sampling=Sampling(n=samples, temperature=TEMPERATURE if samples > 1 else 0.0, seed=SEED),
            )
            seconds = time.perf_counter() - start
            told = dict(rows=[(row.description, _or_none(row.evidence)) for row in said], seconds=seconds)
            with whole_file(path) as draft:
                draft.write_text(json.dumps(told, ensure_ascii=False))
        texts = [text for text, _ in told["rows"]]
        evidence = torch.tensor([float("nan") if x is None else x for _, x in told["rows"]])
        rows = [texts[i : i + samples] for i in range(0, len(texts), samples)]
        return Told(rows, evidence.view(-1, samples), told["seconds"])

    def _file(self, adapter: Adapter, vectors: Tensor, samples: int, null: bool) -> Path:
        """Where a shard is kept: named for all that decides its texts, the code that makes them included."""
        told = [
            code_digest(),
            self.versions,
            weights_key(self.model),
            self.facts["dtype"],
            adapter.require_contract().require_soft_prompt().to_dict(),
            adapter.digest,
            hashlib.sha256(vectors.contiguous().numpy().tobytes()).hexdigest(),
            [samples, TEMPERATURE, SEED, null],
        ]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
        return cache_folder() / "descriptions" / f"{name}.json"


def code_digest() -> str:
    """A hash of the code that a description goes through."""
    root = Path(interp_toolkit.__file__).parent
    told = hashlib.sha256()
    for path in sorted(
        [root / "explain.py", root / "quotes.py", *(root / "runtime").glob("*.py"), *(root / "models").glob("*.py")]
    ):
        told.update(path.read_bytes())
    return told.hexdigest()


def _or_none(x: float) -> float | None:
    return None if x != x else x
