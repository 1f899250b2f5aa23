"""Labels of held-out features from every source, scored by texts written for them and by detection."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.arguments import Folders
from benchmarks.sae.adapters import CELLS, EXPRESSIVE, SIMPLE, UNTRAINED, trained
from benchmarks.sae.ground import Ground
from interp_toolkit.cache import cache_folder
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.files import whole_file
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.scoring import (
    GenerationConfig,
    agreement_summary,
    agreement_table,
    best_labels,
    detection_scores,
    embedding_judge,
    generation_scores,
    read_examples,
    score_table,
)
from interp_toolkit.scoring.feature_labels import REWORDED, comparison_rows, describe_features

# Longest text, in tokens, of a whole run and of a trial: short texts are what a small model writes well.
_LENGTH, _TRIAL_LENGTH = 40, 8
_SIMPLE, _EXPRESSIVE = f"trained, {SIMPLE}", f"trained, {EXPRESSIVE}"


def run_scores(ground: Ground, length: float, folders: Folders) -> None:
    """Score labels, or go on with it; a result with the same settings is left as it is.

    Args:
        ground: what it stands on.
        length: of the untrained direction, and where a trained scale starts.
        folders: of the results and of the adapters; the latter gets ``labels.csv``, with every label's score.
    """
    features = ground.features["held"][: ground.sizes.scored]
    adapters = {
        name: trained(CELLS[f"{kind}-sae"], ground, length, folders.runs)
        for name, kind in ((_SIMPLE, SIMPLE), (_EXPRESSIVE, EXPRESSIVE))
    }
    adapters[UNTRAINED] = ground.untrained(length)
    writing = GenerationConfig(
        texts=ground.sizes.texts, max_new_tokens=_LENGTH if ground.limit is None else _TRIAL_LENGTH, seed=SEED
    )
    settings = ground.facts | dict(
        task="scores",
        n=len(features),
        adapters={name: adapter.digest for name, adapter in adapters.items()},
        untrained_length=length,
        writing=vars(writing),
    )
    path = folders.results / "scores.json"
    if finished_result(path, settings):
        print(f"scores: done before, see {path}")
        return
    labels = {feature: ground.originals[feature] for feature in features}
    described = {
        name: describe_features(
            ground.model, adapter, ground.sae, features, seed=SEED, folder=cache_folder(), progress=True
        )
        for name, adapter in adapters.items()
    }
    # Chance takes the labels that the adapters were trained on.
    pool = [ground.originals[feature] for feature in ground.features["train"]]
    rows = comparison_rows(described, labels, pool, seed=SEED)
    scores = generation_scores(
        ground.model,
        ground.sae,
        rows,
        ground.thresholds(features),
        config=writing,
        folder=cache_folder(),
        progress=True,
    )
    contexts = ground.result.top_examples
    # The contexts that the labels were not made of.
    examples = read_examples(
        features,
        lambda f: contexts.get(f).iloc[1::2],
        lambda f: contexts.inactive(f, max(1, len(contexts.get(f)) // 2)),
    )
    detected = detection_scores(rows, examples, embedding_judge(ground.context.embed))
    with whole_file(folders.runs / "labels.csv") as draft:
        scores.assign(auroc=detected["auroc"]).to_csv(draft, index=False)
    agreement = agreement_table(
        labels, described[_SIMPLE], ground.context.embed, scores=scores, original=REWORDED, adapter=_SIMPLE
    )
    tables: dict[str, Any] = dict(
        generation=pd.concat([_means(scores, name) for name in ("strict_rate", "rate")]),
        detection=_means(detected, "auroc"),
        agreement=agreement_summary(agreement, SEED),
        features=agreement,
        best=best_labels(scores, "strict_rate"),
        sae=ground.result.quality,
    )
    reasons = ground.labelled[1]["reason"].value_counts()
    result = make_result(settings, ground.context.versions, tables)
    # Counted by reason: hundreds of features have no label.
    write_result(path, result | dict(failed={str(reason): int(count) for reason, count in reasons.items()}))


def _means(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    return score_table(scores, score, against=REWORDED, seed=SEED)
