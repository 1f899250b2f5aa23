import itertools

import numpy as np
import pytest
import scipy.stats
import statsmodels.api
import torch

from interp_toolkit import InterpToolkitError, statistics
from interp_toolkit.evaluation import recall_table
from interp_toolkit.statistics import (
    adjust_p_values,
    mean_interval,
    paired_difference,
    proportion_interval,
    ratio_interval,
)


def _numbers(n, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, n)


def _clustered(seed, clusters=40, most=6):
    """Rows of clusters of unequal size that vary between clusters much more than within."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, clusters)
    names = np.repeat(np.arange(clusters), sizes)
    return rng.normal(0, 1, clusters)[names] + rng.normal(0, 0.3, len(names)), names


def _ends(interval):
    return interval.value, interval.low, interval.high


def test_the_interval_of_a_mean_is_that_of_theory():
    values = _numbers(400)
    got = mean_interval(values, seed=3)
    truth = scipy.stats.t.interval(0.95, 399, values.mean(), scipy.stats.sem(values))
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx(truth, abs=0.006)
    assert (got.n, got.clusters, got.seed) == (400, 400, 3)
    assert set(got.to_dict()) == {"value", "low", "high", "n", "clusters", "seed"}
    assert mean_interval(values, seed=3) == got != mean_interval(values, seed=4)


def _scipys(data, statistic, n, **settings):
    """scipy's accelerated bootstrap, at the level whose normal quantile is that of t, widened for n units."""
    tail = scipy.stats.norm.cdf(-((n / (n - 1)) ** 0.5) * scipy.stats.t.ppf(0.975, n - 1))
    return scipy.stats.bootstrap(
        data, statistic, method="BCa", confidence_level=1 - 2 * tail, rng=5, **settings
    ).confidence_interval


@pytest.mark.parametrize("n", [6, 10, 60])
def test_the_interval_of_a_mean_is_that_of_scipy_on_the_rows(n):
    values = _numbers(n) ** 2
    truth = _scipys((values,), np.mean, n)
    got = mean_interval(torch.tensor(values), seed=5)
    assert (got.low, got.high) == pytest.approx((truth.low, truth.high), rel=5e-3)


def test_the_interval_of_a_ratio_is_that_of_scipy_on_the_rows():
    over, under = _numbers(40) ** 2, _numbers(40, seed=1) ** 2 + 1
    truth = _scipys((over, under), lambda x, y, axis: x.sum(axis) / y.sum(axis), 40, paired=True, vectorized=True)
    got = ratio_interval(over, under, seed=5)
    assert (got.low, got.high) == pytest.approx((truth.low, truth.high), rel=5e-3)


def test_few_units_take_students_t():
    values = _numbers(4) ** 2
    truth = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
    assert _ends(mean_interval(values))[1:] == pytest.approx(truth)
    rows = np.repeat(values, 3) + np.tile([-1.0, 0.0, 1.0], 4)
    assert _ends(mean_interval(rows, np.repeat(range(4), 3)))[1:] == pytest.approx(truth)


def _coverage(draw, truth, n, repetitions):
    rng = np.random.default_rng(0)
    held = [mean_interval(draw(rng, n)) for _ in range(repetitions)]
    return np.mean([x.low <= truth <= x.high for x in held])


def _exponential(rng, n):
    return rng.exponential(1, n)


def _lognormal(rng, n):
    return rng.lognormal(0, 1, n)


def test_intervals_of_skewed_rows_hold_the_truth_nearly_as_often_as_they_say():
    # A percentile bootstrap: 0.86, and 0.80 for three rows.
    assert 0.89 <= _coverage(_exponential, 1.0, 10, 300) <= 0.98
    assert _coverage(lambda rng, n: rng.normal(0, 1, n), 0.0, 3, 300) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "truth", "n", "least"),
    # Of a percentile bootstrap, in this order: 0.86, 0.93, 0.80, 0.89.
    [
        (_exponential, 1.0, 10, 0.91),
        (_exponential, 1.0, 60, 0.93),
        (_lognormal, np.exp(0.5), 10, 0.86),
        (_lognormal, np.exp(0.5), 60, 0.90),
    ],
)
def test_the_coverage_of_skewed_rows_at_length(draw, truth, n, least):
    assert least <= _coverage(draw, truth, n, 2000) <= 0.97


@pytest.mark.slow
def test_the_coverage_of_skewed_clusters_and_ratios_at_length():
    rng, held = np.random.default_rng(0), {"mean": [], "ratio": []}
    for _ in range(1000):
        sizes = rng.integers(1, 6, 15)
        names = np.repeat(range(15), sizes)
        values = rng.exponential(1, 15)[names] + rng.normal(0, 0.1, len(names))
        under = rng.exponential(1, 15)[names] + 1
        # Clusters count by their rows, and their sizes say nothing of their values.
        for name, got, truth in (
            ("mean", mean_interval(values, names), 1.0),
            ("ratio", ratio_interval(values, under, names), 0.5),
        ):
            held[name].append(got.low <= truth <= got.high)
    assert 0.90 <= np.mean(held["mean"]) <= 0.97
    assert 0.90 <= np.mean(held["ratio"]) <= 0.97


@pytest.mark.filterwarnings("error")
def test_rows_without_spread():
    for value in (False, True):
        got, share = mean_interval([value] * 9, seed=7), proportion_interval([value] * 9)
        assert _ends(got) == _ends(share)
        assert (got.seed, got.high - got.low > 0.2) == (7, True)
    for number in (2.5, 0.0):
        assert _ends(mean_interval([number] * 9)) == (number, number, number)
    for alone in (
        mean_interval([2.5]),
        mean_interval([2.5, 3.5], ["a", "a"]),
        paired_difference([1, 0.5], [0, 0], [1, 1]),
    ):
        assert np.isfinite(alone.value)
        assert np.isnan([alone.low, alone.high]).all()
    two = mean_interval([1.0, 2.0])
    assert (two.low, two.high) == pytest.approx((1.5 - 12.706 / 2, 1.5 + 12.706 / 2), abs=1e-3)
    assert _ends(ratio_interval([1.0], [2.0])) == (0.5, -np.inf, np.inf)
    # Truths that all agree: few rows differ, as far as so many can tell.
    same = paired_difference([True, False] * 10, [True, False] * 10)
    few = proportion_interval([False] * 20).high
    assert (_ends(same), same.p) == (pytest.approx((0, -few, few)), 1)
    assert _ends(paired_difference([True] * 20, [False] * 20)) == pytest.approx((1, 1 - few, 1))
    assert _ends(paired_difference([2.5] * 5, [1.0] * 5)) == (1.5, 1.5, 1.5)


@pytest.mark.filterwarnings("error")
def test_one_row_that_outweighs_all_others():
    for n in (6, 10, 1000):
        values = np.zeros(n)
        values[0] = 1e9
        got = mean_interval(values + 0.5)
        assert 0.5 <= got.low <= got.value <= got.high <= 1e9 + 0.5
    ratio = ratio_interval(np.arange(1.0, 9), [1e-9] + [1.0] * 7)
    assert ratio.low < ratio.value < ratio.high


def test_the_shares_of_a_recall_table_are_shares():
    ranks = torch.tensor([1, 3, 8, 40, 500])
    table = recall_table(ranks, seed=5).set_index("measure")
    truth = proportion_interval(ranks <= 10)
    assert (table.low["recall@10"], table.high["recall@10"]) == (truth.low, truth.high)
    assert table.loc["recall@1", "low"] > 0
    assert (table.seed == 5).all()


def test_clusters_of_one_row_are_no_clusters():
    first, second = _numbers(30), _numbers(30, seed=1, shift=0.3)
    alone = [f"row {i}" for i in range(30)]
    assert mean_interval(first, alone) == mean_interval(first)
    assert ratio_interval(first + 3, second + 3, alone) == ratio_interval(first + 3, second + 3)
    assert paired_difference(first, second, alone) == paired_difference(first, second)
    assert proportion_interval(first > 0, alone) == proportion_interval(first > 0)


def test_rows_that_are_copied_within_clusters_tell_nothing_new():
    first, second = _numbers(25), _numbers(25, seed=1, shift=0.3)
    names, copies = np.repeat(np.arange(25), 7), lambda values: np.repeat(values, 7)
    pairs = [
        (mean_interval(first), mean_interval(copies(first), names)),
        (proportion_interval(first > 1), proportion_interval(copies(first > 1), names)),
        (proportion_interval(first > 9), proportion_interval(copies(first > 9), names)),
        (ratio_interval(first, second + 3), ratio_interval(copies(first), copies(second + 3), names)),
        (paired_difference(first, second), paired_difference(copies(first), copies(second), names)),
    ]
    for single, copied in pairs:
        assert _ends(copied) == pytest.approx(_ends(single))
        assert (copied.n, copied.clusters) == (175, 25)
    assert pairs[-1][0].p == pairs[-1][1].p
    # Taken for independent rows, they would seem to.
    narrow = mean_interval(copies(first))
    assert narrow.high - narrow.low < 0.5 * (pairs[0][0].high - pairs[0][0].low)


def test_a_clustered_interval_is_as_wide_as_the_robust_error_of_a_regression():
    values, names = _clustered(0, clusters=300)
    fit = statsmodels.api.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": names})
    got = mean_interval(values, names)
    assert got.value == pytest.approx(fit.params[0])
    assert (got.low, got.high) == pytest.approx(tuple(fit.conf_int()[0]), abs=0.01)
    hits = (values > 0.5).astype(float)
    fit = statsmodels.api.OLS(hits, np.ones(len(hits))).fit(cov_type="cluster", cov_kwds={"groups": names})
    share = proportion_interval(hits, names)
    assert (share.low, share.high) == pytest.approx(tuple(fit.conf_int()[0]), abs=0.01)


def test_intervals_of_clustered_rows_hold_the_truth_as_often_as_they_say():
    actual = {"mean": 0, "share": 0, "rows taken for independent": 0}
    for seed in range(200):
        values, names = _clustered(seed)
        for name, got, truth in (
            ("mean", mean_interval(values, names), 0.0),
            ("share", proportion_interval(values > 0, names), 0.5),
            ("rows taken for independent", proportion_interval(values > 0), 0.5),
        ):
            actual[name] += got.low <= truth <= got.high
    # Three standard errors of 200 draws at 95% are 0.046.
    assert 0.90 <= actual["mean"] / 200 <= 0.99
    assert 0.90 <= actual["share"] / 200 <= 0.99
    assert actual["rows taken for independent"] / 200 < 0.8


def test_the_interval_of_a_share_is_wilsons():
    z = scipy.stats.norm.ppf(0.975)
    for hits, n in ((3, 10), (0, 50), (50, 50), (499, 1000)):
        got = proportion_interval([True] * hits + [False] * (n - hits))
        share, centre = hits / n, (hits + z**2 / 2) / (n + z**2)
        half = z / (n + z**2) * (hits * (1 - share) + z**2 / 4) ** 0.5
        assert _ends(got) == pytest.approx((share, centre - half, centre + half), abs=1e-9)
        truth = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert (got.low, got.high) == pytest.approx((truth.low, truth.high), abs=1e-9)
        assert got.seed is None


def test_clusters_that_agree_never_narrow_a_share():
    rows = proportion_interval([True, False] * 10)
    assert _ends(proportion_interval([True, False] * 10, np.repeat(range(10), 2))) == _ends(rows)
    one = proportion_interval([True, False] * 10, ["a"] * 20)
    assert one.high - one.low > 0.8


def test_a_ratio_and_its_interval_by_the_delta_method():
    rng = np.random.default_rng(0)
    under = rng.normal(2, 0.5, 500)
    over = 0.85 * under + rng.normal(0, 0.3, 500)
    got = ratio_interval(over, under)
    assert got.value == pytest.approx(over.mean() / under.mean())
    half = 1.96 * scipy.stats.sem(over - got.value * under) / under.mean()
    assert (got.low, got.high) == pytest.approx((got.value - half, got.value + half), abs=0.002)
    flipped = ratio_interval(-over, -under)
    assert _ends(flipped) == pytest.approx(_ends(got))
    assert _ends(ratio_interval(3 * under, under)) == pytest.approx((3, 3, 3))


def test_a_ratio_to_what_may_be_zero_is_not_bounded():
    got = ratio_interval(_numbers(50, shift=2), _numbers(50, seed=1))
    assert (got.low, got.high) == (-np.inf, np.inf)
    nothing = ratio_interval([1.0, 2.0], [0.0, 0.0])
    assert np.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-np.inf, np.inf)


def test_the_p_value_of_a_paired_difference_counts_signs():
    first, second = _numbers(9, shift=0.5), _numbers(9, seed=1)
    differences = first - second
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
    truth = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    got = paired_difference(first, second)
    assert got.p == pytest.approx(truth)
    assert got.value == pytest.approx(differences.mean())
    assert paired_difference(second, first).p == pytest.approx(truth)
    assert set(got.to_dict()) == {"value", "low", "high", "n", "clusters", "seed", "p"}


def test_closed_forms_of_the_p_value():
    assert paired_difference([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]).p == pytest.approx(2 / 2**5)
    assert paired_difference([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], ["a", "a", "b", "b", "b"]).p == pytest.approx(2 / 2**2)
    assert paired_difference([1, 2], [1, 2]).p == 1
    assert paired_difference([1], [5]).p == 1
    large = paired_difference(_numbers(300, shift=0.15), np.zeros(300))
    truth = scipy.stats.ttest_1samp(_numbers(300, shift=0.15), 0).pvalue
    assert 0.001 < truth < 0.2
    assert large.p == pytest.approx(truth, abs=0.01)


def test_a_test_without_effect_is_seldom_significant():
    values = [_clustered(1000 + seed, clusters=10) for seed in range(200)]
    clustered = np.mean([paired_difference(x, np.zeros(len(x)), names).p <= 0.05 for x, names in values])
    assert 0.01 <= clustered <= 0.1


def test_memory_bounds_do_not_change_numbers(monkeypatch):
    first, second = _numbers(90), _numbers(90, seed=1, shift=0.2)

    def all_of_them():
        return mean_interval(first), ratio_interval(first, second + 3), paired_difference(first, second)

    whole = all_of_them()
    monkeypatch.setattr(statistics, "_DRAWN", 20000)
    monkeypatch.setattr(statistics, "_DRAWN", 20000)
    assert all_of_them() == whole


def test_corrections_for_many_comparisons():
    p_values = [0.01, 0.04, 0.03, 0.005, 0.5]
    by_hand = [0.04, 0.09, 0.09, 0.025, 0.5]
    assert adjust_p_values(p_values) == pytest.approx(by_hand)
    truth = scipy.stats.false_discovery_control(p_values)
    assert adjust_p_values(p_values, "benjamini-hochberg") == pytest.approx(truth.tolist())
    assert adjust_p_values([]) == []
    assert adjust_p_values([0.02]) == [0.02]


def test_what_has_no_statistics(unchecked):
    with pytest.raises(InterpToolkitError, match="at least one row, got 0"):
        mean_interval([])
    with pytest.raises(InterpToolkitError, match="for each of the same rows, and at least one row, got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(InterpToolkitError, match="got 2 and 1, the last for clusters"):
        mean_interval([1, 2], clusters=["a"])
    with pytest.raises(InterpToolkitError, match="finite numbers, but row 1 holds nan; leave it out"):
        mean_interval([1, float("nan")])
    with pytest.raises(InterpToolkitError, match=r"true or false for each row, got 0\.5; see mean_interval"):
        proportion_interval([0.5, 1.0])
    with pytest.raises(InterpToolkitError, match="expected method holm or benjamini-hochberg, got 'sidak'"):
        adjust_p_values([0.5], "sidak")
    with pytest.raises(InterpToolkitError, match="p-values from 0 to 1, got nan"):
        adjust_p_values([0.5, float("nan")])
