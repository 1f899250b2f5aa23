"""What the measurements of SAE features stand on: the SAE, its contexts, original labels, and who is held out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.sae.losses import best_length, untrained
from benchmarks.sae.words import first_labels, text_at_large, word_labels
from benchmarks.titles import title_context
from benchmarks.topics.cells import ANSWER, QUESTION, centred_pairs
from interp_toolkit import Adapter, SoftPrompt, VectorLabelPairs
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.sae import (
    SAELabels,
    SAERecipe,
    SAEResult,
    feature_quantiles,
    sae_digest,
    sae_vectors,
    store_activations,
)
from interp_toolkit.sae import (
    pairs as sae_pairs,
)
from interp_toolkit.sites import Site

# Tokens on which a feature's 99th percentile is taken.
NEUTRAL_TOKENS = 100_000
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
    def for_limit(cls, limit: int | None) -> Sizes:
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


def first_label_pairs(sae: Any, labels: SAELabels, sides: Mapping[str, Sequence[int]]) -> VectorLabelPairs:
    """Directions of features with their first labels; those of side ``dev`` validate.

    Args:
        sae: the SAE.
        labels: of its features.
        sides: numbers of features by side, ``train`` and ``dev`` among them.
    """
    split = {feature: name for name, side in (("train", "train"), ("val", "dev")) for feature in sides[side]}
    table: Any = labels.table.drop_duplicates("feature")
    table = table[table["feature"].isin(list(split))]
    return sae_pairs(sae, SAELabels(table.assign(split=table["feature"].map(split)), labels.origin))


class Ground:
    """The SAE and all that is the same for every adapter; made at its first use, or found where it was kept.

    Attributes:
        context: titles, with the model and the embedder.
        recipe: of the SAE.
        sizes: how many of each.
        limit: of a trial, or None.
    """

    def __init__(self, recipe: SAERecipe, data: Path, limit: int | None) -> None:
        self.data, self.limit, self.sizes = data, limit, Sizes.for_limit(limit)
        self.recipe = recipe if limit is None else trial(recipe, limit)
        self.context = title_context(data, None if limit is None else 4 * limit, recipe.model)

    @property
    def model(self) -> Any:
        return self.context.model

    @property
    def site(self) -> Site:
        return Site.parse(self.recipe.site)

    @cached_property
    def result(self) -> SAEResult:
        """The SAE, trained here or by an earlier run."""
        return self.recipe.run(self.data, self.model, progress=True)

    @property
    def sae(self) -> Any:
        return self.result.sae

    @cached_property
    def labelled(self) -> tuple[SAELabels, pd.DataFrame]:
        """Original labels, made of every second top activating example, and the features without any."""
        background = text_at_large(self.recipe, self.data)
        result = word_labels(background, self.result.top_examples, range(len(self.sae.W_dec)))
        return result.labels, result.failed

    @cached_property
    def originals(self) -> dict[int, str]:
        """Each labelled feature's first label."""
        return first_labels(self.labelled[0])

    @cached_property
    def features(self) -> dict[str, list[int]]:
        """Numbers of features by side: ``train``, ``dev``, ``held``; none is on two."""
        sizes, seen = self.sizes, self.result.top_examples.features
        often = set(seen.loc[seen["active_tokens"] >= sizes.fires, "feature"])
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
        titles, sizes = self.context.titles, self.sizes
        return dict(held=titles.held_out[: sizes.held], dev=titles.dev[: sizes.dev], train=titles.train[: sizes.train])

    @cached_property
    def _topics(self) -> dict[str, Tensor]:
        """Vectors of titles, by side, as they are read."""
        return {side: topic_vectors(self.model, x, self.site, progress=True) for side, x in self.titles.items()}

    def rows(self, source: str, side: str) -> Rows:
        """Features (``sae``) or titles (``topics``) of one side."""
        if source == "topics":
            return Rows(self._topics[side] - self._topics["train"].mean(0), self.titles[side])
        features = self.features[side]
        return Rows(sae_vectors(self.sae, features).vectors, [self.originals[feature] for feature in features])

    def pairs(self, source: str) -> VectorLabelPairs:
        """Training and dev rows of ``sae``, ``topics``, or ``both`` in equal parts; one label each."""
        if source == "both":
            return VectorLabelPairs.concat([self.pairs("sae"), self.pairs("topics")], ratios=[1.0, 1.0], seed=SEED)
        if source == "sae":
            return first_label_pairs(self.sae, self.labelled[0], self.features)
        train, dev = ((self._topics[side], self.titles[side]) for side in ("train", "dev"))
        return centred_pairs(self.model, self.site, train, dev)

    @cached_property
    def soft_prompt(self) -> SoftPrompt:
        return SoftPrompt.for_chat(self.model.tokenizer, QUESTION, ANSWER)

    def untrained(self, length: float) -> Adapter:
        """The direction itself, of this length."""
        return untrained(self.model, self.soft_prompt, length)

    def best_length(self, source: str) -> float:
        """The length of the untrained direction at which labels of dev rows cost least."""
        sources = [self.rows(x, "dev") for x in (SOURCES if source == "both" else (source,))]
        vectors = torch.cat([rows.vectors for rows in sources])
        labels = [label for rows in sources for label in rows.labels]
        return best_length(self.model, self.soft_prompt, vectors, labels)

    def thresholds(self, features: list[int]) -> dict[int, float]:
        """Each feature's 99th percentile on passages that the SAE was not trained on."""
        rows = self.recipe.rows(self.model.tokenizer, self.data, "eval")
        store = store_activations(self.model, rows, self.site, progress=True)[self.site]
        return dict(zip(features, feature_quantiles(self.sae, store.sample(NEUTRAL_TOKENS, SEED), features).tolist()))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What all results are of, and are compared by."""
        labels = self.labelled[0]
        columns = {name: labels.table[name].tolist() for name in ("feature", "label")}
        return self.context.facts | dict(
            site=str(self.site),
            sae=sae_digest(self.sae),
            sae_features=len(self.sae.W_dec),
            without_label=len(self.labelled[1]),
            labeller=", ".join(sorted(set(labels.table["explainer"]))),
            labels=hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16],
            passages=self.recipe.passages,
            soft_prompt=[QUESTION, ANSWER],
            sizes=vars(self.sizes),
        )
