"""Confidence: fitted, measured, saved with the adapter, and shown beside each description."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from interp_toolkit import Adapter, FileFormatError, InterpToolkitError, Sampling, Site, read_activations, self_explain
from interp_toolkit.confidence import FEATURES, READ_BACK, ConfidenceModel, description_features
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation.confidence import (
    area_under_risk_coverage,
    auroc,
    calibration_error,
    calibration_table,
    fit_confidence,
)
from interp_toolkit.explanations import Explanation, Explanations
from interp_toolkit.models import model_facts
from interp_toolkit.read_back import read_back

COSINES = dict(cosine_title=0.4, cosine_last=0.2, soft_cosine_title=0.6, soft_cosine_last=0.8)
WEIGHTS = dict(evidence=0.5, log_prob=2.0, probability=1.0, tokens=-0.1, words=0.2) | COSINES


def _features(log_probs, evidences, tokens, samples=None, cosines=None):
    """Features of descriptions of one word each, with cosines of nought."""
    n = len(log_probs)
    cosines = dict.fromkeys(READ_BACK, np.zeros(n)) if cosines is None else cosines
    return description_features([["word"]] * n if samples is None else samples, log_probs, evidences, tokens, cosines)


def _model(**changes):
    settings = dict(site=Site.after(1), token="text", several=False, intercept=0.3, weights=WEIGHTS, n=80, seed=0)
    return ConfidenceModel(**(settings | changes))


@pytest.fixture
def adapter(tiny, tiny_prompt):
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    contract = Contract.from_facts(model_facts(tiny()), Site.after(1), tiny_prompt, torch.linspace(-1, 1, 32), True)
    several = {**WEIGHTS, "agreement": 3.0}
    models = (_model(), _model(token="last", intercept=-1.0), _model(several=True, weights=several))
    adapter.contract = replace(contract, confidence=models)
    return adapter


def test_features_are_what_is_known_without_labels():
    samples = [["the red fox", "a red fox", "Red Fox"], ["", "bees", "bees!"]]
    cosines = {name: np.full(6, i / 10) for i, name in enumerate(READ_BACK)}
    features = _features([-0.5] * 6, [1.0] * 6, [3] * 6, samples, cosines)
    assert np.allclose(features["probability"], np.exp(-0.5))
    assert features["words"].tolist() == [3, 3, 2, 0, 1, 1]
    assert all((features[name] == cosines[name]).all() for name in READ_BACK)
    # Words in common over words of either: 2/4, 2/3; 2/4, 2/3; 2/3, 2/3; and none, none; 0, 1; 0, 1.
    assert np.allclose(features["agreement"], [7 / 12, 7 / 12, 2 / 3, 0.0, 0.5, 0.5])
    alone = _features([-0.5], [1.0], [3])
    assert set(alone) == {*FEATURES, "agreement"}
    assert alone["agreement"] == [0.0]


def test_a_probability_is_the_logistic_function_of_the_weighted_features():
    cosines = {name: np.array([0.5, np.nan]) for name in READ_BACK}
    features = _features([-0.5, np.nan], [2.0, np.nan], [4, 0], [["two words"], [""]], cosines)
    linear = 0.3 + 0.5 * 2.0 + 2.0 * -0.5 + np.exp(-0.5) - 0.1 * 4 + 0.2 * 2 + 0.5 * sum(COSINES.values())
    assert np.allclose(_model().probability(features), [1 / (1 + np.exp(-linear)), 0.0])


@pytest.mark.parametrize("several", [False, True])
def test_a_fit_finds_the_probabilities_that_made_the_verdicts(several):
    rng = np.random.default_rng(0)
    n = 20_000
    cosines = {name: rng.uniform(-1, 1, n) for name in READ_BACK}
    samples = [["so many words as this"[: rng.integers(2, 21)]] for _ in range(n)]
    features = _features(-rng.exponential(1.0, n), rng.normal(2, 1, n), rng.integers(1, 20, n), samples, cosines)
    if several:
        features["agreement"] = rng.random(n)
    weights = {**WEIGHTS, "agreement": 3.0} if several else WEIGHTS
    truth = _model(several=several, weights=weights).probability(features)
    right = rng.random(n) < truth
    features["evidence"][5] = np.nan  # an empty description is left out
    fitted = fit_confidence(features, right, site=Site.after(1), token="text", several=several, seed=3)
    assert (fitted.n, fitted.seed, fitted.token, fitted.several) == (n - 1, 3, "text", several)
    known = np.isfinite(features["evidence"])
    assert np.abs(fitted.probability(features) - truth)[known].mean() < 0.01
    assert fitted.probability(features)[5] == 0.0


def test_a_weight_below_0_is_for_lengths_alone():
    rng = np.random.default_rng(0)
    n = 4000
    cosines = {name: rng.uniform(-1, 1, n) for name in READ_BACK}
    # Two cosines that are nearly one: what is right hangs on the first, less so on their difference.
    cosines["soft_cosine_last"] = cosines["cosine_last"] + rng.normal(0, 0.05, n)
    features = _features(-rng.exponential(1.0, n), rng.normal(2, 1, n), rng.integers(1, 20, n), cosines=cosines)
    linear = 3 * cosines["cosine_last"] - 20 * (cosines["soft_cosine_last"] - cosines["cosine_last"])
    right = rng.random(n) < 1 / (1 + np.exp(0.3 * features["tokens"] - 2 - linear))
    fitted = fit_confidence(features, right, site=Site.after(1), token="text")
    assert fitted.weights["tokens"] < -0.1
    assert fitted.weights["soft_cosine_last"] == 0.0
    assert all(weight >= 0 for name, weight in fitted.weights.items() if name not in ("tokens", "words"))
    plain = LogisticRegression(max_iter=1000).fit(np.stack([cosines["cosine_last"], features["tokens"]], 1), right)
    assert fitted.weights["cosine_last"] == pytest.approx(plain.coef_[0][0], rel=0.1)


@pytest.mark.parametrize(
    ("features", "right", "message"),
    [
        (80, [True] * 79, "expected whether each description is right, got 80 descriptions and 79 verdicts"),
        (80, [True] * 80, "some right and some wrong, to fit a confidence on, got 80 that are not empty, 80 of them"),
        (40, [True, False] * 20, "expected at least 50 descriptions"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, right, message):
    values = _features([-1.0] * features, [1.0] * features, [2] * features)
    with pytest.raises(InterpToolkitError, match=message):
        fit_confidence(values, right, site=Site.after(1), token="text")


def test_the_calibration_error_is_the_mean_distance_within_ten_equal_groups():
    p = np.repeat([0.05, 0.95], 50)
    right = np.concatenate([np.arange(50) < 10, np.arange(50) < 40]).astype(float)
    order = np.random.default_rng(0).permutation(100)
    groups = [(p[i : i + 10].mean(), right[i : i + 10].mean()) for i in range(0, 100, 10)]
    assert calibration_error(p, right) == pytest.approx(np.mean([abs(x - y) for x, y in groups]))
    table = calibration_table(p[order], right[order]).set_index("measure")
    assert table.loc["Brier score", "value"] == pytest.approx(((p - right) ** 2).mean())
    assert table.loc["right", "value"] == 0.5
    assert table.loc["confidence", "value"] == 0.5
    assert table.loc["AUROC", "value"] == pytest.approx(0.8)
    assert (table["low"] <= table["value"]).all()
    assert (table["n"] == 100).all()


def test_honest_probabilities_have_a_small_calibration_error_and_boastful_ones_a_large_one():
    rng = np.random.default_rng(1)
    p = rng.random(5000)
    right = (rng.random(5000) < p).astype(float)
    assert calibration_error(p, right) < 0.03
    assert calibration_error(p**0.25, right) > 0.2


def test_ranking_measures_by_hand():
    scores, right = np.array([0.9, 0.8, 0.7, np.nan]), np.array([1.0, 0.0, 1.0, 0.0])
    # Wrong among the first one, two, three, four: 0, 1/2, 1/3, 2/4.
    assert area_under_risk_coverage(scores, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert auroc(np.array([3.0, 2.0, 1.0]), np.array([1, 0, 1])) == 0.5
    assert np.isnan(auroc(np.array([1.0, 2.0]), np.array([1, 1])))


@pytest.mark.parametrize(
    ("p", "right", "message"),
    [([0.5], [True, False], "got 1 descriptions and 2 verdicts"), ([1.5], [True], "expected probabilities between")],
)
def test_what_is_no_probability_is_refused(p, right, message):
    with pytest.raises(InterpToolkitError, match=message):
        calibration_table(p, right)


def test_models_are_saved_with_the_adapter(adapter, tmp_path):
    adapter.save_pretrained(tmp_path / "adapter")
    again = Adapter.from_pretrained(tmp_path / "adapter").contract
    assert again.confidence == adapter.contract.confidence
    assert again.confidence_model(Site.after(1), "last", several=False).intercept == -1.0
    assert again.confidence_model(Site.after(2), "last", several=False) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(unknown=1), FileFormatError, "expected intercept, n, seed, .* in a model of confidence, got .*unknown"),
        (
            dict(token="first"),
            InterpToolkitError,
            "expected last, text, direction for the tokens of a confidence, got 'first'",
        ),
        (
            dict(weights={"evidence": 1.0}),
            InterpToolkitError,
            "expected a finite weight for each of evidence, log_prob",
        ),
        (dict(intercept=float("nan")), InterpToolkitError, "expected a finite weight"),
    ],
)
def test_damaged_models_are_refused(change, error, message, unchecked):
    with pytest.raises(error, match=message):
        ConfidenceModel.from_dict(_model().to_dict() | change)


def test_explanations_show_the_confidence_of_tokens_of_texts(adapter, tiny):
    model = tiny()
    read = dict(model=model, adapter=adapter, positions="all")
    rows = self_explain("Bees see foxes.", chat=False, **read)
    # The adapter does not say otherwise, so it was trained on user turns.
    assert {row.confidence for row in rows} == {None}
    rows = self_explain("Bees see foxes.", **read)
    known = [row for row in rows if row.confidence is not None]
    last = rows[len(rows) - 1]
    assert last in known
    assert 3 <= len(known) < len(rows)  # none for the template's tokens
    acts = read_activations(model, "Bees see foxes.", 1, chat=True)
    vector = adapter.contract.centre(acts.vectors)[-1:]
    cosines = read_back(model, adapter, vector, [last.description])
    linear = dict(evidence=last.evidence, log_prob=last.log_prob, probability=np.exp(last.log_prob))
    linear |= dict(words=len(re.findall(r"\w+", last.description))) | {name: x[0] for name, x in cosines.items()}
    fixed = -1.0 + sum(WEIGHTS[name] * value for name, value in linear.items())
    logit = np.log(last.confidence / (1 - last.confidence))
    assert (fixed - logit) / 0.1 == pytest.approx(round((fixed - logit) / 0.1), abs=1e-3)  # whole tokens
    assert "confidence" in repr(rows)
    assert f"{100 * known[0].confidence:.0f}%" in repr(rows)


def test_samples_have_a_confidence_of_their_own_and_the_best_is_the_highest(adapter, tiny):
    rows = self_explain("Bees see foxes.", model=tiny(), adapter=adapter, positions="content", sampling=Sampling(n=4))
    by_token = rows.to_df().groupby("position")["confidence"]
    assert by_token.count().eq(4).all()
    assert [row.confidence for row in rows.best()] == by_token.max().tolist()
    other = self_explain("Bees.", model=tiny(), adapter=adapter, positions="all", sampling=Sampling(max_new_tokens=3))
    assert {row.confidence for row in other} == {None}  # it was not calibrated on such texts


def test_without_confidence_the_best_is_that_of_most_evidence():
    def row(sample, evidence, confidence=None):
        return Explanation("x", "", -1, sample, "text", -1.0, evidence, None, 1.0, "", confidence)

    assert Explanations([row(0, 1.0), row(1, 2.0), row(2, float("nan"))]).best()[0].sample == 1
    assert Explanations([row(0, 1.0, 0.9), row(1, 2.0, 0.1)]).best()[0].sample == 0
