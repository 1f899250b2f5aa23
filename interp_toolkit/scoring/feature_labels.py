"""Descriptions of an SAE's features by an adapter, and the labels to compare them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.cache import JsonCache
from interp_toolkit.contract import library_versions
from interp_toolkit.deprecation import moved_names
from interp_toolkit.engines import Engine, LocalEngine, as_engine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import self_explain
from interp_toolkit.models import weights_key
from interp_toolkit.runtime import Sampling
from interp_toolkit.sae.asking import Ask
from interp_toolkit.sae.directions import sae_vectors
from interp_toolkit.sae.facts import OnMismatch, check_sae, flags_renamed, sae_digest
from interp_toolkit.scoring.label_sources import TRIES, label_rows, paraphrases, random_labels, shuffled_labels
from interp_toolkit.torch_defaults import plain_defaults

ORIGINAL, REWORDED = "original label", "original label, reworded"
# Features described at a time: what an interruption can lose.
_SHARD = 64


@flags_renamed
@plain_defaults()
def describe_features(
    model: Any,
    adapter: Adapter,
    sae: Any,
    features: Sequence[int],
    *,
    samples: int = TRIES,
    seed: int = 0,
    on_mismatch: OnMismatch = "error",
    folder: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Describe features by an adapter, from their decoder rows.

    With a folder, descriptions are cached there, and what is cached is not made again.

    Args:
        model: the hooked model, the address of a server, or another engine, as of `self_explain`.
        adapter: with its contract; `untrained_adapter` makes one that was not trained.
        sae: an SAE of the model.
        features: numbers, none twice.
        samples: descriptions per feature, greedy where one.
        seed: of the sampling.
        on_mismatch: as `check_sae` takes it.
        folder: the cache folder.
        progress: whether to show a bar, in features.

    Returns:
        one row per description: ``feature``, ``number`` (from 0, within the feature), ``description``, ``evidence``
        (NaN for an empty description).

    Raises:
        ContractError: an SAE or an adapter of another model, width or site.
        InterpToolkitError: no feature, one that the SAE does not have, one twice, one without a direction, or, with a
            folder, a model with hooks or replaced forwards of your own.

    Example:
        >>> described = describe_features(model, adapter, sae, range(100))
    """
    engine = as_engine(model)
    check_sae(sae, engine.model if isinstance(engine, LocalEngine) else None, adapter, on_mismatch=on_mismatch)
    if not len(features) or len(set(features)) < len(features):
        raise InterpToolkitError(f"expected at least one feature and each once, got {list(features)[:8]}")
    directions = sae_vectors(sae, features)
    if directions.dead.any():
        bad = directions.index[int(directions.dead.nonzero()[0])]
        raise InterpToolkitError(f"feature {bad} has no direction, since its decoder row is zero; leave it out")
    cache = None if folder is None else JsonCache("descriptions", folder)
    key = [] if cache is None else _key(engine, adapter, sae, samples, seed)

    def describe(vectors: Tensor) -> list[tuple[str, float]]:
        table = self_explain(vectors, model=engine, adapter=adapter, sampling=Sampling(n=samples, seed=seed))
        return [(row.description, row.evidence) for row in table]

    rows: list[tuple[int, int, str, float]] = []
    with tqdm(total=len(features), desc="describing", unit="feature", disable=not progress) as bar:
        for start in range(0, len(directions), _SHARD):
            index = directions.index[start : start + _SHARD]
            vectors = directions.vectors[start : start + _SHARD]
            if cache is None:
                described = describe(vectors)
            else:
                described = cache.get([*key, index], lambda vectors=vectors: describe(vectors))
            rows += [(index[i // samples], i % samples, text, evidence) for i, (text, evidence) in enumerate(described)]
            bar.update(len(index))
    return pd.DataFrame(rows, columns=["feature", "number", "description", "evidence"])


def comparison_rows(
    described: Mapping[str, pd.DataFrame],
    labels: Mapping[int, str],
    pool: Sequence[str],
    *,
    tries: int = TRIES,
    seed: int = 0,
    ask: Ask | None = None,
) -> pd.DataFrame:
    """Rows for `generation_scores`: descriptions, the original labels, and chance, with equally many labels of each.

    The original label is in it so many times as it is (each time with texts of its own), and in so many wordings.
    Chance is every source's labels on other features, and labels drawn from a pool.

    Args:
        described: by the name of a source its descriptions, see `describe_features`; of the same features.
        labels: the original ones, one per feature.
        pool: labels of other features, for chance.
        tries: labels per feature and source.
        seed: of the draws.
        ask: for the rewording, see `paraphrases`.

    Returns:
        rows of the sources named in ``described``, ``"original label"``, ``"original label, reworded"``, ``"random
        labels"`` and ``"shuffled NAME"``; see `label_rows`.

    Raises:
        InterpToolkitError: fewer than two features, a pool that is too small, or features that differ.

    Example:
        >>> rows = comparison_rows({"adapter": described}, labels, pool)
    """
    sources = []
    for name, table in described.items():
        texts = {int(feature): list(rows["description"]) for feature, rows in table.groupby("feature", sort=False)}  # type: ignore[arg-type]
        if set(texts) != set(labels):
            odd = min(set(texts) ^ set(labels))
            raise InterpToolkitError(f"expected descriptions of {name!r} and labels of the same features, see {odd}")
        sources.append(label_rows(name, {feature: texts[feature][:tries] for feature in labels}))
    reworded = label_rows(REWORDED, paraphrases(labels, tries, ask))
    shuffled = shuffled_labels(pd.concat([*sources, reworded], ignore_index=True), seed)
    repeated = label_rows(ORIGINAL, {feature: [label] * tries for feature, label in labels.items()})
    drawn = random_labels(list(labels), pool, tries, seed)
    return pd.concat([*sources, repeated, reworded, drawn, shuffled], ignore_index=True)


def _key(engine: Engine, adapter: Adapter, sae: Any, samples: int, seed: int) -> list[Any]:
    """All that decides a description but its feature."""
    prompt = adapter.require_contract().require_soft_prompt()
    # The weights of an engine elsewhere are not at hand: its model, kind, dtype and versions stand for them.
    weights = (
        weights_key(engine.model)
        if isinstance(engine, LocalEngine)
        else [engine.facts.model_id, sorted(engine.identity.items())]
    )
    inputs = [weights, adapter.digest, prompt.to_dict(), sae_digest(sae)]
    return [*inputs, samples, seed, library_versions()]


__getattr__ = moved_names(__name__, {"compared_rows": "interp_toolkit.scoring:comparison_rows"})
