import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_sampling import Remote

from interp_toolkit import Adapter, InterpToolkitError, Site, self_explain
from interp_toolkit.contract import Contract, EvidenceThreshold
from interp_toolkit.evaluation.selective_prediction import (
    EvidenceControls,
    accuracy_by_coverage,
    calibrate,
    calibrate_threshold,
    evidence_controls,
    threshold_table,
)
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import PromptRun, evidence, generate, score


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32, init_scale=4.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.ones(32), True)
    return made


def _controls(own, shuffled, random):
    n = len(own)
    return EvidenceControls(torch.tensor(own), torch.tensor(shuffled), torch.tensor(random), ("x",) * n)


def test_evidence_is_what_scoring_by_hand_gives(tiny, adapter, random_vectors):
    run, vectors = PromptRun(tiny(), adapter.contract.soft_prompt), random_vectors(4)
    texts = [row[0] for row in generate(run, adapter(vectors), max_new_tokens=5)]
    ids = [text.token_ids for text in texts]
    nothing = score(run, adapter.null().expand(4, -1), ids).mean()
    for rows in (adapter(vectors), adapter(vectors.flip(0))):
        log_prob, result = evidence(run, adapter.null(), ids, rows)
        assert torch.allclose(log_prob, score(run, rows, ids).mean(), atol=1e-4)
        assert torch.allclose(result, score(run, rows, ids).mean() - nothing, atol=1e-4)
    owned = evidence(run, adapter.null(), ids, adapter(vectors[:1]), soft_token_index=[0] * 4)[1]
    assert torch.allclose(owned, score(run, adapter(vectors[:1]), ids, [0] * 4).mean() - nothing, atol=1e-4)
    log_prob, result = evidence(run, adapter.null(), [(), ids[1]], adapter(vectors[:2]))
    assert math.isnan(result[0])
    assert math.isfinite(result[1])


def test_controls_of_vectors(tiny, adapter, random_vectors):
    vectors = random_vectors(6)
    actual = evidence_controls(tiny(), adapter, vectors, seed=3)
    text = self_explain(vectors, model=tiny(), adapter=adapter)
    assert actual.descriptions == tuple(row.description for row in text)
    assert actual.matched.tolist() == pytest.approx([row.evidence for row in text], abs=1e-4)
    assert actual.shuffled.shape == actual.random.shape == (6,)
    again, other = (evidence_controls(tiny(), adapter, vectors, seed=seed) for seed in (3, 4))
    assert torch.equal(again.random, actual.random)
    assert not torch.equal(other.random, actual.random)
    assert torch.equal(other.shuffled, actual.shuffled)
    there = evidence_controls(Remote(tiny()), adapter, vectors, seed=3)
    assert there.descriptions == actual.descriptions
    assert torch.allclose(there.shuffled, actual.shuffled, atol=1e-4)
    assert torch.equal(there.random, actual.random)
    with pytest.raises(InterpToolkitError, match="at least two vectors, so that there is another for each, got 1"):
        evidence_controls(tiny(), adapter, vectors[:1])


def test_a_threshold_lets_through_no_more_of_either_control_than_asked():
    rng = np.random.default_rng(0)
    shuffled, random = rng.normal(0, 1, 400), rng.normal(0.5, 2, 400)
    actual = _controls(rng.normal(3, 1, 400), shuffled, random)
    for rate in (0.05, 0.2, 0.01):
        threshold = calibrate_threshold(actual, rate, seed=7)
        passed = [(x >= threshold.value).sum().item() for x in (actual.shuffled, actual.random)]
        assert max(passed) == round(400 * rate)
        # One control more lets through more: no threshold below does as well.
        assert max((x >= threshold.value - 0.5).sum() for x in (actual.shuffled, actual.random)) > 400 * rate
        assert (threshold.false_positive_rate, threshold.n, threshold.seed) == (rate, 400, 7)
    # Descriptions that are empty are no readings, and do not count as evident.
    empty = _controls([1.0] * 20, [math.nan] * 20, [0.0] * 19 + [5.0])
    assert calibrate_threshold(empty, 0.05).value == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InterpToolkitError, match="at least 20 vectors for a rate of 0.05, got 19"):
        calibrate_threshold(_controls([1.0] * 19, [0.0] * 19, [0.0] * 19))
    with pytest.raises(InterpToolkitError, match="between 0 and 1, got 1"):
        calibrate_threshold(actual, 1.0)


def test_the_table_counts_what_passes():
    controls = _controls([3.0, 2.0, 1.0, math.nan], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, math.nan, 0.0])
    threshold = EvidenceThreshold(value=2.0, false_positive_rate=0.05, n=100, seed=0)
    table = threshold_table(controls, [True, False, True, False], threshold).set_index("measure")
    assert table.value.to_dict() == {
        "kept": 0.5,
        "passed, shuffled": 0.25,
        "passed, random": 0.0,
        "accuracy, all": 0.5,
        "accuracy, kept": 0.5,
    }
    assert table.n.to_dict()["accuracy, kept"] == 2
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    none = threshold_table(controls, [True] * 4, replace(threshold, value=9.0)).set_index("measure")
    assert none.value["kept"] == 0
    assert math.isnan(none.value["accuracy, kept"])
    with pytest.raises(InterpToolkitError, match="got 4 descriptions and 3 verdicts"):
        threshold_table(controls, [True] * 3, threshold)


def test_coverage_against_accuracy():
    evidence = torch.tensor([0.1, 4.0, math.nan, 2.0])
    table = accuracy_by_coverage(evidence, [False, True, False, True], [0.25, 0.5, 0.75, 1.0])
    assert table.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table.accuracy.tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    assert table.n.tolist() == [1, 2, 3, 4]
    assert table.threshold.tolist()[:3] == pytest.approx([4.0, 2.0, 0.1])
    with pytest.raises(InterpToolkitError, match="above 0 and at most 1, got 0"):
        accuracy_by_coverage(evidence, [True] * 4, [0.0])


def test_explanations_below_the_threshold_abstain(tiny, adapter, random_vectors, tmp_path):
    vectors = random_vectors(6)
    plain = self_explain(vectors, model=tiny(), adapter=adapter)
    assert {row.above_threshold for row in plain} == {None}
    assert "verdict" not in repr(plain).splitlines()[1]
    value = sorted(row.evidence for row in plain)[3]
    adapter.contract = replace(adapter.contract, threshold=EvidenceThreshold(value, 0.05, 40, 0))
    adapter.save_pretrained(tmp_path / "a")
    loaded = Adapter.from_pretrained(tmp_path / "a")
    assert loaded.contract.threshold == adapter.contract.threshold
    actual = self_explain(vectors, model=tiny(), adapter=loaded, include_null=True)
    assert [row.above_threshold for row in actual] == [row.evidence >= value for row in actual]
    assert sum(row.above_threshold for row in actual) == 3
    assert repr(actual).count("abstains") == 4
    assert actual._repr_html_().count("<td style='text-align:left'>abstains</td>") == 4
    # The threshold is for the adapter's own question.
    other = self_explain(vectors, model=tiny(), adapter=loaded.with_soft_prompt(loaded.contract.soft_prompt))
    assert {row.above_threshold for row in other} == {None}


def test_calibrating_gives_a_copy_with_a_threshold_and_changes_nothing_else(tiny, adapter, random_vectors):
    vectors = random_vectors(24)
    calibrated = calibrate(adapter, tiny(), vectors, seed=3)
    expected = calibrate_threshold(evidence_controls(tiny(), adapter, vectors, seed=3), seed=3)
    assert calibrated.contract.threshold == expected
    assert adapter.contract.threshold is None
    assert calibrated.contract.to_dict() == adapter.contract.to_dict() | dict(threshold=asdict(expected))
    assert torch.equal(calibrated.contract.mean, adapter.contract.mean)
    assert calibrated is not adapter
    assert torch.equal(calibrated.bias, adapter.bias)
    with pytest.raises(InterpToolkitError, match="at least 20 vectors for a rate of 0.05, got 6"):
        calibrate(adapter, tiny(), vectors[:6])


def test_the_old_name_of_the_matched_evidence_warns():
    with pytest.warns(DeprecationWarning, match=r"EvidenceControls.own is deprecated; use EvidenceControls.matched"):
        assert _controls([1.0], [0.0], [0.0]).own.tolist() == [1.0]
