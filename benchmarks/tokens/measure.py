"""What adapters say of topics in wordings that none was trained on, and of the tokens of ordinary text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tokens.confidence import confidence_rows
from benchmarks.tokens.facts import facts_rows, known_facts
from benchmarks.tokens.features import feature_questions
from benchmarks.tokens.questions import Questions
from benchmarks.tokens.reading import names, read_text_tokens, read_topics
from benchmarks.tokens.training import passages
from interp_toolkit import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation import recall_table
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.results import finished_result, intervals_by_measure, make_result, write_result
from interp_toolkit.statistics import paired_difference, proportion_interval

# Of training, and five that no adapter was trained on; these choose nothing.
TRAINED = ("Tell me about {title}.",)
UNTRAINED = (
    "What do you know about {title}?",
    "I have a question about {title}.",
    "Write a short poem on {title}.",
    "Where can I find out more about {title}?",
    "My teacher mentioned {title} this morning.",
)
_TITLES, _TEXTS = 400, 250
# The titles before these chose the weights of a shipped adapter.
_CHOOSING = 1000


def measure(context: EvalContext, data: Path, adapters: Mapping[str, Adapter], path: Path) -> None:
    """Measure adapters; a result with the same settings is left as it is.

    Args:
        context: titles, model and embedder.
        data: folder of the data.
        adapters: by name.
        path: of the results file.
    """
    first = _CHOOSING if context.limit is None else 0
    titles = context.titles.held_out[first : first + _TITLES]
    texts = passages(data, "eval", _TEXTS if context.limit is None else context.limit)
    settings = context.facts | dict(
        n=len(titles),
        texts=len(texts),
        digests={name: adapter.digest for name, adapter in adapters.items()},
        confidence={name: _confidence_digest(adapter) for name, adapter in adapters.items()},
    )
    if finished_result(path, settings):
        print(f"tokens: done before, see {path}")
        return
    tables: dict[str, list[dict[str, Any]]] = dict(wordings=[], tokens=[], facts=[], confidence=[])
    facts, features = known_facts(context, data), _features(context, data)
    for name, adapter in adapters.items():
        for row in _wordings(context, adapter, titles):
            print(name, row["wording"], row["token"], row["recall@1"], row["recall@100"], flush=True)
            tables["wordings"].append(dict(adapter=name) | row)
        for row in _tokens(context, adapter, texts):
            print(name, row, flush=True)
            tables["tokens"].append(dict(adapter=name) | row)
        for row in facts_rows(context, adapter, facts):
            print(name, row["site"], row["by"], f"{row['value']:.3f}", flush=True)
            tables["facts"].append(dict(adapter=name) | row)
        if adapter.require_contract().confidence:
            rows = confidence_rows(context, adapter, titles, texts, UNTRAINED, features)
            tables["confidence"] += [dict(adapter=name) | row for row in rows]
    write_result(path, make_result(settings, context.versions, tables))


def _confidence_digest(adapter: Adapter) -> str:
    """16 hexadecimal digits that name an adapter's models of confidence, which its own digest leaves out."""
    models = [model.to_dict() for model in adapter.require_contract().confidence]
    return hashlib.sha256(json.dumps(models).encode()).hexdigest()[:16]


def _features(context: EvalContext, data: Path) -> list[Questions]:
    """Features on which no confidence was fitted; none in a trial, and none without a corpus to train the SAE on."""
    if context.limit is not None:
        return []
    try:
        return feature_questions(context, data)[1:]
    except InterpToolkitError as error:
        print(f"tokens: features of an SAE are left out: {error}")
        return []


def _wordings(context: EvalContext, adapter: Adapter, titles: Sequence[str]) -> list[dict[str, Any]]:
    """Recall of titles by one greedy description, at the title's last token and at the last of all."""
    contract, answers = adapter.require_contract(), context.answers(titles)
    rows = []
    for wording in TRAINED + UNTRAINED:
        raw = read_topics(context.model, titles, [wording] * len(titles), contract.require_site())
        for token, vectors in raw.items():
            texts = context.describe(adapter, contract.centre(vectors), 1).texts
            recall = intervals_by_measure(recall_table(context.ranks(texts, answers)[:, 0], seed=SEED))
            rows.append(dict(wording=wording, trained=wording in TRAINED, token=token, **recall))
    return rows


def _tokens(context: EvalContext, adapter: Adapter, texts: Sequence[str]) -> list[dict[str, Any]]:
    """How often the word of a token is named, and a word near it, beside descriptions of other tokens."""
    contract = adapter.require_contract()
    tokens, raw = read_text_tokens(context.model, texts, contract.require_site(), chat=False)
    described = [text for (text,) in context.describe(adapter, contract.centre(raw), 1).texts]
    other = [*described[len(described) // 2 :], *described[: len(described) // 2]]
    rows = []
    for what, is_named in (
        ("its word", lambda token, text: names(text, token.word)),
        ("a word near it", lambda token, text: any(names(text, word) for word in token.near)),
    ):
        matched, shuffled = ([is_named(token, text) for token, text in zip(tokens, x)] for x in (described, other))
        rows.append(dict(what=what, by="its description") | proportion_interval(matched).to_dict())
        rows.append(dict(what=what, by="another's description") | proportion_interval(shuffled).to_dict())
        rows.append(dict(what=what, by="difference") | paired_difference(matched, shuffled, seed=SEED).to_dict())
    return rows
