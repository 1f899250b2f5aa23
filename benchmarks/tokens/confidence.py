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

from benchmarks.tokens.reading import LAST, TextToken, names, read_text_tokens, read_topics
from benchmarks.tokens.training import Sizes, passages
from interp_toolkit import Adapter
from interp_toolkit.confidence import TokenKind, description_features
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.confidence import area_under_risk_coverage, auroc, calibration_table, fit_confidence
from interp_toolkit.evaluation.context import SAMPLES, SEED, TEMPERATURE, EvalContext
from interp_toolkit.evaluation.control_kinds import random_directions
from interp_toolkit.evaluation.selective_prediction import calibrate_threshold, evidence_controls
from interp_toolkit.pairs.wordings import WORDINGS
from interp_toolkit.reading_place import ReadingPlace
from interp_toolkit.runtime import Generation, PromptRun, generate
from interp_toolkit.sites import SiteStack
from interp_toolkit.statistics import paired_difference, proportion_interval

_TEXTS = 250
# Vectors of each kind that a threshold is calibrated on, and that have six samples.
_CONTROLS, _SAMPLED = 150, 250
# Right and wrong descriptions that a confidence is fitted on at least.
_FEWEST_OF_EITHER = 10
# Vectors of each kind whose samples are chosen from, and that are read at single sites, when it is measured.
_CHOSEN = 400


@dataclass(frozen=True, eq=False)
class Questions:
    """Vectors whose descriptions can be right or wrong.

    Attributes:
        token: which tokens they are of.
        raw: of the adapter's stack, [n, width].
        titles: the right title of each, at the last token of a turn.
        tokens: the token of each, in a text.
    """

    token: TokenKind
    raw: Tensor
    titles: Sequence[str] = ()
    tokens: Sequence[TextToken] = ()

    def first(self, count: int) -> Questions:
        """The first so many."""
        return replace(self, raw=self.raw[:count], titles=self.titles[:count], tokens=self.tokens[:count])

    def repeated(self, times: int) -> Questions:
        """Each question so many times, one time behind the other, for samples of each vector."""
        return replace(
            self,
            raw=self.raw.repeat_interleave(times, 0),
            titles=[title for title in self.titles for _ in range(times)],
            tokens=[token for token in self.tokens for _ in range(times)],
        )

    def right(self, context: EvalContext, texts: Sequence[str]) -> np.ndarray:
        """Whether each description names the title, first among all, or the token's word."""
        if self.tokens:
            return np.array([names(text, token.word) for text, token in zip(texts, self.tokens)])
        return (context.ranks([[text] for text in texts], context.answers(self.titles))[:, 0] <= 1).numpy()


def calibrated(context: EvalContext, data: Path, adapter: Adapter, sizes: Sizes) -> Adapter:
    """The adapter with a threshold of evidence and models of confidence for each of its places.

    They are fitted on training titles that chose the weights at most, in wordings of training, and on training passages
    behind those that were trained on, half of them in user turns.

    Args:
        context: titles, model and embedder.
        data: folder of the data.
        adapter: as it was trained.
        sizes: of the training.
    """
    contract = adapter.require_contract()
    stack = contract.require_site()
    titles = context.titles.dev[: sizes.val]
    wordings = random.Random(SEED).choices(WORDINGS, k=len(titles))
    first = sizes.passages + sizes.turns
    texts = passages(data, "train", first + _TEXTS)[first:] or passages(data, "train", _TEXTS)
    half = len(texts) // 2
    read = [
        read_text_tokens(context.model, part, stack, chat)
        for part, chat in ((texts[:half], False), (texts[half:], True))
    ]
    questions = [
        Questions("last", read_topics(context.model, titles, wordings, stack)[LAST], titles=titles),
        Questions(
            "text", torch.cat([raw for _, raw in read]), tokens=[token for tokens, _ in read for token in tokens]
        ),
    ]
    places, models = [], []
    for place in contract.reading_places:
        values = [_at(contract, question.raw, place) for question in questions]
        mixed = torch.cat([x[:_CONTROLS] for x in values])
        threshold = calibrate_threshold(evidence_controls(context.model, adapter, mixed, SEED, context.progress))
        places.append(replace(place, threshold=threshold))
        print(place.site, f"threshold {threshold.value:.3f}", flush=True)
        for question, x in zip(questions, values):
            for several in (False, True) if isinstance(place.site, SiteStack) else (False,):
                some = question.first(_SAMPLED) if several else question
                generations = _described(context, adapter, x[: len(some.raw)], several)
                texts_of = [text.text for row in generations for text in row]
                right = some.repeated(SAMPLES if several else 1).right(context, texts_of)
                print(f"{place.site}, {question.token}: {right.mean():.3f} right of {len(right)}", flush=True)
                # Deep in the template an early layer holds nothing of the topic: no confidence can be fitted there.
                if min(right.sum(), (~right).sum()) >= _FEWEST_OF_EITHER:
                    settings: dict[str, Any] = dict(site=place.site, token=question.token, several=several, seed=SEED)
                    models.append(fit_confidence(_features(generations, several), right, **settings))
    adapter.contract = replace(
        contract, threshold=places[0].threshold, more=tuple(places[1:]), confidence=tuple(models)
    )
    return adapter


def confidence_rows(
    context: EvalContext, adapter: Adapter, titles: Sequence[str], texts: Sequence[str], wordings: Sequence[str]
) -> list[dict[str, Any]]:
    """How far the confidence of an adapter can be trusted, on vectors that nothing was fitted on.

    Args:
        context: titles, model and embedder.
        adapter: with models of confidence.
        titles: held out, each read at the last token of a wording, which they take in turn.
        texts: held out, read as plain text.
        wordings: that were not trained on.
    """
    contract = adapter.require_contract()
    stack = contract.require_site()
    in_turn = [wordings[i % len(wordings)] for i in range(len(titles))]
    tokens, raw = read_text_tokens(context.model, texts, stack, chat=False)
    rows = []
    for questions in (
        Questions("last", read_topics(context.model, titles, in_turn, stack)[LAST], titles=titles),
        Questions("text", raw, tokens=tokens),
    ):
        for place in contract.reading_places:
            kind = dict(site=str(place.site), token=questions.token)
            if contract.confidence_model(place.site, questions.token, several=False) is None:
                continue
            # A site alone is measured on fewer vectors.
            some = questions if isinstance(place.site, SiteStack) else questions.first(_CHOSEN)
            rows += [kind | row for row in _greedy_rows(context, adapter, some, place)]
            if contract.confidence_model(place.site, questions.token, several=True):
                rows += [kind | row for row in _choosing_rows(context, adapter, questions, place)]
    return rows


def _greedy_rows(
    context: EvalContext, adapter: Adapter, questions: Questions, place: ReadingPlace
) -> list[dict[str, Any]]:
    """One greedy description of each vector, and of a random direction in its place."""
    contract = adapter.require_contract()
    model = contract.confidence_model(place.site, questions.token, several=False)
    assert model is not None
    vectors = _at(contract, questions.raw, place)
    rows = []
    kinds = {"matched": vectors}
    if isinstance(place.site, SiteStack):
        kinds["random directions"] = random_directions(vectors, adapter.config.sites, SEED)
    for name, values in kinds.items():
        generations = _described(context, adapter, values, several=False)
        right = questions.right(context, [row[0].text for row in generations])
        features = _features(generations, several=False)
        confidence = model.probability(features)
        # Of random directions hardly any description is right, so that nothing can be ordered.
        measures = calibration_table(confidence, right, SEED).to_dict("records")
        here = [row for row in measures if name == "matched" or row["measure"] in ("right", "confidence")]
        if name == "matched":
            for score, scores in (("confidence", confidence), *((x, features[x]) for x in ("evidence", "log_prob"))):
                area = area_under_risk_coverage(scores, right)
                here.append(dict(measure=f"area under risk-coverage, {score}", value=area, n=len(right), seed=SEED))
                if score != "confidence":
                    area = auroc(np.nan_to_num(scores, nan=-np.inf), right)
                    here.append(dict(measure=f"AUROC, {score}", value=area, n=len(right), seed=SEED))
        rows += [dict(vectors=name) | row for row in here]
    return rows


def _choosing_rows(
    context: EvalContext, adapter: Adapter, questions: Questions, place: ReadingPlace
) -> list[dict[str, Any]]:
    """The best of six samples by confidence and by evidence, beside one greedy description."""
    contract = adapter.require_contract()
    model = contract.confidence_model(place.site, questions.token, several=True)
    assert model is not None
    questions = questions.first(_CHOSEN)
    vectors = _at(contract, questions.raw, place)
    greedy = questions.right(context, [row[0].text for row in _described(context, adapter, vectors, several=False)])
    samples = _described(context, adapter, vectors, several=True)
    features = _features(samples, several=True)
    rows = [dict(measure="right, greedy") | proportion_interval(greedy).to_dict()]
    for name, scores in (("confidence", model.probability(features)), ("evidence", features["evidence"])):
        best = np.nan_to_num(scores, nan=-np.inf).reshape(-1, SAMPLES).argmax(1)
        chosen = questions.right(context, [row[i].text for row, i in zip(samples, best)])
        rows.append(dict(measure=f"right, best of six by {name}") | proportion_interval(chosen).to_dict())
        difference = paired_difference(chosen, greedy, seed=SEED).to_dict()
        rows.append(dict(measure=f"best of six by {name} less greedy") | difference)
    return [dict(vectors="matched") | row for row in rows]


def _at(contract: Contract, raw: Tensor, place: ReadingPlace) -> Tensor:
    """Raw vectors of the stack as the adapter takes them from one of its places."""
    if isinstance(place.site, SiteStack):
        return contract.centre(raw)
    number = contract.require_site().sites.index(place.site)
    part = raw[:, number * contract.d_model : (number + 1) * contract.d_model]
    return contract.filled(part if place.mean is None else part - place.mean, place.site)


@torch.no_grad()
def _described(context: EvalContext, adapter: Adapter, values: Tensor, several: bool) -> list[list[Generation]]:
    """Descriptions of vectors, with their evidence: one greedy one each, or six samples."""
    run = PromptRun(context.model, adapter.require_contract().require_soft_prompt())
    device = run.backend.device
    adapter = adapter.to(device)
    settings: dict[str, Any] = dict(samples=SAMPLES, temperature=TEMPERATURE, seed=SEED) if several else {}
    soft_tokens = adapter(values.to(device))
    return generate(run, soft_tokens, null=adapter.null(), progress=context.progress, **settings)


def _features(generations: Sequence[Sequence[Generation]], several: bool) -> dict[str, np.ndarray]:
    texts = [text for row in generations for text in row]
    return description_features(
        [text.log_prob for text in texts],
        [text.evidence for text in texts],
        [len(text.token_ids) for text in texts],
        [[text.text for text in row] for row in generations] if several else None,
    )
