"""Thresholds and confidence of the adapter for any token: fitted on some titles and texts, measured on others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.tokens.features import feature_questions
from benchmarks.tokens.questions import Questions, of_tokens
from benchmarks.tokens.reading import LAST, read_text_tokens, read_topics
from benchmarks.tokens.training import Sizes, passages
from interp_toolkit import Adapter
from interp_toolkit.confidence import description_features
from interp_toolkit.evaluation.confidence import area_under_risk_coverage, auroc, calibration_table, fit_confidence
from interp_toolkit.evaluation.context import SAMPLES, SEED, TEMPERATURE, EvalContext
from interp_toolkit.evaluation.control_kinds import random_directions
from interp_toolkit.evaluation.selective_prediction import calibrate_threshold, evidence_controls
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.read_back import read_back
from interp_toolkit.reading_place import ReadingPlace
from interp_toolkit.runtime import PromptRun, evidence, generate
from interp_toolkit.sites import Place, SiteStack
from interp_toolkit.statistics import paired_difference, proportion_interval

# Wordings in which a confidence is fitted: neither of training, where descriptions are better, nor those of `measure`.
WORDINGS_OF_CONFIDENCE = (
    "Do you have any information on {title}?",
    "The essay that I have to hand in is about {title}.",
    "Please summarise {title} for me.",
    "Where would I look up {title}?",
    "What makes {title} interesting?",
    "I came across {title} in a crossword.",
    "Could you introduce me to {title}?",
    "Draw up a list of questions on {title}.",
)
# Wordings that each title is put into, and texts whose tokens are read.
_PER_TITLE, _TEXTS = 3, 500
# Vectors of each kind that a threshold is calibrated on, and that have six samples.
_CONTROLS, _SAMPLED = 150, 250
# Vectors of each kind that a confidence of a site alone is fitted on.
_ALONE = 1000
# Right and wrong descriptions that a confidence is fitted on at least.
_FEWEST_OF_EITHER = 10
# Vectors of each kind whose samples are chosen from, and that are read at single sites, when it is measured.
_CHOSEN = 400


@dataclass(frozen=True, eq=False)
class Described:
    """What is known of descriptions.

    Attributes:
        features: without labels, see `description_features`.
        right: whether each is right.
    """

    features: dict[str, np.ndarray]
    right: np.ndarray


def calibrated(context: EvalContext, data: Path, adapter: Adapter, sizes: Sizes) -> Adapter:
    """The adapter with a threshold of evidence and models of confidence for each of its places.

    They are fitted on titles that chose the weights at most, and on training passages behind those that were trained
    on, half of them in user turns: thresholds in wordings of training, confidence in others.

    Args:
        context: titles, model and embedder.
        data: folder of the data.
        adapter: as it was trained.
        sizes: of the training.
    """
    contract = adapter.require_contract()
    stack = contract.require_site()
    titles = context.titles.dev[: sizes.val]
    first = sizes.passages + sizes.turns
    texts = passages(data, "train", first + _TEXTS)[first:] or passages(data, "train", _TEXTS)
    half = len(texts) // 2
    read = [
        read_text_tokens(context.model, part, stack, chat)
        for part, chat in ((texts[:half], False), (texts[half:], True))
    ]
    of_texts = of_tokens([token for tokens, _ in read for token in tokens], torch.cat([raw for _, raw in read]))
    of_texts = of_texts.shuffled(SEED)
    trained = _topics(context, titles, WORDINGS, stack)
    questions = [
        _topics(context, titles * _PER_TITLE, WORDINGS_OF_CONFIDENCE, stack),
        of_texts,
        feature_questions(context, data)[0],
    ]
    places, models = [], []
    for place in contract.reading_places:
        mixed = torch.cat([x.first(_CONTROLS).values(contract, place) for x in (trained, of_texts)])
        threshold = calibrate_threshold(evidence_controls(context.model, adapter, mixed, SEED, context.progress))
        places.append(replace(place, threshold=threshold))
        print(place.site, f"threshold {threshold.value:.3f}", flush=True)
        for question in questions:
            if question.site not in (None, place.site):
                continue
            alone = not isinstance(place.site, SiteStack)
            for several in (False,) if alone else (False, True):
                some = question.first(_SAMPLED if several else _ALONE) if several or alone else question
                described = _described(context, adapter, some, place, several)
                right = described.right
                print(f"{place.site}, {question.token}: {right.mean():.3f} right of {len(right)}", flush=True)
                # Deep in the template an early layer holds nothing of the topic: no confidence can be fitted there.
                if min(right.sum(), (~right).sum()) >= _FEWEST_OF_EITHER:
                    settings: dict[str, Any] = dict(site=place.site, token=question.token, several=several, seed=SEED)
                    models.append(fit_confidence(described.features, right, **settings))
    adapter.contract = replace(
        contract, threshold=places[0].threshold, more=tuple(places[1:]), confidence=tuple(models)
    )
    return adapter


def _topics(context: EvalContext, titles: Sequence[str], wordings: Sequence[str], place: Place) -> Questions:
    drawn = random.Random(SEED).choices(wordings, k=len(titles))
    return Questions("last", read_topics(context.model, titles, drawn, place)[LAST], titles=titles)


def confidence_rows(
    context: EvalContext,
    adapter: Adapter,
    titles: Sequence[str],
    texts: Sequence[str],
    wordings: Sequence[str],
    features: Sequence[Questions] = (),
) -> list[dict[str, Any]]:
    """How far the confidence of an adapter can be trusted, on vectors that nothing was fitted on.

    Args:
        context: titles, model and embedder.
        adapter: with models of confidence.
        titles: held out, each read at the last token of a wording, which they take in turn.
        texts: held out, read as plain text.
        wordings: that were not trained on.
        features: questions about features of an SAE, see `feature_questions`.
    """
    contract = adapter.require_contract()
    stack = contract.require_site()
    in_turn = [wordings[i % len(wordings)] for i in range(len(titles))]
    tokens, raw = read_text_tokens(context.model, texts, stack, chat=False)
    rows = []
    for questions in (
        Questions("last", read_topics(context.model, titles, in_turn, stack)[LAST], titles=titles),
        of_tokens(tokens, raw),
        *features,
    ):
        for place in contract.reading_places:
            if questions.site not in (None, place.site):
                continue
            kind = dict(site=str(place.site), token=questions.token)
            if contract.confidence_model(place.site, questions.token, several=False) is None:
                continue
            # A site alone is measured on fewer vectors.
            some = questions if isinstance(place.site, SiteStack) else questions.first(_CHOSEN)
            greedy = _described(context, adapter, some, place, several=False)
            rows += [kind | row for row in _greedy_rows(context, adapter, some, place, greedy)]
            if contract.confidence_model(place.site, questions.token, several=True):
                right = greedy.right[:_CHOSEN]
                rows += [kind | row for row in _choosing_rows(context, adapter, questions, place, right)]
    return rows


def _greedy_rows(
    context: EvalContext, adapter: Adapter, questions: Questions, place: ReadingPlace, described: Described
) -> list[dict[str, Any]]:
    """One greedy description of each vector; at the stack also controls, whose descriptions are hardly ever right."""
    contract = adapter.require_contract()
    model = contract.confidence_model(place.site, questions.token, several=False)
    assert model is not None
    features, right = described.features, described.right
    confidence = model.probability(features)
    rows = calibration_table(confidence, right, SEED).to_dict("records")
    for score, scores in (("confidence", confidence), *((x, features[x]) for x in ("evidence", "log_prob"))):
        area = area_under_risk_coverage(scores, right)
        rows.append(dict(measure=f"area under risk-coverage, {score}", value=area, n=len(right), seed=SEED))
        if score != "confidence":
            area = auroc(np.nan_to_num(scores, nan=-np.inf), right)
            rows.append(dict(measure=f"AUROC, {score}", value=area, n=len(right), seed=SEED))
    rows = [dict(vectors="matched") | row for row in rows]
    if not isinstance(place.site, SiteStack):
        return rows
    values = questions.values(contract, place)
    controls: dict[str, dict[str, Any]] = {
        "random directions": dict(instead=random_directions(values, adapter.config.sites, SEED)),
        "permuted dimensions": dict(instead=_permuted(values, adapter.config.sites)),
        "another's description": dict(of_others=True),
    }
    for name, settings in controls.items():
        described = _described(context, adapter, questions, place, several=False, **settings)
        measured: Any = calibration_table(model.probability(described.features), described.right, SEED)
        # Nothing can be ordered where hardly any description is right.
        shown = measured[measured["measure"].isin(["right", "confidence"])].to_dict("records")
        rows += [dict(vectors=name) | row for row in shown]
    return rows


def _permuted(values: Tensor, sites: int) -> Tensor:
    """Vectors as another model would have them that is this one but for the order of its stream's dimensions."""
    by_site = values.unflatten(-1, (sites, -1))
    order = torch.randperm(by_site.shape[-1], generator=torch.Generator().manual_seed(SEED))
    return by_site[..., order].flatten(-2)


def _choosing_rows(
    context: EvalContext, adapter: Adapter, questions: Questions, place: ReadingPlace, greedy: np.ndarray
) -> list[dict[str, Any]]:
    """The best of six samples by confidence and by evidence, beside one greedy description."""
    model = adapter.require_contract().confidence_model(place.site, questions.token, several=True)
    assert model is not None
    samples = _described(context, adapter, questions.first(_CHOSEN), place, several=True)
    right = samples.right.reshape(-1, SAMPLES)
    rows = [dict(measure="right, greedy") | proportion_interval(greedy).to_dict()]
    for name, scores in (
        ("confidence", model.probability(samples.features)),
        ("evidence", samples.features["evidence"]),
    ):
        best = np.nan_to_num(scores, nan=-np.inf).reshape(-1, SAMPLES).argmax(1)
        chosen = right[np.arange(len(right)), best]
        rows.append(dict(measure=f"right, best of six by {name}") | proportion_interval(chosen).to_dict())
        difference = paired_difference(chosen, greedy, seed=SEED).to_dict()
        rows.append(dict(measure=f"best of six by {name} less greedy") | difference)
    return [dict(vectors="matched") | row for row in rows]


@torch.no_grad()
def _described(
    context: EvalContext,
    adapter: Adapter,
    questions: Questions,
    place: ReadingPlace,
    several: bool,
    instead: Tensor | None = None,
    of_others: bool = False,
) -> Described:
    """One greedy description of each vector, or six samples.

    Args:
        context: with model and embedder.
        adapter: with its contract.
        questions: whose vectors are described.
        place: where the vectors are read.
        several: whether there are six samples.
        instead: other vectors in the place of the questions' own.
        of_others: whether each vector gets the description of the one half a list away.
    """
    contract = adapter.require_contract()
    values = questions.values(contract, place) if instead is None else instead
    run = PromptRun(context.model, contract.require_soft_prompt())
    adapter = adapter.to(run.backend.device)
    settings: dict[str, Any] = dict(samples=SAMPLES, temperature=TEMPERATURE, seed=SEED) if several else {}
    soft_tokens = adapter(values.to(run.backend.device))
    generations = generate(run, soft_tokens, null=adapter.null(), progress=context.progress, **settings)
    if of_others:
        half = len(generations) // 2
        generations = generations[half:] + generations[:half]
    samples = [[text.text for text in row] for row in generations]
    texts = [text for row in generations for text in row]
    described, count = [text.text for text in texts], len(samples[0])
    log_probs, evidences = [text.log_prob for text in texts], [text.evidence for text in texts]
    if of_others:
        measured = evidence(run, adapter.null(), [text.token_ids for text in texts], soft_tokens)
        log_probs, evidences = (x.tolist() for x in measured)
    features = description_features(
        samples,
        log_probs,
        evidences,
        [len(text.token_ids) for text in texts],
        read_back(context.model, adapter, values.repeat_interleave(count, 0), described, place.site),
    )
    return Described(features, questions.right(context, samples))
