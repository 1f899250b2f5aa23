"""What evaluations share: titles, the hooked model, the index of titles, and descriptions, which are cached."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

import interp_toolkit
from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import JsonCache
from interp_toolkit.contract import library_versions
from interp_toolkit.embedder import NAME as EMBEDDER
from interp_toolkit.embedder import Embedder
from interp_toolkit.engines import Engine, as_engine
from interp_toolkit.evaluation.retrieval import (
    best_by_answer,
    best_by_evidence,
    description_ranks,
    recall_table,
    retrieval_ranks,
)
from interp_toolkit.evaluation.titles import Titles
from interp_toolkit.explain import self_explain
from interp_toolkit.files import sha256_of
from interp_toolkit.models import as_hooked_model, model_facts, weights_key
from interp_toolkit.results import intervals_by_measure
from interp_toolkit.runtime import Sampling
from interp_toolkit.tables import brief_repr

SEED = 0
SAMPLES = 6
TEMPERATURE = 0.7
GREEDY, ORACLE, EVIDENCE = "greedy", "best of six by answer", "best of six by evidence"
# Vectors described at a time and cached together: what an interruption can lose.
_SHARD = 256
# Groups of six texts that are drawn for the null vector: one group for all titles would be a matter of luck.
_NULL_GROUPS = 64


@dataclass(frozen=True)
class Descriptions:
    """Descriptions of vectors by an adapter.

    Attributes:
        texts: for each vector its samples.
        evidence: in nats per token, [vectors, samples]; NaN for an empty description.
        seconds: that the descriptions took.
    """

    texts: list[list[str]]
    evidence: Tensor
    seconds: float

    __repr__ = brief_repr

    def repeated(self, n: int) -> Descriptions:
        """For n vectors, these in turn: descriptions of the null vector are the same for all."""
        rows = [i % len(self.texts) for i in range(n)]
        return Descriptions([self.texts[i] for i in rows], self.evidence[rows], self.seconds)


@dataclass(frozen=True)
class QuestionFile:
    """A file of two-hop questions.

    Attributes:
        name: by which tables call it.
        path: see `read_twohop`.
        candidates: how many questions are filtered.
        aliases: a file with further names of its entities, see `read_aliases`; it need not exist.
        tuned: whether settings are chosen on some of its questions, and chat is tried on it.
    """

    name: str
    path: Path
    candidates: int
    aliases: Path | None = None
    tuned: bool = False


class EvalContext:
    """What evaluations share; all but the titles is loaded at its first use.

    Args:
        titles: file of titles, see `Titles.read`.
        limit: how many titles of each side, and prompts of each group, are measured; None for all.
        model: a hooked model, or what `load_model` takes.
        questions: files of two-hop questions, for the evaluation of bridges.
        jacobian_lens: TransformerLens's `JacobianLens`, fitted to the model, for the evaluation ``privileged``; it is
            then measured beside the logit lens.
        engine: what describes vectors and scores labels in the model's place, as ``model`` of `self_explain` takes it:
            the address of a server, for example. The model itself reads vectors, and writes what has no soft token.
        progress: whether long work shows bars.

    Example:
        >>> context = EvalContext("topics.jsonl.gz", limit=100, model="smollm2-135m")
        >>> run_evaluation("controls", context, adapter, "controls.json")["tables"]["controls"]
    """

    def __init__(
        self,
        titles: str | Path,
        limit: int | None = None,
        model: Any = None,
        *,
        questions: Sequence[QuestionFile] = (),
        jacobian_lens: Any = None,
        engine: Any = None,
        progress: bool = True,
    ) -> None:
        self._model, self._engine = model, engine
        self.titles = Titles.read(Path(titles), limit)
        self.limit = limit
        self.questions = tuple(questions)
        self.jacobian_lens = jacobian_lens
        self.progress = progress
        self._embeddings: dict[str, Tensor] = {}
        self._embedder = Embedder()

    @cached_property
    def model(self) -> Any:
        """The hooked model."""
        return as_hooked_model(self._model)

    @cached_property
    def engine(self) -> Engine:
        """What describes vectors and scores labels."""
        return as_engine(self.model if self._engine is None else self._engine)

    @property
    def _engine_settings(self) -> dict[str, Any]:
        """Which engine that is, where it is not the model itself."""
        return {} if self._engine is None else dict(engine=dict(self.engine.identity))

    @cached_property
    def index(self) -> Tensor:
        """Embeddings of all titles, [titles, width]."""
        return self._embedder.cached(self.titles.index)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Settings that all results have: the model, its weights, the titles and the seed."""
        return self.model_settings | dict(
            embedder=EMBEDDER, titles=self.titles.digest, index=len(self.titles.index), split="val", seed=SEED
        )

    @cached_property
    def model_settings(self) -> dict[str, Any]:
        """Settings that say which model was measured."""
        facts = model_facts(self.model)
        return dict(
            model=facts.model_id,
            revision=facts.revision,
            dtype=str(next(self.model.parameters()).dtype),
            weights=weights_key(self.model)[:16],
            **self._engine_settings,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that the numbers depend on."""
        return library_versions() | {"sentence-transformers": version("sentence-transformers")}

    def key(self, *modules: ModuleType) -> list[Any]:
        """What all cached values depend on: the code, the libraries, the model's weights and dtype.

        Args:
            modules: whose code decides the value, beside that of `self_explain`.
        """
        return [
            *(code_digest(*modules), self.versions, weights_key(self.model), self.facts["dtype"]),
            *self._engine_settings.values(),
        ]

    def describe(self, adapter: Adapter, vectors: Tensor, samples: int) -> Descriptions:
        """Describe centred vectors, greedily where one sample is asked for; cached shard by shard.

        Args:
            adapter: with its contract.
            vectors: [n, width].
            samples: descriptions per vector.
        """
        shards = tqdm(vectors.split(_SHARD), desc=f"describing x{samples}", unit="shard", disable=not self.progress)
        key = self.key()  # a pass over the weights
        described = [self._describe_shard(key, adapter, shard, samples, include_null=False) for shard in shards]
        return Descriptions(
            [row for one in described for row in one.texts],
            torch.cat([one.evidence for one in described]),
            sum(one.seconds for one in described),
        )

    def describe_null(self, adapter: Adapter, samples: int) -> Descriptions:
        """Describe the null vector; several groups of samples where there are samples."""
        groups = 1 if samples == 1 else _NULL_GROUPS
        nothing = torch.zeros(0, adapter.config.width)
        described = self._describe_shard(self.key(), adapter, nothing, groups * samples, include_null=True)
        texts = described.texts[0]
        return Descriptions(
            [texts[i : i + samples] for i in range(0, len(texts), samples)],
            described.evidence.view(groups, samples),
            described.seconds,
        )

    def describe_greedily(self, adapter: Adapter, vectors: Tensor) -> list[str]:
        """One greedy description of each vector; vectors that are all null are described as the null vector."""
        described = self.describe(adapter, vectors, 1) if vectors.any() else self.describe_null(adapter, 1)
        return [texts[0] for texts in described.texts]

    def look_up(self, greedy: Descriptions, sampled: Descriptions | None, answers: Tensor) -> dict[str, Any]:
        """Recall and mean reciprocal rank of descriptions, under each protocol: value, low, high.

        Args:
            greedy: one description per vector.
            sampled: several samples per vector, for the two protocols that choose among them.
            answers: number of the right title in the index for each vector.
        """
        ranks = {GREEDY: self.ranks(greedy.texts, answers)[:, 0]}
        if sampled is not None:
            sample_ranks = self.ranks(sampled.texts, answers)
            ranks |= {ORACLE: best_by_answer(sample_ranks), EVIDENCE: best_by_evidence(sample_ranks, sampled.evidence)}
        return {protocol: intervals_by_measure(recall_table(x, seed=SEED)) for protocol, x in ranks.items()}

    def ranks(self, descriptions: Sequence[Sequence[str]], answers: Tensor) -> Tensor:
        """Rank of the right title for each description, [vectors, samples]; see `description_ranks`."""
        return description_ranks(descriptions, self.embed, self.index, answers)

    def answers(self, titles: Sequence[str]) -> Tensor:
        """Numbers of these titles in the index."""
        number = {title: i for i, title in enumerate(self.titles.index)}
        return torch.tensor([number[title] for title in titles])

    def ceiling(self, titles: Sequence[str]) -> dict[str, list[float]]:
        """Recall of the titles by themselves: below 1 where two titles have the same embedding."""
        ranks = retrieval_ranks(self.embed(list(titles)), self.index, self.answers(titles))
        return intervals_by_measure(recall_table(ranks, seed=SEED))

    def embed(self, texts: list[str]) -> Tensor:
        """Embeddings, remembered: the same descriptions are looked up for several titles."""
        if new := [text for text in texts if text not in self._embeddings]:
            self._embeddings |= zip(new, self._embedder(new))
        return torch.stack([self._embeddings[text] for text in texts])

    def _describe_shard(
        self, key: list[Any], adapter: Adapter, vectors: Tensor, samples: int, include_null: bool
    ) -> Descriptions:
        def describe() -> dict[str, Any]:
            start = time.perf_counter()
            table = self_explain(
                vectors,
                model=self.engine,
                adapter=adapter,
                include_null=include_null,
                sampling=Sampling(n=samples, temperature=TEMPERATURE if samples > 1 else 0.0, seed=SEED),
            )
            seconds = time.perf_counter() - start
            return dict(rows=[(row.description, row.evidence) for row in table], seconds=seconds)

        value = JsonCache("descriptions").get(
            self._descriptions_key(key, adapter, vectors, samples, include_null), describe
        )
        texts = [text for text, _ in value["rows"]]
        evidence = torch.tensor([x for _, x in value["rows"]])
        by_vector = [texts[i : i + samples] for i in range(0, len(texts), samples)]
        return Descriptions(by_vector, evidence.view(-1, samples), value["seconds"])

    def _descriptions_key(
        self, key: list[Any], adapter: Adapter, vectors: Tensor, samples: int, include_null: bool
    ) -> list[Any]:
        return [
            *key,
            adapter.require_contract().require_soft_prompt().to_dict(),
            adapter.digest,
            tensor_digest(vectors),
            [samples, TEMPERATURE, SEED, include_null],
        ]


def tensor_digest(values: Tensor) -> str:
    """SHA-256 of a tensor's numbers."""
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def code_digest(*modules: ModuleType) -> str:
    """SHA-256 of the code that a description goes through, and of further modules."""
    root = Path(interp_toolkit.__file__).parent
    shared = [
        root / "describing.py",
        root / "explain.py",
        root / "quotes.py",
        *(root / "runtime").glob("*.py"),
        *(root / "models").glob("*.py"),
    ]
    digests = [sha256_of(path) for path in [*sorted(shared), *(Path(str(module.__file__)) for module in modules)]]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
