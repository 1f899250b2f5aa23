"""What the measurements of SAE features stand on: the SAE, its contexts, original labels, and who is held out."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sae_losses import best_length, untrained
from sae_words import first_labels, text_at_large, word_labels
from topics_cells import ANSWER, QUESTION
from torch import Tensor

from interp_toolkit import Adapter, SoftPrompt, VectorLabelPairs
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.bench import SEED, Bench
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.pairs.topics import PROMPT
from interp_toolkit.sae import (
    SAELabels,
    SAERecipe,
    SAEResult,
    feature_quantiles,
    sae_digest,
    sae_pairs,
    sae_vectors,
    store_activations,
)
from interp_toolkit.sites import Site

# Tokens on which a feature's 99th percentile is taken.
_NEUTRAL = 100_000
SOURCES = ("sae", "topics")


@dataclass(frozen=True)
class Sizes:
    """How many of each.

    Attributes:
        train: features, and likewise titles, that adapters are trained on.
        dev: features, and likewise titles, that choose weights and scales.
        held: features, and likewise titles, on which losses are measured.
        scored: of the held features, those for whose labels texts are written.
        texts: for each label.
        fires: least number of tokens on which a feature is active, to be used at all.
        steps: of an adapter's training.
        batch: examples a step.
    """

    train: int = 1536
    dev: int = 96
    held: int = 150
    scored: int = 60
    texts: int = 4
    fires: int = 50
    steps: int = 96
    batch: int = 32

    @classmethod
    def of(cls, limit: int | None) -> Sizes:
        """Those of a whole run, or of a trial on so many features."""
        if limit is None:
            return cls()
        return cls(train=4 * limit, dev=limit, held=limit, scored=limit, texts=2, fires=5, steps=2, batch=8)


def trial(recipe: SAERecipe, limit: int) -> SAERecipe:
    """A tiny SAE, which is good for nothing but to see that all goes through."""
    small = replace(recipe.sae, features=256, k=16, tokens=20 * 256, batch_size=256)
    return replace(recipe, output=f"{recipe.output}-labels-limit-{limit}", train=12, eval=2, sae=small)


@dataclass(frozen=True, eq=False)
class Rows:
    """Vectors with a label each.

    Attributes:
        vectors: directions of features, or centred vectors of titles, [n, d_model].
        labels: one a vector.
    """

    vectors: Tensor
    labels: list[str]


class Ground:
    """The SAE and all that is the same for every adapter; made at its first use, or found where it was kept.

    Attributes:
        bench: of titles, with the model and the embedder.
        recipe: of the SAE.
        sizes: how many of each.
        limit: of a trial, or None.
    """

    def __init__(self, recipe: SAERecipe, data: Path, limit: int | None) -> None:
        self.data, self.limit, self.sizes = data, limit, Sizes.of(limit)
        self.recipe = recipe if limit is None else trial(recipe, limit)
        self.bench = Bench(data / "topics" / "topics.jsonl.gz", None if limit is None else 4 * limit, recipe.model)

    @property
    def model(self) -> Any:
        return self.bench.model

    @property
    def site(self) -> Site:
        return Site.parse(self.recipe.site)

    @cached_property
    def result(self) -> SAEResult:
        """The SAE, trained or found."""
        return self.recipe.run(self.data, self.model, progress=True)

    @property
    def sae(self) -> Any:
        return self.result.sae

    @cached_property
    def labelled(self) -> tuple[SAELabels, pd.DataFrame]:
        """Original labels, made of every other one of a feature's best contexts, and the features without any."""
        background = text_at_large(self.recipe, self.data)
        found = word_labels(background, self.result.contexts, range(len(self.sae.W_dec)))
        return found.labels, found.failed

    @cached_property
    def originals(self) -> dict[int, str]:
        """Each labelled feature's first label."""
        return first_labels(self.labelled[0])

    @cached_property
    def features(self) -> dict[str, list[int]]:
        """Numbers of features by side: ``train``, ``dev``, ``held``; none is on two."""
        sizes, seen = self.sizes, self.result.contexts.features
        often = set(seen.loc[seen["fires"] >= sizes.fires, "feature"])
        chosen = sorted(often & set(self.originals))
        wanted = sizes.held + sizes.dev + sizes.train
        if len(chosen) < wanted:
            raise InterpToolkitError(
                f"expected {wanted} labelled features that are active on at least {sizes.fires} tokens, and the SAE at "
                f"{self.recipe.output} has {len(chosen)}; train it on more tokens"
            )
        random.Random(SEED).shuffle(chosen)
        held, dev = sizes.held, sizes.held + sizes.dev
        return dict(held=chosen[:held], dev=chosen[held:dev], train=chosen[dev:wanted])

    @cached_property
    def titles(self) -> dict[str, list[str]]:
        """Titles by the same sides."""
        of, sizes = self.bench.titles, self.sizes
        return dict(held=of.held[: sizes.held], dev=of.dev[: sizes.dev], train=of.train[: sizes.train])

    @cached_property
    def _topics(self) -> tuple[dict[str, Tensor], Tensor]:
        sides = {
            side: topic_vectors(self.model, listed, self.site, progress=True) for side, listed in self.titles.items()
        }
        mean = sides["train"].mean(0)
        return {side: raw - mean for side, raw in sides.items()}, mean

    def rows(self, source: str, side: str) -> Rows:
        """Features (``sae``) or titles (``topics``) of one side."""
        if source == "topics":
            return Rows(self._topics[0][side], self.titles[side])
        features = self.features[side]
        return Rows(sae_vectors(self.sae, features).vectors, [self.originals[feature] for feature in features])

    def pairs(self, source: str) -> VectorLabelPairs:
        """Training and dev rows of ``sae``, ``topics``, or ``both`` in equal parts; one label each."""
        if source == "both":
            return VectorLabelPairs.mix([(self.pairs("sae"), 1.0), (self.pairs("topics"), 1.0)], seed=SEED)
        if source == "sae":
            side = {
                feature: split
                for split, name in (("train", "train"), ("val", "dev"))
                for feature in self.features[name]
            }
            table: Any = self.labelled[0].table.drop_duplicates("feature")
            table = table[table["feature"].isin(list(side))]
            labels = SAELabels(table.assign(split=table["feature"].map(side)), self.labelled[0].origin)
            return sae_pairs(self.sae, labels)
        train, dev = self.rows("topics", "train"), self.rows("topics", "dev")
        facts = model_facts(self.model)
        return VectorLabelPairs.build(
            torch.cat([train.vectors, dev.vectors]),
            [*train.labels, *dev.labels],
            splits=["train"] * len(train.labels) + ["val"] * len(dev.labels),
            site=self.site,
            mean=self._topics[1],
            origin=dict(
                model=facts.model_id, revision=facts.revision, prompt=PROMPT, source="contrastive topic vectors"
            ),
        )

    @cached_property
    def soft_prompt(self) -> SoftPrompt:
        return SoftPrompt.for_chat(self.model.tokenizer, QUESTION, ANSWER)

    def untrained(self, length: float) -> Adapter:
        """The direction itself, of this length."""
        return untrained(self.model, self.soft_prompt, length)

    def best_length(self, source: str) -> float:
        """The length of the untrained direction at which labels of dev rows cost least."""
        told = [self.rows(one, "dev") for one in (SOURCES if source == "both" else (source,))]
        vectors, labels = torch.cat([rows.vectors for rows in told]), [label for rows in told for label in rows.labels]
        return best_length(self.model, self.soft_prompt, vectors, labels)

    def thresholds(self, features: list[int]) -> dict[int, float]:
        """Each feature's own 99th percentile on passages that the SAE was not trained on."""
        rows = self.recipe.rows(self.model.tokenizer, self.data, "eval")
        store = store_activations(self.model, rows, self.site, progress=True)[self.site]
        return dict(zip(features, feature_quantiles(self.sae, store.sample(_NEUTRAL, SEED), features).tolist()))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What all results are of, and are compared by."""
        labels = self.labelled[0]
        told = {name: labels.table[name].tolist() for name in ("feature", "label")}
        return self.bench.facts | dict(
            site=str(self.site),
            sae=sae_digest(self.sae),
            sae_features=len(self.sae.W_dec),
            without_label=len(self.labelled[1]),
            labeller=", ".join(sorted(set(labels.table["explainer"]))),
            labels=hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
            passages=self.recipe.passages,
            soft_prompt=[QUESTION, ANSWER],
            sizes=vars(self.sizes),
        )
