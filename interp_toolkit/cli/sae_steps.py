"""What the commands for SAEs do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_toolkit.cli.printing import print_tables

if TYPE_CHECKING:
    import pandas as pd

    from interp_toolkit.sae import ActivationStore, Contexts, Labeller, SAELabels

_ADAPTER = "adapter"
_SCORES = "a result of `interp-toolkit sae score`"
# Tokens of neutral text from which a feature's own 99th percentile is taken.
_NEUTRAL = 100_000
_SHOWN = 10


def train(options: argparse.Namespace) -> None:
    """``sae train``."""
    from interp_toolkit.sae import SAERecipe

    recipe = SAERecipe.read(options.config)
    result = recipe.run(options.data, progress=_bars())
    print_tables(options, {"quality": result.quality}, f"written to {recipe.output}")


def label(options: argparse.Namespace) -> None:
    """``sae label``."""
    from interp_toolkit.cache import cache_folder
    from interp_toolkit.sae import label_features

    model, sae = _load(options)
    features = _chosen(options, range(len(sae.W_dec)), len(sae.W_dec))
    texts = _texts(options)
    labeller = _labeller(options, texts)
    contexts = _contexts(options, model, sae, texts)
    found = label_features(labeller, contexts.of, features, cache_folder(), progress=_bars())
    found.labels.write(options.output)
    print(f"{len(found.labels.features)} of {len(features)} features have labels by {labeller.name}")
    for reason, own in found.failed.groupby("reason"):
        numbers = own["feature"].tolist()
        more = ", ..." if len(numbers) > _SHOWN else ""
        print(f"{len(numbers)} without: {reason} ({', '.join(map(str, numbers[:_SHOWN]))}{more})")
    print(f"written to {options.output}")


def score(options: argparse.Namespace) -> None:
    """``sae score``."""
    import pandas as pd

    from interp_toolkit.cache import cache_folder
    from interp_toolkit.chat import uses_chat
    from interp_toolkit.contract import library_versions
    from interp_toolkit.results import json_rows, write_result
    from interp_toolkit.sae import feature_quantiles
    from interp_toolkit.scoring import Writing, generation_scores, score_table
    from interp_toolkit.scoring.feature_labels import REWORDED, compared_rows
    from interp_toolkit.scoring.label_sources import TRIES

    model, sae = _load(options)
    labels = _labels(options, sae)
    by_feature = labels.by_feature()
    features = _labelled(options, sae, labels)
    texts = _texts(options)
    others = [text for feature, own in by_feature.items() if feature not in set(features) for text in own]
    # Where nearly all features are measured, chance takes labels from among them.
    pool = others if len(set(others)) >= TRIES else [text for own in by_feature.values() for text in own]
    adapter, described = None, {}
    if options.adapter:
        adapter, said = _describe(options, model, sae, features)
        described[_ADAPTER] = said
    first = {feature: by_feature[feature][0] for feature in features}
    rows = compared_rows(described, first, pool, seed=options.seed)
    store = _store(model, sae, texts)
    quantiles = feature_quantiles(sae, store.sample(_NEUTRAL, options.seed), features)
    chat = uses_chat(model.tokenizer, False if options.no_chat else None)
    scores = generation_scores(
        model,
        sae,
        rows,
        dict(zip(features, quantiles.tolist())),
        writing=Writing(texts=options.texts, seed=options.seed),
        chat=chat,
        any_model=options.any_model,
        folder=cache_folder() / "generation",
        progress=_bars(),
    )
    tables = [score_table(scores, name, against=REWORDED, seed=options.seed) for name in ("rate", "strict_rate")]
    settings = _settings(options, model, sae, adapter, labels) | dict(n=len(features), texts=options.texts, chat=chat)
    told = dict(table=json_rows(pd.concat(tables)), labels=json_rows(scores))
    write_result(options.output, dict(settings=settings, versions=library_versions(), tables=told))
    shown: Any = tables[1].query("what == 'mean'")[["source", "protocol", "value", "low", "high", "n", "seed"]]
    note = f"strict_rate: the feature is active on the text's own tokens\nwritten to {options.output}"
    print_tables(options, {"strict_rate": shown}, note)


def compare(options: argparse.Namespace) -> None:
    """``sae compare``."""
    from interp_toolkit.contract import library_versions
    from interp_toolkit.embedder import Embedder
    from interp_toolkit.results import json_rows, write_result
    from interp_toolkit.scoring.agreement import agreement_summary, agreement_table
    from interp_toolkit.scoring.feature_labels import REWORDED

    model, sae = _load(options)
    labels = _labels(options, sae)
    features = _labelled(options, sae, labels)
    adapter, described = _describe(options, model, sae, features)
    settings = _settings(options, model, sae, adapter, labels) | dict(n=len(features))
    scores = _scores(options.scores, settings) if options.scores else None
    by_feature = labels.by_feature()
    table = agreement_table(
        {feature: by_feature[feature] for feature in features},
        described,
        Embedder(),
        scores=scores,
        original=REWORDED,
        adapter=_ADAPTER,
    )
    summary = agreement_summary(table, options.seed)
    told = dict(summary=json_rows(summary), features=json_rows(table))
    write_result(options.output, dict(settings=settings, versions=library_versions(), tables=told))
    shown: Any = table[["feature", "label", "description", "evidence", "similarity"]].head(_SHOWN)
    print_tables(options, {"summary": summary, "farthest apart": shown}, f"written to {options.output}")


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    from interp_toolkit.models import load_model
    from interp_toolkit.sae import check_sae, load_sae

    sae, model = load_sae(options.sae, options.id), load_model(options.model)
    check_sae(sae, model, any_model=options.any_model)
    return model, sae


def _chosen(options: argparse.Namespace, known: Sequence[int], count: int) -> list[int]:
    """The features that are asked for, of those that can be."""
    from interp_toolkit.errors import InterpToolkitError
    from interp_toolkit.sae.directions import check_features

    if options.limit is not None and options.limit < 1:
        raise InterpToolkitError(f"expected --limit of at least 1, got {options.limit}")
    asked = known if options.features is None else list(dict.fromkeys(options.features))
    return list(check_features(asked, count))[: options.limit]


def _labels(options: argparse.Namespace, sae: Any) -> SAELabels:
    from interp_toolkit.sae import read_labels
    from interp_toolkit.sae.directions import check_features

    labels = read_labels(options.labels)
    check_features(labels.features, len(sae.W_dec))
    return labels


def _labelled(options: argparse.Namespace, sae: Any, labels: SAELabels) -> list[int]:
    from interp_toolkit.errors import InterpToolkitError

    features = _chosen(options, labels.features, len(sae.W_dec))
    if missing := sorted(set(features) - set(labels.features)):
        raise InterpToolkitError(f"expected a label of each feature in {options.labels}, and {missing[0]} has none")
    return features


def _texts(options: argparse.Namespace) -> list[str]:
    from interp_toolkit.sae import read_passages

    return read_passages(options.passages, options.split, options.take)["text"].tolist()


def _store(model: Any, sae: Any, texts: Sequence[str]) -> ActivationStore:
    from interp_toolkit.sae import store_activations, token_rows
    from interp_toolkit.sae.directions import require_site

    site = require_site(sae)
    return store_activations(model, token_rows(model.tokenizer, texts), site, progress=_bars())[site]


def _contexts(options: argparse.Namespace, model: Any, sae: Any, texts: Sequence[str]) -> Contexts:
    from interp_toolkit.cache import cache_folder
    from interp_toolkit.errors import ContractError
    from interp_toolkit.sae import Contexts, sae_digest, write_contexts

    digest = sae_digest(sae)
    if options.contexts is None:
        store = _store(model, sae, texts)
        path = cache_folder() / "contexts" / f"{digest}-{store.digest}.safetensors"
        return write_contexts(sae, store, path, model.tokenizer, progress=_bars())
    contexts = Contexts.open(options.contexts, model.tokenizer)
    if contexts.told.get("sae") != digest:
        raise ContractError(
            f"{options.contexts} holds contexts of the SAE {contexts.told.get('sae')}, and {options.sae} is {digest}; "
            f"leave --contexts out to look for its own"
        )
    return contexts


def _labeller(options: argparse.Namespace, texts: Sequence[str]) -> Labeller:
    from interp_toolkit.errors import InterpToolkitError
    from interp_toolkit.models import load_model
    from interp_toolkit.sae import Background, ask_model, ask_server, asked_labeller, word_labeller

    if options.server:
        if not options.ask:
            raise InterpToolkitError("expected --ask MODEL beside --server URL: the model as the server names it")
        key = os.environ.get("OPENAI_API_KEY")
        return asked_labeller(ask_server(options.server, options.ask, api_key=key), options.ask)
    if options.ask:
        return asked_labeller(ask_model(load_model(options.ask)), Path(options.ask).name)
    return word_labeller(Background.of(texts))


def _describe(options: argparse.Namespace, model: Any, sae: Any, features: list[int]) -> tuple[Any, pd.DataFrame]:
    from interp_toolkit.cache import cache_folder
    from interp_toolkit.scoring.feature_labels import describe_features
    from interp_toolkit.shipped import find_adapter

    adapter = find_adapter(options.adapter)
    said = describe_features(
        model,
        adapter,
        sae,
        features,
        seed=options.seed,
        any_model=options.any_model,
        any_site=options.any_site,
        folder=cache_folder(),
        progress=_bars(),
    )
    return adapter, said


def _settings(options: argparse.Namespace, model: Any, sae: Any, adapter: Any, labels: SAELabels) -> dict[str, Any]:
    from interp_toolkit.models import model_facts
    from interp_toolkit.sae import sae_digest

    facts = model_facts(model)
    return dict(
        model=facts.model_id,
        revision=facts.revision,
        dtype=str(next(model.parameters()).dtype),
        sae=sae_digest(sae),
        labels=dict(labels.origin),
        labeller=", ".join(sorted({name for name in labels.table["explainer"] if name})),
        adapter=adapter.digest if adapter else None,
        seed=options.seed,
    )


def _scores(path: Path, settings: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    from interp_toolkit.errors import ContractError, FileFormatError
    from interp_toolkit.json_lines import read_json

    told = read_json(path, _SCORES)
    try:
        table, of = pd.DataFrame(told["tables"]["labels"]), told["settings"]
        own = {name: of[name] for name in ("sae", "adapter")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"expected {_SCORES} at {path}: {error!r}") from error
    for name, value in own.items():
        if value != settings[name]:
            raise ContractError(f"{path} holds scores of the {name} {value}, this is {settings[name]}; score it first")
    try:
        return table.assign(strict_rate=pd.to_numeric(table["strict_rate"]))
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"expected {_SCORES} at {path}: {error!r}") from error


def _bars() -> bool:
    return sys.stderr.isatty()
