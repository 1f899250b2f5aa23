"""Generation scoring: does a feature become active on texts that were written to show its label?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit.cache import JsonCache
from interp_toolkit.chat import prompt_ids, uses_chat
from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import weights_key
from interp_toolkit.sae.encode import unchecked_activations
from interp_toolkit.sae.facts import OnMismatch, check_sae, flags_renamed, sae_digest
from interp_toolkit.scoring.example_texts import GenerationConfig, write_texts
from interp_toolkit.scoring.label_sources import LabelRow, check_rows
from interp_toolkit.spans import contents
from interp_toolkit.torch_defaults import plain_defaults

EMPTY_LABEL = "the label is empty"
COLUMNS = (
    *("source", "feature", "number", "label", "texts", "empty", "rate", "strict_rate"),
    *("hits", "strict_hits", "peak", "example", "reason"),
)
# Labels whose texts go through the SAE together: what an interruption can lose.
_SHARD = 32

Peaks = tuple[float, float]
"""A feature's highest activation on a text: of any token but the first, and of its content tokens."""
AllPeaks = dict[str, dict[int, list[Peaks]]]
"""By label and by feature, the peaks on each text that was written for the label."""
Texts = Mapping[str, Sequence[str]]
"""By label its texts."""
Features = Mapping[str, Sequence[int]]
"""By label the features that it is scored for."""


@renamed_arguments(writing="config")
@flags_renamed
@plain_defaults()
def generation_scores(
    model: Any,
    sae: Any,
    rows: pd.DataFrame,
    thresholds: Mapping[int, float],
    *,
    config: GenerationConfig | None = None,
    chat: bool | None = None,
    on_mismatch: OnMismatch = "error",
    folder: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score labels by the texts that the model writes for them (arXiv 2602.10352, section 4).

    Every label gets the same number of texts. The model reads them, and the feature's activations are counted in two
    ways. ``rate`` is the paper's: a text is a hit where the feature is above 0 on any token but the first, those of the
    chat template included, so a feature that is active on the template always hits. ``strict_rate`` regards the text's
    own tokens alone, and asks for more than the feature's own 99th percentile on neutral text. A label that occurs
    twice for a feature gets texts twice; the same label for several features (as when labels are shuffled) shares its
    texts.

    With a folder, texts and activations are cached there, and what is cached is not made again.

    Args:
        model: the hooked model that writes and reads the texts.
        sae: an SAE of one of its sites.
        rows: see `label_rows`; as many labels for every source and feature.
        thresholds: for each feature its 99th percentile on neutral text, see `feature_quantiles`.
        config: how texts are generated; by default `GenerationConfig()`.
        chat: read texts as a user's turn in the chat template, as the paper does; else as plain text, which is closer
            to what an SAE of plain passages was trained on. By default where the model has a chat template; a
            base model also writes them by going on with the prompt (give `GenerationConfig` one that it can go on
            with).
        on_mismatch: as `check_sae` takes it; ``"warn"`` for an SAE of the model's base, say.
        folder: the cache folder.
        progress: whether to show bars.

    Returns:
        one row per label, in their order: ``source``, ``feature``, ``number``, ``label``; ``texts`` (how many were
        asked for), ``empty`` (how many of them have no words, and so miss), ``rate``, ``strict_rate``; ``hits``,
        ``strict_hits`` (a tuple with true or false for each text), ``peak`` (the highest activation on content tokens),
        ``example`` (the text that has it), ``reason``. An empty label misses; a row that could not be scored has rates
        of NaN. Both have their ``reason``. See `score_table`.

    Raises:
        ContractError: an SAE of another model or width.
        InterpToolkitError: numbers of labels that differ, a feature without a threshold, or, with a folder, a model
            with hooks or replaced forwards of your own.

    Example:
        >>> thresholds = dict(zip(features, feature_quantiles(sae, store.sample(100_000, 0), features).tolist()))
        >>> scores = generation_scores(model, sae, rows, thresholds, folder="scores")
        >>> score_table(scores, "strict_rate")
    """
    check_sae(sae, model, on_mismatch=on_mismatch)
    label_list, config = check_rows(rows), config or GenerationConfig()
    count, features = len(sae.W_dec), {row.feature for row in label_list}
    unknown = {f: f"the SAE has no feature {f}: it has {count}" for f in features if not 0 <= f < count}
    if missing := sorted(features - set(unknown) - set(thresholds)):
        raise InterpToolkitError(f"expected a threshold for each feature, and feature {missing[0]} has none")
    lots = _lots(label_list)
    counts: dict[str, int] = {}
    features_of: defaultdict[str, set[int]] = defaultdict(set)
    for row, lot in zip(label_list, lots):
        if row.label and row.feature not in unknown:
            counts[row.label] = max(counts.get(row.label, 0), (lot + 1) * config.texts)
            features_of[row.label].add(row.feature)
    cache_path = None if folder is None else Path(folder)
    texts, failed = write_texts(model, counts, config, cache_path, progress)
    scored = {label: sorted(numbers) for label, numbers in features_of.items() if label in texts}
    chat = uses_chat(model.tokenizer, chat)
    key = [] if folder is None else [weights_key(model), sae_digest(sae), chat]
    peaks = _all_peaks(partial(_shard_peaks, model, sae, chat), key, texts, scored, cache_path, progress)
    scores = []
    for row, lot in zip(label_list, lots):
        start = row._asdict() | dict(texts=config.texts)
        if reason := unknown.get(row.feature) or failed.get(row.label):
            scores.append(start | _no_score(float("nan"), (), reason))
        elif not row.label:
            scores.append(start | _no_score(0.0, (False,) * config.texts, EMPTY_LABEL))
        else:
            of_lot = slice(lot * config.texts, (lot + 1) * config.texts)
            threshold = float(thresholds[row.feature])
            scores.append(start | _score(texts[row.label][of_lot], peaks[row.label][row.feature][of_lot], threshold))
    return pd.DataFrame(scores, columns=list(COLUMNS))


def _lots(rows: Sequence[LabelRow]) -> list[int]:
    """For each row how often its label came before for the same source and feature: the number of its lot of texts."""
    seen: Counter[tuple[str, int, str]] = Counter()
    lots = []
    for row in rows:
        key = (row.source, row.feature, row.label)
        lots.append(seen[key])
        seen[key] += 1
    return lots


def _score(texts: Sequence[str], peaks: Sequence[Peaks], threshold: float) -> dict[str, Any]:
    hits = tuple(anywhere > 0 for anywhere, _ in peaks)
    strict = tuple(content > max(0.0, threshold) for _, content in peaks)
    best = max(range(len(peaks)), key=lambda i: peaks[i][1])
    return dict(
        empty=sum(not text.strip() for text in texts),
        rate=sum(hits) / len(hits),
        strict_rate=sum(strict) / len(strict),
        hits=hits,
        strict_hits=strict,
        peak=peaks[best][1],
        example=texts[best],
        reason="",
    )


def _no_score(rate: float, hits: tuple[bool, ...], reason: str) -> dict[str, Any]:
    return dict(
        empty=len(hits),
        rate=rate,
        strict_rate=rate,
        hits=hits,
        strict_hits=hits,
        peak=rate,
        example="",
        reason=reason,
    )


def _all_peaks(
    read: Callable[[Texts, Features], AllPeaks],
    key: Sequence[Any],
    texts: Texts,
    features: Features,
    folder: Path | None,
    progress: bool,
) -> AllPeaks:
    """The peaks on all texts, cached in shards of labels by the key, the texts and the features."""
    cache = None if folder is None else JsonCache("peaks", folder)
    labels = sorted(features)
    all_peaks: AllPeaks = {}
    with tqdm(total=len(labels), desc="encoding", unit="label", disable=not progress) as bar:
        for start in range(0, len(labels), _SHARD):
            shard = {label: texts[label] for label in labels[start : start + _SHARD]}
            if cache is None:
                peaks = read(shard, features)
            else:
                shard_key = [*key, [[label, written, list(features[label])] for label, written in shard.items()]]
                peaks = cache.get(shard_key, lambda shard=shard: read(shard, features))
            for label, by_feature in peaks.items():
                # JSON has texts for keys, and lists for tuples.
                all_peaks[label] = {
                    int(feature): [(any_token, content) for any_token, content in of_texts]
                    for feature, of_texts in by_feature.items()
                }
            bar.update(len(shard))
    return all_peaks


def _shard_peaks(model: Any, sae: Any, chat: bool, texts: Texts, features: Features) -> AllPeaks:
    numbers = sorted({feature for label in texts for feature in features[label]})
    column = {feature: i for i, feature in enumerate(numbers)}
    with_words = [(label, i) for label, written in texts.items() for i, text in enumerate(written) if text.strip()]
    rows = prompt_ids(model.tokenizer, [texts[label][i] for label, i in with_words], chat)
    # A text without words is active nowhere.
    peaks = {
        label: {feature: [(0.0, 0.0)] * len(written) for feature in features[label]} for label, written in texts.items()
    }
    if not rows:
        return peaks
    activations = unchecked_activations(model, sae, rows, numbers)
    for (label, i), acts, (start, end) in zip(with_words, activations, contents(model.tokenizer, rows, chat)):
        any_token, content = acts.amax(0).clamp(min=0), acts[start:end].amax(0).clamp(min=0)
        for feature, of_texts in peaks[label].items():
            of_texts[i] = (float(any_token[column[feature]]), float(content[column[feature]]))
    return peaks
