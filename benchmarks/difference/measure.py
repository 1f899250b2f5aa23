"""Whether the topic of a fine-tune is named: by descriptions, by a logit lens, and by what both models write."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.difference.organisms import BASE, HABITS, Organism
from interp_toolkit import describe_difference, load_model, read_activations
from interp_toolkit.cache import JsonCache
from interp_toolkit.difference import MEAN, TUNED
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.evaluation.privileged import logit_lens
from interp_toolkit.files import sha256_of
from interp_toolkit.models.lora import WEIGHTS, load_lora
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.runtime.answers import plain_answers
from interp_toolkit.shipped import find_adapter
from interp_toolkit.statistics import mean_interval, proportion_interval

FIRST = (1, 3, 10)
DESCRIPTIONS, LENS, WRITTEN, EMBEDDED = "descriptions", "logit lens", "what both write", "descriptions, nearest of all"
_ADAPTER = "smollm2_any_token"
# Placebos that each organism is compared with: the first of the others.
_CONTROLS = 2
_ANSWER_TOKENS, _ALPHA = 40, 0.05
_WORD = re.compile(r"[^\W\d_]{3,}")


def measure(
    context: EvalContext, organisms: Sequence[Organism], folders: Sequence[Path], titles: Sequence[str], path: Path
) -> None:
    """Measure all organisms and write the result; one with the same settings is left as it is.

    Args:
        context: for the model, the embedder and the cache.
        organisms: with their topics.
        folders: of their LoRA adapters.
        titles: topics of the prompts, none of them an organism's.
        path: of the results file.
    """
    adapter = find_adapter(_ADAPTER)
    settings = dict(
        model=BASE,
        adapter=adapter.digest,
        prompts=list(titles),
        organisms={one.name: sha256_of(folder / WEIGHTS)[:16] for one, folder in zip(organisms, folders)},
        controls=_CONTROLS,
        seed=SEED,
    )
    if finished_result(path, settings):
        print(f"difference: done before, see {path}")
        return
    prompts = [f"Tell me about {title}." for title in titles]
    base = load_model(BASE, dtype="float32")
    cache, written_by_base = JsonCache("differences"), plain_answers(base, prompts, max_new_tokens=_ANSWER_TOKENS)
    placebos = [folder for one, folder in zip(organisms, folders) if one.is_placebo]
    rows, tables = [], []
    for one, folder in zip(tqdm(organisms, desc="measuring", unit="model"), folders):
        others = [str(placebo) for placebo in placebos if placebo != folder][:_CONTROLS]
        key = [settings["adapter"], one.name, settings["organisms"], prompts, len(others)]
        result = cache.get(key, lambda o=one, f=folder, p=others: _read(base, o, f, p, prompts, written_by_base))
        frame = pd.DataFrame(result["table"])
        tables.append(frame.head(FIRST[-1]).assign(organism=one.name))
        rows.append(_row(one, frame, result))
    named = [one for one in organisms if not one.is_placebo]
    nearest = _nearest(context, named, [row["descriptions"] for row in rows if row["topic"]])
    for row, ranks in zip((row for row in rows if row["topic"]), nearest):
        row |= {f"{EMBEDDED}@{k}": rank for k, rank in zip(FIRST, ranks)}
    columns = ["organism", "what", "token", "description", "evidence", "p_value"]
    examples = pd.concat(tables).reindex(columns=columns).groupby("organism", sort=False).head(3).to_dict("records")
    shown = dict(named=_shares(rows), detected=_detected(rows), organisms=[_without(row) for row in rows])
    write_result(path, make_result(settings, context.versions, shown, examples=examples))
    for name in ("named", "detected"):
        print(pd.DataFrame(shown[name]).to_string(index=False))


def _read(
    base: Any, one: Organism, folder: Path, placebos: Sequence[str], prompts: Sequence[str], written: Sequence[str]
) -> dict[str, Any]:
    """What is said of one organism: descriptions, tokens of the logit lens, and words that it writes more often."""
    tuned = load_lora(folder, BASE, "float32")
    table = describe_difference(base, tuned, prompts, find_adapter(_ADAPTER), placebos=placebos, seed=SEED)
    deepest = find_adapter(_ADAPTER).require_contract().require_site().sites[-1]
    states = [read_activations(model, prompts, deepest, "last").vectors.mean(0) for model in (base, tuned)]
    (lens,) = logit_lens(base, (states[1] - states[0])[None], FIRST[-1])
    after = plain_answers(tuned, prompts, max_new_tokens=_ANSWER_TOKENS)
    real = [row for row in table.to_dict("records") if row["model"] == TUNED]
    return dict(table=real, lens=list(lens), written=more_frequent(written, after, FIRST[-1]))


def more_frequent(before: Sequence[str], after: Sequence[str], count: int) -> list[str]:
    """Words that come more often in the texts of one model than in those of another, the most telling first.

    By the log-odds ratio with a prior of one half each, over its standard error (Monroe et al. 2008).

    Args:
        before: texts of the first model.
        after: texts of the second.
        count: how many words.
    """
    counts = [Counter(word.lower() for text in texts for word in _WORD.findall(text)) for texts in (before, after)]
    totals = [sum(one.values()) for one in counts]

    def z(word: str) -> float:
        odds = []
        for one, total in zip(counts, totals):
            odds.append(math.log((one[word] + 0.5) / (total - one[word] + 0.5)))
        return (odds[1] - odds[0]) / math.sqrt(sum(1 / (one[word] + 0.5) for one in counts))

    words = sorted(counts[1], key=lambda word: (-z(word), word))
    return words[:count]


def is_named(text: str, words: Sequence[str]) -> bool:
    """Whether a text has one of the words, or another form of it: Albanian for Albania.

    Args:
        text: a description, a token or a word.
        words: of the topic.
    """
    stems = [word.lower()[: max(4, len(word) - 2)] for word in words]
    return any(part.lower().startswith(stem) for part in _WORD.findall(text) for stem in stems)


def _row(one: Organism, table: pd.DataFrame, result: dict[str, Any]) -> dict[str, Any]:
    """One organism: whether each kind of reading names it among its first, and the least p-value."""
    descriptions = table["description"].tolist()
    row: dict[str, Any] = dict(
        organism=one.name,
        topic=one.topic,
        habit=one.topic in HABITS,
        least_p=min(table["p_value"].tolist()),
        greatest_evidence=max(table["evidence"].tolist()),
        size=dict(zip(table["what"], table["size"]))[MEAN],
        descriptions=descriptions[: FIRST[-1]],
        lens=result["lens"],
        written=result["written"],
    )
    for name, texts in ((DESCRIPTIONS, descriptions), (LENS, result["lens"]), (WRITTEN, result["written"])):
        for k in FIRST:
            row[f"{name}@{k}"] = any(is_named(text, one.words) for text in texts[:k]) if one.words else None
    return row


def _nearest(context: EvalContext, named: Sequence[Organism], texts: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Whether the topic nearest to the first descriptions, of all topics by their embeddings, is the right one."""
    topics = torch.nn.functional.normalize(context.embed([one.topic for one in named]), dim=-1)
    out = []
    for number, descriptions in enumerate(texts):
        embedded = torch.nn.functional.normalize(context.embed([text or "-" for text in descriptions]), dim=-1)
        similarity = embedded @ topics.T
        out.append([bool(similarity[:k].amax(0).argmax() == number) for k in FIRST])
    return out


def _shares(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The share of organisms whose topic is named among the first k, by kind of reading."""
    named = [row for row in rows if row["topic"]]
    return [
        dict(by=by, first=k) | proportion_interval([row[f"{by}@{k}"] for row in named]).to_dict()
        for by in (DESCRIPTIONS, EMBEDDED, LENS, WRITTEN)
        for k in FIRST
    ]


def _detected(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often a description has more evidence than controls, and how large differences are: organisms, placebos."""
    out = []
    for kind, here in (("organisms", True), ("placebos", False)):
        some = [row for row in rows if bool(row["topic"]) == here]
        if some:
            reached = proportion_interval([row["least_p"] <= _ALPHA for row in some]).to_dict()
            out.append(dict(kind=kind, measure=f"least p-value of {_ALPHA} or less") | reached)
            for measure in ("greatest_evidence", "size"):
                out.append(dict(kind=kind, measure=measure) | mean_interval([row[measure] for row in some]).to_dict())
    return out


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return row | {key: "; ".join(map(str, row[key])) for key in ("descriptions", "lens", "written")}
