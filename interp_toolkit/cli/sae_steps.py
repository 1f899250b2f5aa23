"""What the commands for SAEs do."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_toolkit.cli.describe import job_options, print_progress, run_job
from interp_toolkit.cli.printing import print_tables

if TYPE_CHECKING:
    from interp_toolkit.sae import ActivationStore, Labeller, SAELabels, TopExamples

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
    from interp_toolkit.scoring.label_results import choose_features

    model, sae = _load(options)
    count = len(sae.W_dec)
    features = choose_features(range(count) if options.features is None else options.features, count, options.limit)
    texts = _texts(options)
    labeller = _labeller(options, texts)
    examples = _examples(options, model, sae, texts)
    labelled = label_features(labeller, examples.get, features, cache_folder(), progress=_bars())
    labelled.labels.write(options.output)
    print(f"{len(labelled.labels.features)} of {len(features)} features have labels by {labeller.name}")
    for reason, failed in labelled.failed.groupby("reason"):
        numbers = failed["feature"].tolist()
        more = ", ..." if len(numbers) > _SHOWN else ""
        print(f"{len(numbers)} without: {reason} ({', '.join(map(str, numbers[:_SHOWN]))}{more})")
    print(f"written to {options.output}")


def describe(options: argparse.Namespace) -> None:
    """``sae describe``."""
    import interp_toolkit.sae
    from interp_toolkit.bulk import best_descriptions, describe_sae, read_feature_descriptions
    from interp_toolkit.errors import InterpToolkitError
    from interp_toolkit.scoring.label_results import choose_features

    if options.labels and options.passages is None:
        raise InterpToolkitError(
            "expected --passages beside --labels: texts that choose between labels, best not those they were made from"
        )

    # A folder is passed on as one, since it also says which features are dead.
    sae = options.sae if options.id is None else interp_toolkit.sae.load(options.sae, options.id)
    features = options.features
    if options.limit is not None:
        count = len(interp_toolkit.sae.load(sae).W_dec)
        features = choose_features(range(count) if features is None else features, count, options.limit)
    settings = dict(features=features, on_mismatch=options.on_mismatch, **job_options(options))
    done = run_job(options, describe_sae, sae, **settings)
    print_progress(options, done, "features")
    if options.neuronpedia is options.page is options.table is options.labels is None:
        return
    best = best_descriptions(read_feature_descriptions(options.output))
    if options.labels:
        best = _merged(options, best)
    if options.table is not None:
        from interp_toolkit.files import whole_file

        with whole_file(options.table) as draft:
            best.to_parquet(draft, index=False)
        print(f"written to {options.table}")
    if options.neuronpedia is not None:
        _export(options, best)
    if options.page is not None:
        from interp_toolkit.views import feature_view

        about = best.assign(label=None).drop(columns=["scale", "problem"])
        feature_view(about, title=f"Features of {Path(options.sae).name}").save(options.page)
        print(f"written to {options.page}")


def _merged(options: argparse.Namespace, best: Any) -> Any:
    """Descriptions with other labels in place of those that fit texts less well; says how many came from where."""
    from interp_toolkit.bulk import usable_labels, with_labels
    from interp_toolkit.bulk.exports import DESCRIPTION
    from interp_toolkit.bulk.parts import job_settings
    from interp_toolkit.embedder import Embedder
    from interp_toolkit.scoring import embedding_judge, merge_labels, read_examples

    # In the order of the command: of equals the label that stands first is taken, and any before a description.
    sources = {Path(path).name: _first_labels(path) for path in options.labels}
    sources[DESCRIPTION] = usable_labels(best, all_rows=options.all)
    options.model = options.model or job_settings(options.output)["model"]
    model, sae = _load(options)
    examples = _examples(options, model, sae, _texts(options))
    described = set(best["feature"])
    features = sorted({feature for labels in sources.values() for feature in labels} & described)
    texts = read_examples(features, examples.get, lambda f: examples.inactive(f, max(1, len(examples.get(f)))))
    chosen = {name: {f: text for f, text in labels.items() if f in described} for name, labels in sources.items()}
    merged = merge_labels(chosen, texts, embedding_judge(Embedder()))
    for name, count in merged["source"].value_counts().items():
        print(f"{count:,} labels of {name}")
    return with_labels(best, merged)


def _first_labels(path: str) -> dict[int, str]:
    import interp_toolkit.sae

    return {feature: texts[0] for feature, texts in interp_toolkit.sae.labels(path).by_feature().items()}


def _export(options: argparse.Namespace, best: Any) -> None:
    """Write Neuronpedia's export, under the id that the SAE has there, or what stands for it."""
    from interp_toolkit.bulk import neuronpedia_rows, write_neuronpedia
    from interp_toolkit.bulk.parts import job_settings

    job = job_settings(options.output)
    model = str(job["model"]).rstrip("/").rsplit("/", 1)[-1].lower()
    name = job["neuronpedia_id"] or f"{model}/{job['hook_name'] or job['sae']}"
    rows = neuronpedia_rows(best, name, f"{model} with adapter {job['adapter']}", all_rows=options.all)
    write_neuronpedia(rows, options.neuronpedia)
    print(f"{len(rows):,} of {len(best):,} features written to {options.neuronpedia} as {name}")


def score(options: argparse.Namespace) -> None:
    """``sae score``."""
    import pandas as pd

    from interp_toolkit.cache import cache_folder
    from interp_toolkit.results import write_result
    from interp_toolkit.scoring import GenerationConfig
    from interp_toolkit.scoring.label_results import score_result
    from interp_toolkit.shipped import find_adapter

    model, sae = _load(options)
    labels, features = _labels(options, sae)
    store = _store(model, sae, _texts(options))
    result = score_result(
        model,
        sae,
        labels,
        features,
        store,
        adapter=find_adapter(options.adapter) if options.adapter else None,
        config=GenerationConfig(texts=options.texts, seed=options.seed),
        chat=False if options.no_chat else None,
        on_mismatch=options.on_mismatch,
        folder=cache_folder(),
        progress=_bars(),
    )
    write_result(options.output, result)
    table = pd.DataFrame(result["tables"]["table"]).query("score == 'strict_rate' and what == 'mean'")
    shown: Any = table[["source", "protocol", "value", "low", "high", "n", "seed"]]
    note = f"strict_rate: the feature is active on the text's own tokens\nwritten to {options.output}"
    print_tables(options, {"strict_rate": shown}, note)


def compare(options: argparse.Namespace) -> None:
    """``sae compare``."""
    import pandas as pd

    from interp_toolkit.cache import cache_folder
    from interp_toolkit.embedder import Embedder
    from interp_toolkit.results import write_result
    from interp_toolkit.scoring.label_results import comparison_result
    from interp_toolkit.shipped import find_adapter

    model, sae = _load(options)
    labels, features = _labels(options, sae)
    result = comparison_result(
        model,
        sae,
        labels,
        features,
        find_adapter(options.adapter),
        Embedder(),
        scores=options.scores,
        seed=options.seed,
        on_mismatch=options.on_mismatch,
        folder=cache_folder(),
        progress=_bars(),
    )
    write_result(options.output, result)
    summary, table = (pd.DataFrame(result["tables"][name]) for name in ("summary", "features"))
    shown: Any = table[["feature", "label", "description", "evidence", "similarity"]].head(_SHOWN)
    print_tables(options, {"summary": summary, "farthest apart": shown}, f"written to {options.output}")


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    import interp_toolkit.sae
    from interp_toolkit.models import load_model

    sae, model = interp_toolkit.sae.load(options.sae, options.id), load_model(options.model)
    interp_toolkit.sae.check_sae(sae, model, on_mismatch=options.on_mismatch)
    return model, sae


def _labels(options: argparse.Namespace, sae: Any) -> tuple[SAELabels, list[int]]:
    import interp_toolkit.sae
    from interp_toolkit.scoring.label_results import labelled_features

    labels = interp_toolkit.sae.labels(options.labels)
    return labels, labelled_features(sae, labels, options.features, options.limit)


def _texts(options: argparse.Namespace) -> list[str]:
    from interp_toolkit.sae import read_passages

    return read_passages(options.passages, options.split, options.take)["text"].tolist()


def _store(model: Any, sae: Any, texts: list[str]) -> ActivationStore:
    from interp_toolkit.sae import store_activations, token_rows
    from interp_toolkit.sae.facts import require_site

    site = require_site(sae)
    return store_activations(model, token_rows(model.tokenizer, texts), site, progress=_bars())[site]


def _examples(options: argparse.Namespace, model: Any, sae: Any, texts: list[str]) -> TopExamples:
    from interp_toolkit.sae import TopExamples, find_top_examples

    if options.examples is None:
        return find_top_examples(sae, _store(model, sae, texts), None, model.tokenizer, progress=_bars())
    examples = TopExamples.open(options.examples, model.tokenizer)
    examples.require_sae(sae)
    return examples


def _labeller(options: argparse.Namespace, texts: list[str]) -> Labeller:
    from interp_toolkit.errors import InterpToolkitError
    from interp_toolkit.models import load_model
    from interp_toolkit.sae import Background, ask_model, ask_server, llm_labeller, word_labeller

    if options.server:
        if not options.ask:
            raise InterpToolkitError("expected --ask MODEL beside --server URL: the model as the server names it")
        api_key = os.environ.get("OPENAI_API_KEY")
        return llm_labeller(ask_server(options.server, options.ask, api_key=api_key), options.ask)
    if options.ask:
        return llm_labeller(ask_model(load_model(options.ask)), Path(options.ask).name)
    return word_labeller(Background.from_texts(texts))


def _bars() -> bool:
    return sys.stderr.isatty()
