"""Facts at their subjects: whether the last token of "Warsaw" holds Poland, by an adapter and by the logit lens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.data import RELATIONS, need
from benchmarks.tokens.questions import at_place
from interp_toolkit import Adapter
from interp_toolkit.bridges.names import Entity
from interp_toolkit.bridges.twohop import continuations
from interp_toolkit.chat import encode
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.evaluation.privileged import logit_lens
from interp_toolkit.json_lines import read_json
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.sites import Site
from interp_toolkit.spans import find_spans
from interp_toolkit.statistics import paired_difference, proportion_interval

# Pairs drawn from each relation, of which those count that the model knows.
_PER_RELATION = 200
_LENS = (1, 10)


@dataclass(frozen=True)
class Fact:
    """A subject, what a relation connects it with, and the beginning of a sentence that says so."""

    relation: str
    subject: str
    answer: Entity
    prompt: str


def known_facts(context: EvalContext, data: Path) -> list[Fact]:
    """Facts that the model completes rightly and whose answer is not in the prompt.

    Args:
        context: with the model.
        data: folder of the data.
    """
    need(data, RELATIONS)
    rng, facts = random.Random(SEED), []
    for name, relation in sorted(read_json(data / RELATIONS, "relations").items()):
        if relation["properties"]["relation_type"] != "factual":
            continue
        template = relation["prompt_templates"][0]
        pairs = sorted({(pair["subject"], pair["object"]) for pair in relation["samples"]})
        for subject, answer in rng.sample(pairs, min(_PER_RELATION, len(pairs))):
            facts.append(Fact(name, subject, Entity(answer, kind=name), template.format(subject)))
    facts = [fact for fact in facts if not fact.answer.hinted_in(fact.prompt)][: context.limit]
    answers = continuations(context.model, [fact.prompt for fact in facts], progress=context.progress)
    return [fact for fact, text in zip(facts, answers) if fact.answer.named_in((text.splitlines() or [""])[0])]


def facts_rows(context: EvalContext, adapter: Adapter, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """How often the answer of a fact is read at its subject's last token, by one greedy description and by the lens.

    Args:
        context: with the model.
        adapter: read at each of its places.
        facts: see `known_facts`.

    Returns:
        rows with ``site``, ``by`` (``description``; ``another's description``, of a fact of the same relation with
        another answer; ``logit lens, first k``: the answer's first token is among so many; and differences of the
        description and each), ``value``, ``low``, ``high``, ``n``, clustered by relation.
    """
    if not facts:  # as in a trial on the first few, of which the model knows none
        return []
    contract = adapter.require_contract()
    stack = contract.require_site()
    prompts = [fact.prompt for fact in facts]
    spans, _ = find_spans(context.model.tokenizer, prompts, "content", False)
    ends = [span.end_of(context.model.tokenizer, fact.subject) for span, fact in zip(spans, facts)]
    known = [i for i, end in enumerate(ends) if end is not None]
    positions = [[end] for end in ends if end is not None]
    raw = token_vectors(context.model, [spans[i].ids for i in known], stack, positions, cache_key(context.model))
    facts = [facts[i] for i in known]
    relations = np.array([fact.relation for fact in facts])
    others = [_other(facts, i) for i in range(len(facts))]
    first_tokens = [_first_token(context.model.tokenizer, fact.answer.name) for fact in facts]
    rows = []
    for place in contract.reading_places:
        described = context.describe_greedily(adapter, at_place(contract, raw, place))
        named = np.array([fact.answer.named_in(text) for fact, text in zip(facts, described)])
        chance = np.array([fact.answer.named_in(described[j]) for fact, j in zip(facts, others)])
        by = {"another's description": chance}
        if isinstance(place.site, Site):
            number = stack.sites.index(place.site)
            top = logit_lens(context.model, _part(raw, number, contract.d_model), max(_LENS))
            for k in _LENS:
                hits = [token in row[:k] for token, row in zip(first_tokens, top)]
                by[f"logit lens, first {k}"] = np.array(hits)
        rows.append(dict(site=str(place.site), by="description") | proportion_interval(named, relations).to_dict())
        for name, hits in by.items():
            rows.append(dict(site=str(place.site), by=name) | proportion_interval(hits, relations).to_dict())
            difference = paired_difference(named, hits, relations, seed=SEED).to_dict()
            rows.append(dict(site=str(place.site), by=f"description less {name}") | difference)
    return rows


def _part(raw: Tensor, number: int, d_model: int) -> Tensor:
    return raw[:, number * d_model : (number + 1) * d_model]


def _first_token(tokenizer: Any, answer: str) -> str:
    """The first token of an answer behind a space, as `logit_lens` writes it."""
    return tokenizer.decode(encode(tokenizer, f" {answer}")[:1]).strip()


def _other(facts: Sequence[Fact], number: int) -> int:
    """The next fact of the same relation with another answer; the next of all where there is none."""
    this = facts[number]
    order = [*range(number + 1, len(facts)), *range(number)]
    same = (i for i in order if facts[i].relation == this.relation and facts[i].answer.name != this.answer.name)
    return next(same, order[0])
