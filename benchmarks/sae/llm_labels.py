"""The headline claim, asked as the paper asks it: do descriptions beat a language model's labels?

All live features of the tutorial's SAE are labelled twice from the same examples: by the embedded model, which is shown
them and answers with one label, and by distinctive words. A simple and an expressive adapter are trained on the model's
labels. On features that were neither trained on nor chose anything, the adapters' descriptions, the labels of the kind
they were trained on, the words, the untrained direction and chance are scored, with as many tries for each.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arguments import Folders
from benchmarks.sae.adapters import EXPRESSIVE, SIMPLE, UNTRAINED, Cell
from benchmarks.sae.ground import NEUTRAL_TOKENS, Sizes, first_label_pairs
from benchmarks.sae.losses import best_length, untrained
from benchmarks.sae.words import first_labels, text_at_large, word_labels
from benchmarks.topics.cells import ANSWER, QUESTION
from interp_toolkit import Adapter, SoftPrompt
from interp_toolkit.cache import cache_folder
from interp_toolkit.contract import library_versions
from interp_toolkit.embedder import Embedder
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.files import whole_file
from interp_toolkit.models import load_model, model_facts
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.sae import (
    SAELabels,
    SAERecipe,
    TopExamples,
    ask_model,
    feature_quantiles,
    find_top_examples,
    label_features,
    llm_labeller,
    load,
    sae_digest,
    sae_vectors,
    store_activations,
)
from interp_toolkit.scoring import (
    GenerationConfig,
    describe_features,
    detection_scores,
    embedding_judge,
    generation_scores,
    label_rows,
    read_examples,
    score_table,
)
from interp_toolkit.scoring.label_sources import paraphrases, random_labels, shuffled_labels
from interp_toolkit.sites import Site

SAE = Path("tutorials") / "sae"
LLM, WORDS = "LLM label", "distinctive words"
# Features labelled, and passages read, in a trial, for each feature that is held out.
_TRIAL = 12
# Of four wordings the one by which a model of this size names what passages are about rather than going on with them;
# chosen by reading its labels of training features.
_QUESTION = (
    "Here are some passages:\n{passages}\n\n"
    "In at most five words, what topic, word or pattern do all of these passages share?"
)
# Examples that the model is shown of a feature, and tokens of its answer.
_SHOWN, _ANSWER = 5, 24


@dataclass(frozen=True)
class _Labelled:
    """Features with a label of each kind.

    Attributes:
        llm: the model's.
        words: distinctive words.
        sides: numbers of features by side: ``train``, ``dev``, ``held``; none is on two.
        without: features that the model gave no label.
    """

    llm: SAELabels
    words: SAELabels
    sides: dict[str, list[int]]
    without: int


def run_llm_labels(recipe: SAERecipe, data: Path, limit: int | None, folders: Folders) -> None:
    """Label, train and score, or go on with it; a result with the same settings is left as it is.

    Args:
        recipe: by which the tutorial's SAE was trained; its training passages are searched for examples.
        data: folder of the data.
        limit: of a trial, which holds out so many features.
        folders: of the results and of the adapters; the latter gets ``llm_labels.csv``, with every label's score.
    """
    sizes = _sizes(limit)
    model, sae, site = load_model(recipe.model), load(SAE), Site.parse(recipe.site)
    recipe = recipe if limit is None else replace(recipe, train=_TRIAL * limit, eval=limit)
    store = store_activations(model, recipe.rows(model.tokenizer, data, "train"), site, progress=True)[site]
    examples = find_top_examples(sae, store, None, model.tokenizer, progress=True)
    labelled = _label(model, sae, examples, recipe, data, sizes, limit)
    prompt = SoftPrompt.for_chat(model.tokenizer, QUESTION, ANSWER)
    names = first_labels(labelled.llm)
    dev = labelled.sides["dev"]
    length = best_length(model, prompt, sae_vectors(sae, dev).vectors, [names[feature] for feature in dev])
    pairs = first_label_pairs(sae, labelled.llm, labelled.sides)
    adapters = {
        f"trained, {kind}": Cell(kind, "sae").train(model, pairs, sizes, length, prompt, folders.runs / f"{kind}-llm")
        for kind in (SIMPLE, EXPRESSIVE)
    }
    adapters[UNTRAINED] = untrained(model, prompt, length)
    writing = GenerationConfig(texts=sizes.texts, max_new_tokens=40 if limit is None else 8, seed=SEED)
    settings: dict[str, Any] = dict(
        model=model_facts(model).model_id,
        fingerprint=model_facts(model).fingerprint,
        sae=sae_digest(sae),
        site=str(site),
        sizes=vars(sizes),
        train=len(labelled.sides["train"]),
        without_label=labelled.without,
        n=len(labelled.sides["held"]),
        adapters={name: adapter.digest for name, adapter in adapters.items()},
        untrained_length=length,
        writing=vars(writing),
        soft_prompt=[QUESTION, ANSWER],
        question=_QUESTION,
        seed=SEED,
    )
    path = folders.results / "llm_labels.json"
    if finished_result(path, settings):
        print(f"llm_labels: done before, see {path}")
        return
    rows = _tries(model, sae, labelled, adapters)
    held = labelled.sides["held"]
    neutral = store_activations(model, recipe.rows(model.tokenizer, data, "eval"), site, progress=True)[site]
    thresholds = feature_quantiles(sae, neutral.sample(NEUTRAL_TOKENS, SEED), held).tolist()
    scores = generation_scores(
        model, sae, rows, dict(zip(held, thresholds)), config=writing, folder=cache_folder(), progress=True
    )
    # The examples that no label was made of.
    shown = read_examples(
        held,
        lambda f: examples.get(f).iloc[1::2],
        lambda f: examples.inactive(f, max(1, len(examples.get(f)) // 2)),
    )
    detected = detection_scores(rows, shown, embedding_judge(Embedder()))
    with whole_file(folders.runs / "llm_labels.csv") as draft:
        scores.assign(auroc=detected["auroc"]).to_csv(draft, index=False)
    tables = dict(
        generation=pd.concat([_compared(scores, name) for name in ("strict_rate", "rate")]),
        detection=_compared(detected, "auroc"),
        labels=_examples_of_labels(rows, held),
    )
    write_result(path, make_result(settings, library_versions(), tables))


def _sizes(limit: int | None) -> Sizes:
    if limit is None:
        return Sizes(held=220, scored=220, texts=2, steps=160)
    return Sizes(train=0, dev=limit, held=limit, scored=limit, texts=2, fires=5, steps=2, batch=8)


def _label(
    model: Any, sae: Any, examples: TopExamples, recipe: SAERecipe, data: Path, sizes: Sizes, limit: int | None
) -> _Labelled:
    """Label all features that are active often enough, by model and by words, from every second example."""
    seen = examples.features
    live = sorted(seen.loc[seen["active_tokens"] >= sizes.fires, "feature"])
    random.Random(SEED).shuffle(live)
    live = live if limit is None else live[: _TRIAL * limit]
    words = word_labels(text_at_large(recipe, data), examples, live)
    by_model = label_features(
        llm_labeller(ask_model(model, max_new_tokens=_ANSWER), "smollm2-135m", shown=_SHOWN, question=_QUESTION),
        lambda feature: examples.get(feature).iloc[::2],
        # Prompts of one length are answered together.
        sorted(live, key=lambda feature: examples.get(feature).iloc[::2].head(_SHOWN)["tokens"].map(len).sum()),
        cache_folder(),
        progress=True,
    )
    named = set(by_model.labels.features) & set(words.labels.features)
    both = [feature for feature in live if feature in named]
    held, dev = sizes.held, sizes.held + sizes.dev
    sides = dict(held=both[:held], dev=both[held:dev], train=both[dev:])
    return _Labelled(by_model.labels, words.labels, sides, len(by_model.failed))


def _tries(model: Any, sae: Any, labelled: _Labelled, adapters: dict[str, Adapter]) -> pd.DataFrame:
    """As many labels of each source for each held-out feature, chance included."""
    held = labelled.sides["held"]
    sources = []
    for name, adapter in adapters.items():
        table = describe_features(model, adapter, sae, held, seed=SEED, folder=cache_folder(), progress=True)
        texts: dict[int, list[str]] = {feature: [] for feature in held}
        for feature, text in zip(table["feature"], table["description"]):
            texts[feature].append(text)
        sources.append(label_rows(name, texts))
    for name, labels in ((LLM, labelled.llm), (WORDS, labelled.words)):
        first = first_labels(labels)
        sources.append(label_rows(name, paraphrases({feature: first[feature] for feature in held})))
    rows = pd.concat(sources, ignore_index=True)
    names = first_labels(labelled.llm)
    drawn = random_labels(held, [names[feature] for feature in labelled.sides["train"]], seed=SEED)
    return pd.concat([rows, drawn, shuffled_labels(rows, SEED)], ignore_index=True)


def _compared(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    """Means of all sources, and what each is above the labels that adapters were trained on and above words."""
    tables: list[Any] = [score_table(scores, score, against=against, seed=SEED) for against in (LLM, WORDS)]
    return pd.concat([tables[0], tables[1][tables[1]["what"] != "mean"]], ignore_index=True)


def _examples_of_labels(rows: pd.DataFrame, held: list[int]) -> pd.DataFrame:
    """The first label of each source for some features, to be read."""
    some: Any = rows[(rows["number"] == 0) & rows["feature"].isin(held[:20])]
    return some[~some["source"].str.startswith(("shuffled", "random"))][["feature", "source", "label"]]
