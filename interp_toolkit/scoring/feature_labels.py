"""Labels of an SAE's features from an adapter, and beside them all that they are to be compared with."""

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
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import self_explain
from interp_toolkit.models import weights_key
from interp_toolkit.sae.asking import Ask
from interp_toolkit.sae.directions import check_sae, sae_digest, sae_vectors
from interp_toolkit.scoring.label_sources import TRIES, label_rows, paraphrases, random_labels, shuffled_labels
from interp_toolkit.torch_defaults import plain_defaults

ORIGINAL, REWORDED = "original label", "original label, reworded"
# Features described at a time and kept on disk: what an interruption can lose.
_SHARD = 64


@plain_defaults()
def describe_features(
    model: Any,
    adapter: Adapter,
    sae: Any,
    features: Sequence[int],
    *,
    samples: int = TRIES,
    seed: int = 0,
    any_model: bool = False,
    any_site: bool = False,
    folder: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """What an adapter says of the decoder rows of features.

    With a folder, descriptions are kept there shard by shard, and what is there is not made again.

    Args:
        model: the hooked model.
        adapter: with its contract; `untrained_adapter` makes one that was not trained.
        sae: an SAE of the model.
        features: numbers, none twice.
        samples: descriptions a feature, greedy where one.
        seed: of the sampling.
        any_model: as `check_sae` takes it.
        any_site: likewise.
        folder: where to keep descriptions.
        progress: whether to show a bar, in features.

    Returns:
        a row each: ``feature``, ``number`` (from 0, within the feature), ``description``, ``evidence`` (NaN for an
        empty description).

    Raises:
        ContractError: an SAE or an adapter of another model, width or site.
        InterpToolkitError: no feature, one that the SAE does not have, twice, or without a direction.

    Example:
        >>> described = describe_features(model, adapter, sae, range(100))
    """
    check_sae(sae, model, adapter, any_model=any_model, any_site=any_site)
    if not len(features) or len(set(features)) < len(features):
        raise InterpToolkitError(f"expected at least one feature and each once, got {list(features)[:8]}")
    found = sae_vectors(sae, features)
    if found.dead.any():
        bad = found.index[int(found.dead.nonzero()[0])]
        raise InterpToolkitError(f"feature {bad} has no direction, since its decoder row is zero; leave it out")
    cache = None if folder is None else JsonCache("descriptions", folder)
    key = [] if cache is None else _key(model, adapter, sae, samples, seed)

    def describe(vectors: Tensor) -> list[tuple[str, float]]:
        table = self_explain(vectors, model=model, adapter=adapter, samples=samples, seed=seed)
        return [(row.description, row.evidence) for row in table]

    rows: list[tuple[int, int, str, float]] = []
    with tqdm(total=len(features), desc="describing", unit="feature", disable=not progress) as bar:
        for start in range(0, len(found), _SHARD):
            index = found.index[start : start + _SHARD]
            vectors = found.vectors[start : start + _SHARD]
            if cache is None:
                described = describe(vectors)
            else:
                described = cache.get([*key, index], lambda vectors=vectors: describe(vectors))
            rows += [(index[i // samples], i % samples, text, evidence) for i, (text, evidence) in enumerate(described)]
            bar.update(len(index))
    return pd.DataFrame(rows, columns=["feature", "number", "description", "evidence"])


def compared_rows(
    described: Mapping[str, pd.DataFrame],
    labels: Mapping[int, str],
    pool: Sequence[str],
    *,
    tries: int = TRIES,
    seed: int = 0,
    ask: Ask | None = None,
) -> pd.DataFrame:
    """Rows for `generation_scores`: descriptions, the original labels, and chance, with as many tries for each.

    The original label stands as it is, so many times (each time with texts of its own), and in so many wordings. Chance
    is every source's labels on other features, and labels drawn from a pool.

    Args:
        described: by the name of a source what it says, see `describe_features`; of the same features.
        labels: the original ones, one a feature.
        pool: labels of other features, for chance.
        tries: labels a feature and source.
        seed: of the draws.
        ask: for the rewording, see `paraphrases`.

    Returns:
        rows of the sources named in ``described``, ``"original label"``, ``"original label, reworded"``, ``"random
        labels"`` and ``"shuffled NAME"``; see `label_rows`.

    Raises:
        InterpToolkitError: fewer than two features, a pool that is too small, or features that differ.

    Example:
        >>> rows = compared_rows({"adapter": described}, labels, pool)
    """
    parts = []
    for name, table in described.items():
        said = {int(feature): list(own["description"]) for feature, own in table.groupby("feature", sort=False)}  # type: ignore[arg-type]
        if set(said) != set(labels):
            odd = min(set(said) ^ set(labels))
            raise InterpToolkitError(f"expected descriptions of {name!r} and labels of the same features, see {odd}")
        parts.append(label_rows(name, {feature: said[feature][:tries] for feature in labels}))
    reworded = label_rows(REWORDED, paraphrases(labels, tries, ask))
    shuffled = shuffled_labels(pd.concat([*parts, reworded], ignore_index=True), seed)
    repeated = label_rows(ORIGINAL, {feature: [label] * tries for feature, label in labels.items()})
    drawn = random_labels(list(labels), pool, tries, seed)
    return pd.concat([*parts, repeated, reworded, drawn, shuffled], ignore_index=True)


def _key(model: Any, adapter: Adapter, sae: Any, samples: int, seed: int) -> list[Any]:
    """All that decides a description but its feature."""
    prompt = adapter.require_contract().require_soft_prompt()
    of = [weights_key(model), adapter.digest, prompt.to_dict(), sae_digest(sae)]
    return [*of, samples, seed, library_versions()]
