"""A short SAE at each of several layers, and how well the model reads its features."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.sae.losses import LOSS, OTHER, best_length, label_losses, untrained
from benchmarks.sae.words import first_labels, text_at_large, word_labels
from benchmarks.topics.cells import ANSWER, QUESTION
from interp_toolkit import SoftPrompt, load_model
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.models import model_facts
from interp_toolkit.sae import (
    Background,
    SAERecipe,
    TopExamples,
    find_top_examples,
    sae_quality,
    sae_vectors,
    store_activations,
)
from interp_toolkit.sae import (
    train as train_sae,
)
from interp_toolkit.sites import Site

# Of a feature's best contexts, how many are looked at for what they peak on, and of how many features.
_BEST, _PEAKING = 10, 300
# A feature that is active on fewer tokens is not labelled. Features that choose a length, and those measured.
_FIRES, _DEV, _HELD = 50, 64, 100


def compare_layers(recipe: SAERecipe, data: Path, layers: list[int], passages: int, output: Path) -> pd.DataFrame:
    """A short SAE at each layer, on the same passages, one row per layer and metric; written to ``output`` as CSV."""
    model = load_model(recipe.model, dtype=recipe.dtype)
    short = replace(recipe, train=passages, eval=min(40, passages))
    rows, held = (short.rows(model.tokenizer, data, split) for split in ("train", "eval"))
    stores = store_activations(model, rows, [Site.after(layer) for layer in layers], progress=True)
    # Twice over the tokens: short of a full training, and the same for all.
    config = replace(recipe.sae, tokens=max(recipe.sae.batch_size, 2 * rows.tokens))
    background = text_at_large(recipe, data)
    tables = []
    for site, store in stores.items():
        folder = Path(f"{recipe.output}-layers") / str(site)
        sae = train_sae(store, config, folder, facts=model_facts(model), progress=True)
        contexts = find_top_examples(sae, store, folder / "contexts.safetensors", model.tokenizer, progress=True)
        measures = [
            sae_quality(model, sae, held, seed=config.seed, progress=True),
            _variety(contexts, config.seed),
            _read(model, sae, contexts, background, config.seed),
        ]
        tables.append(pd.concat(measures, ignore_index=True).assign(site=str(site)))
    table = pd.concat(tables, ignore_index=True).assign(train_tokens=rows.tokens, passages=passages)
    with whole_file(output) as draft:
        table.to_csv(draft, index=False)
    return table


def _variety(contexts: TopExamples, seed: int) -> pd.DataFrame:
    """The number of different tokens at the peaks of a feature's ten top activating examples."""
    alive = contexts.features.query(f"active_tokens >= {_FIRES}")["feature"]
    counts = []
    for feature in alive.sample(min(_PEAKING, len(alive)), random_state=seed):
        best = contexts.get(int(feature), _BEST)
        counts.append(len({tokens[peak].strip().lower() for tokens, peak in zip(best["tokens"], best["peak"])}))
    values = pd.Series(counts, dtype=float)
    half = 1.96 * values.sem()
    row = dict(metric="peak_tokens", value=values.mean(), low=values.mean() - half, high=values.mean() + half)
    return pd.DataFrame([dict(**row, n=len(values), seed=seed)])


def _read(model: Any, sae: Any, contexts: TopExamples, background: Background, seed: int) -> pd.DataFrame:
    """What labels of features cost given their directions, untrained, and how much more given another feature's.

    Of a length that other features choose: an adapter needs a direction that can be read to begin with.
    """
    alive = contexts.features.query(f"active_tokens >= {_FIRES}")["feature"].tolist()
    random.Random(seed).shuffle(alive)
    labels = first_labels(word_labels(background, contexts, sorted(alive[: 2 * (_DEV + _HELD)])).labels)
    chosen = [feature for feature in alive if feature in labels]
    if len(chosen) <= _HELD:
        raise InterpToolkitError(
            f"expected more than {_HELD} labelled features that are active on at least {_FIRES} tokens, and "
            f"{sae.cfg.metadata.hook_name} has {len(chosen)}; train on more with --passages"
        )
    question = SoftPrompt.for_chat(model.tokenizer, QUESTION, ANSWER)
    sides = {}
    for name, features in (("held", chosen[:_HELD]), ("dev", chosen[_HELD : _HELD + _DEV])):
        sides[name] = sae_vectors(sae, features).vectors, [labels[feature] for feature in features]
    length = best_length(model, question, *sides["dev"])
    losses = label_losses(model, untrained(model, question, length), *sides["held"])
    rows: list[dict[str, Any]] = [dict(metric="best_length", value=length, n=len(sides["dev"][1]))]
    for measure, metric in ((LOSS, "label_loss"), (OTHER, "vector_gain")):
        mean = losses[measure]
        rows.append(dict(metric=metric, value=mean.value, low=mean.low, high=mean.high, n=mean.n))
    return pd.DataFrame(rows).assign(seed=seed)
