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
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import weights_key
from interp_toolkit.sae.directions import check_sae, sae_digest
from interp_toolkit.sae.encode import feature_activations
from interp_toolkit.scoring.example_texts import Writing, write_texts
from interp_toolkit.scoring.label_sources import LabelRow, check_rows
from interp_toolkit.spans import contents
from interp_toolkit.torch_defaults import plain_defaults

EMPTY_LABEL = "the label is empty"
COLUMNS = (
    *("source", "feature", "number", "label", "texts", "empty", "rate", "strict_rate"),
    *("hits", "strict_hits", "peak", "example", "reason"),
)
# Labels whose texts go through the SAE together and are kept on disk: what an interruption can lose.
_SHARD = 32

Peaks = tuple[float, float]
"""A feature's highest activation on a text: of any token but the first, and of its content tokens."""
AllPeaks = dict[str, dict[int, list[Peaks]]]
"""By label and by feature that faces it, the peaks of each text."""
Texts = Mapping[str, Sequence[str]]
Faced = Mapping[str, Sequence[int]]


@plain_defaults()
def generation_scores(
    model: Any,
    sae: Any,
    rows: pd.DataFrame,
    thresholds: Mapping[int, float],
    *,
    writing: Writing | None = None,
    chat: bool | None = None,
    any_model: bool = False,
    folder: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score labels by the texts that the model writes for them (arXiv 2602.10352, section 4).

    Each label gets as many texts. They are read by the model, and the feature's activations counted in two ways.
    ``rate`` is the paper's: a text is a hit where the feature is above 0 on any token but the first, those of the chat
    template included, so a feature that is active on the template always hits. ``strict_rate`` looks at the text's own
    tokens alone, and asks for more than the feature's own 99th percentile on neutral text. A label twice for a feature
    is written for twice; the same label for several features (as when labels are shuffled) shares its texts.

    With a folder, texts and activations are kept there shard by shard, and what is there is not made again.

    Args:
        model: the hooked model that writes and reads the texts.
        sae: an SAE of one of its sites.
        rows: see `label_rows`; as many labels for every source and feature.
        thresholds: for each feature its 99th percentile on neutral text, see `feature_quantiles`.
        writing: how texts are written; by default `Writing()`.
        chat: read texts as a user's turn in the chat template, as the paper does; else as plain text, which is closer
            to what an SAE of plain passages was trained on. By default where the model has a chat template; a
            base model also writes them by going on with the prompt (give `Writing` one that it can go on with).
        any_model: as `check_sae` takes it, for an SAE of the model's base, say.
        folder: where to keep texts and activations.
        progress: whether to show bars.

    Returns:
        a row each, in their order: ``source``, ``feature``, ``number``, ``label``; ``texts`` (how many were asked for),
        ``empty`` (how many of them have no words, and so miss), ``rate``, ``strict_rate``; ``hits``, ``strict_hits`` (a
        tuple of true or false, one a text), ``peak`` (the highest activation on content tokens), ``example`` (the text
        that has it), ``reason``. An empty label misses; a row that could not be scored has rates of NaN. Both say so in
        ``reason``. See `score_table`.

    Raises:
        ContractError: an SAE of another model or width.
        InterpToolkitError: numbers of labels that differ, or a feature without a threshold.

    Example:
        >>> thresholds = dict(zip(features, feature_quantiles(sae, store.sample(100_000, 0), features).tolist()))
        >>> scores = generation_scores(model, sae, rows, thresholds, folder="scores")
        >>> score_table(scores, "strict_rate")
    """
    check_sae(sae, model, any_model=any_model)
    given, writing = check_rows(rows), writing or Writing()
    count, asked = len(sae.W_dec), {row.feature for row in given}
    wrong = {f: f"the SAE has no feature {f}: it has {count}" for f in asked if not 0 <= f < count}
    if missing := sorted(asked - set(wrong) - set(thresholds)):
        raise InterpToolkitError(f"expected a threshold for each feature, and feature {missing[0]} has none")
    kept = None if folder is None else Path(folder)
    lots = _lots(given)
    good = [(row, lot) for row, lot in zip(given, lots) if row.label and row.feature not in wrong]
    counts: dict[str, int] = {}
    for row, lot in good:
        counts[row.label] = max(counts.get(row.label, 0), (lot + 1) * writing.texts)
    texts, failed = write_texts(model, counts, writing, kept, progress)
    facing: dict[str, set[int]] = defaultdict(set)
    for row, _ in good:
        facing[row.label].add(row.feature)
    faced = {label: sorted(own) for label, own in facing.items() if label in texts}
    chat = uses_chat(model.tokenizer, chat)
    read = partial(_shard_peaks, model, sae, chat, any_model)
    key = [] if kept is None else [weights_key(model), sae_digest(sae), chat]
    peaks = _all_peaks(read, key, texts, faced, kept, progress)
    told = []
    for row, lot in zip(given, lots):
        of = row._asdict() | dict(texts=writing.texts)
        if reason := wrong.get(row.feature) or failed.get(row.label):
            told.append(of | _nothing(float("nan"), (), reason))
        elif not row.label:
            told.append(of | _nothing(0.0, (False,) * writing.texts, EMPTY_LABEL))
        else:
            own = slice(lot * writing.texts, (lot + 1) * writing.texts)
            found = peaks[row.label][row.feature][own]
            told.append(of | _score(texts[row.label][own], found, float(thresholds[row.feature])))
    return pd.DataFrame(told, columns=list(COLUMNS))


def _lots(rows: Sequence[LabelRow]) -> list[int]:
    """For each row how often its label came before for the same source and feature: which lot of texts it takes."""
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


def _nothing(rate: float, hits: tuple[bool, ...], reason: str) -> dict[str, Any]:
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
    read: Callable[[Texts, Faced], AllPeaks],
    key: Sequence[Any],
    texts: Texts,
    faced: Faced,
    folder: Path | None,
    progress: bool,
) -> AllPeaks:
    """The peaks of all texts, kept by shards of labels under a name made of the key, the texts and the features."""
    cache = None if folder is None else JsonCache("peaks", folder)
    labels = sorted(faced)
    out: AllPeaks = {}
    with tqdm(total=len(labels), desc="encoding", unit="label", disable=not progress) as bar:
        for start in range(0, len(labels), _SHARD):
            shard = {label: texts[label] for label in labels[start : start + _SHARD]}
            if cache is None:
                peaks = read(shard, faced)
            else:
                shard_key = [*key, [[label, own, list(faced[label])] for label, own in shard.items()]]
                peaks = cache.get(shard_key, lambda shard=shard: read(shard, faced))
            for label, by_feature in peaks.items():
                # JSON has texts for keys, and lists for tuples.
                out[label] = {
                    int(feature): [(high, content) for high, content in x] for feature, x in by_feature.items()
                }
            bar.update(len(shard))
    return out


def _shard_peaks(model: Any, sae: Any, chat: bool, any_model: bool, texts: Texts, faced: Faced) -> AllPeaks:
    features = sorted({feature for label in texts for feature in faced[label]})
    column = {feature: i for i, feature in enumerate(features)}
    written = [(label, i) for label, own in texts.items() for i, text in enumerate(own) if text.strip()]
    rows = prompt_ids(model.tokenizer, [texts[label][i] for label, i in written], chat)
    # A text without words is nowhere active.
    out = {label: {f: [(0.0, 0.0)] * len(own) for f in faced[label]} for label, own in texts.items()}
    if not rows:
        return out
    active = feature_activations(model, sae, rows, features, any_model=any_model)
    for (label, i), own, (start, end) in zip(written, active, contents(model.tokenizer, rows, chat)):
        anywhere, content = own.amax(0).clamp(min=0), own[start:end].amax(0).clamp(min=0)
        for feature, peaks in out[label].items():
            at = column[feature]
            peaks[i] = (float(anywhere[at]), float(content[at]))
    return out
