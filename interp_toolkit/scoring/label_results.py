"""Results files about labels of an SAE's features: their scores, and comparisons with descriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import uses_chat
from interp_toolkit.contract import library_versions
from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.json_lines import read_json
from interp_toolkit.models import model_facts
from interp_toolkit.results import make_result
from interp_toolkit.sae.facts import OnMismatch, check_features, sae_digest
from interp_toolkit.sae.label_files import SAELabels
from interp_toolkit.sae.quality import neutral_thresholds
from interp_toolkit.sae.store import ActivationStore
from interp_toolkit.scoring.agreement import agreement_summary, agreement_table
from interp_toolkit.scoring.example_texts import GenerationConfig
from interp_toolkit.scoring.feature_labels import REWORDED, comparison_rows, describe_features
from interp_toolkit.scoring.generation import generation_scores
from interp_toolkit.scoring.label_scores import score_table
from interp_toolkit.scoring.label_sources import TRIES

ADAPTER = "adapter"
_SCORES = "a result of `interp-toolkit sae score`"


def labelled_features(
    sae: Any, labels: SAELabels, features: Sequence[int] | None = None, limit: int | None = None
) -> list[int]:
    """The features to score: those asked for, where all of them have a label.

    Args:
        sae: the SAE.
        labels: of its features.
        features: numbers; None for all that have labels.
        limit: take the first so many.

    Raises:
        InterpToolkitError: a feature that the SAE does not have, or a feature that has no label.
    """
    check_features(labels.features, len(sae.W_dec))
    chosen = choose_features(labels.features if features is None else features, len(sae.W_dec), limit)
    if missing := sorted(set(chosen) - set(labels.features)):
        raise InterpToolkitError(f"expected a label of each feature, and {missing[0]} has none")
    return chosen


def choose_features(features: Sequence[int], count: int, limit: int | None = None) -> list[int]:
    """Features without repetitions, where an SAE of ``count`` features has them.

    Args:
        features: numbers.
        count: of the SAE's features.
        limit: take the first so many.

    Raises:
        InterpToolkitError: a feature that the SAE does not have, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InterpToolkitError(f"expected a limit of at least 1, got {limit}")
    return list(check_features(list(dict.fromkeys(features)), count))[:limit]


def score_result(
    model: Any,
    sae: Any,
    labels: SAELabels,
    features: Sequence[int],
    store: ActivationStore,
    *,
    adapter: Adapter | None = None,
    config: GenerationConfig | None = None,
    chat: bool | None = None,
    on_mismatch: OnMismatch = "error",
    folder: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Score labels, an adapter's descriptions and chance by texts that are written for them.

    Args:
        model: the hooked model.
        sae: an SAE of the model.
        labels: the original ones; those of features that are not scored serve as chance.
        features: numbers of the features to score, at least two.
        store: activations of neutral text at the SAE's site, for the thresholds.
        adapter: whose descriptions are scored too.
        config: how texts are generated; its seed is that of all draws.
        chat: as `generation_scores` takes it.
        on_mismatch: as `check_sae` takes it.
        folder: the cache folder.
        progress: whether to show bars.

    Returns:
        what a results file holds (`make_result`), with the tables ``table`` (`score_table` of both rates) and
        ``labels`` (`generation_scores`).

    Raises:
        ContractError: an SAE or an adapter of another model, width or site.
        InterpToolkitError: fewer than two features, or too few labels for chance.
    """
    config = config or GenerationConfig()
    by_feature = labels.by_feature()
    described = {}
    if adapter is not None:
        described[ADAPTER] = describe_features(
            model, adapter, sae, features, seed=config.seed, on_mismatch=on_mismatch, folder=folder, progress=progress
        )
    original = {feature: by_feature[feature][0] for feature in features}
    rows = comparison_rows(described, original, _chance_labels(labels, features), seed=config.seed)
    chat = uses_chat(model.tokenizer, chat)
    scores = generation_scores(
        model,
        sae,
        rows,
        neutral_thresholds(sae, store, features, config.seed),
        config=config,
        chat=chat,
        on_mismatch=on_mismatch,
        folder=folder,
        progress=progress,
    )
    tables = [score_table(scores, rate, against=REWORDED, seed=config.seed) for rate in ("rate", "strict_rate")]
    settings = _settings(model, sae, adapter, labels, config.seed)
    settings |= dict(n=len(features), texts=config.texts, chat=chat)
    return make_result(settings, library_versions(), dict(table=pd.concat(tables), labels=scores))


def comparison_result(
    model: Any,
    sae: Any,
    labels: SAELabels,
    features: Sequence[int],
    adapter: Adapter,
    embed: Callable[[list[str]], Tensor],
    *,
    scores: str | Path | None = None,
    seed: int = 0,
    on_mismatch: OnMismatch = "error",
    folder: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare labels with an adapter's descriptions of the same features.

    Args:
        model: the hooked model.
        sae: an SAE of the model.
        labels: the original ones.
        features: numbers of the features to compare.
        adapter: with its contract.
        embed: from texts to their embeddings, [texts, width]; for example `Embedder`.
        scores: a file with a `score_result` of the same SAE and adapter.
        seed: of all draws.
        on_mismatch: as `check_sae` takes it.
        folder: the cache folder.
        progress: whether to show bars.

    Returns:
        what a results file holds (`make_result`), with the tables ``summary`` (`agreement_summary`) and ``features``
        (`agreement_table`).

    Raises:
        ContractError: an SAE or an adapter of another model, width or site, or scores of another SAE or adapter.
        FileFormatError: a file that holds no scores.
    """
    described = describe_features(
        model, adapter, sae, features, seed=seed, on_mismatch=on_mismatch, folder=folder, progress=progress
    )
    settings = _settings(model, sae, adapter, labels, seed) | dict(n=len(features))
    by_feature = labels.by_feature()
    table = agreement_table(
        {feature: by_feature[feature] for feature in features},
        described,
        embed,
        scores=None if scores is None else _read_scores(Path(scores), settings),
        original=REWORDED,
        adapter=ADAPTER,
    )
    tables = dict(summary=agreement_summary(table, seed), features=table)
    return make_result(settings, library_versions(), tables)


def _chance_labels(labels: SAELabels, features: Sequence[int]) -> list[str]:
    """Labels of other features; of all, where nearly all are scored."""
    scored, by_feature = set(features), labels.by_feature()
    others = [text for feature, texts in by_feature.items() if feature not in scored for text in texts]
    if len(set(others)) >= TRIES:
        return others
    return [text for texts in by_feature.values() for text in texts]


def _settings(model: Any, sae: Any, adapter: Adapter | None, labels: SAELabels, seed: int) -> dict[str, Any]:
    facts = model_facts(model)
    return dict(
        model=facts.model_id,
        revision=facts.revision,
        dtype=str(next(model.parameters()).dtype),
        sae=sae_digest(sae),
        labels=dict(labels.origin),
        labeller=", ".join(sorted({name for name in labels.table["explainer"] if name})),
        adapter=adapter.digest if adapter else None,
        seed=seed,
    )


def _read_scores(path: Path, settings: dict[str, Any]) -> pd.DataFrame:
    result = read_json(path, _SCORES)
    try:
        table = pd.DataFrame(result["tables"]["labels"])
        saved = {name: result["settings"][name] for name in ("sae", "adapter")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"expected {_SCORES} at {path}: {error!r}") from error
    for name, value in saved.items():
        if value != settings[name]:
            raise ContractError(f"{path} holds scores of the {name} {value}, this is {settings[name]}; score it first")
    try:
        return table.assign(strict_rate=pd.to_numeric(table["strict_rate"]))
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"expected {_SCORES} at {path}: {error!r}") from error
