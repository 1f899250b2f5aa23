"""The history of speeds: what counts as slower, and when nothing is claimed."""

import pytest

from benchmarks.speed.history import add_to_history, ratios_of, read_history, slower, with_new
from benchmarks.speed.machine import machine_kind, noise, require_quiet
from interp_toolkit import InterpToolkitError

HERE, ELSEWHERE = "one processor, 2 threads", "another processor, 2 threads"


def _run(kind, **ratios):
    return dict(kind=kind, date="2026-01-01", versions={}, noise=0.05, ratios=ratios)


def test_slower_is_what_lies_below_the_whole_spread_of_the_last_run(tmp_path):
    path = tmp_path / "results" / "history.jsonl"
    assert read_history(path) == []
    add_to_history(path, _run(HERE, training=[9.0, 8.5, 9.5]))
    add_to_history(path, _run(HERE, training=[3.0, 2.8, 3.2], describing=[1.6, 1.5, 1.7]))
    add_to_history(path, _run(ELSEWHERE, training=[6.0, 5.0, 7.0]))
    history = read_history(path)
    assert [row["kind"] for row in history] == [HERE, HERE, ELSEWHERE]
    # The last of the same kind is the measure, not the best; spreads that overlap are no difference.
    assert slower(history, HERE, dict(training=[2.7, 2.6, 2.8])) == []
    assert slower(history, HERE, dict(training=[2.5, 2.4, 2.7], describing=[2.0, 1.9, 2.1])) == [
        "training: 2.50 (at most 2.70), last 3.00 (at least 2.80)"
    ]
    assert slower(history, "a third", dict(training=[1.0, 1.0, 1.0])) == []
    assert slower(history, HERE, dict(storing=[1.0, 1.0, 1.0])) == []


def test_a_run_that_left_a_comparison_out_hides_no_earlier_one():
    history = [_run(HERE, training=[3.0, 2.8, 3.2]), _run(HERE, describing=[1.6, 1.5, 1.7])]
    assert len(slower(history, HERE, dict(training=[2.0, 1.9, 2.1]))) == 1


def test_a_new_run_replaces_the_rows_of_its_machine_alone():
    old = [dict(comparison="training", ratio=3, machine=HERE), dict(comparison="describing", ratio=2, machine=HERE)]
    old.append(dict(comparison="training", ratio=6, machine=ELSEWHERE))
    new = [dict(comparison="training", ratio=4)]
    assert with_new(old, new, HERE, part=False) == [old[2], dict(new[0], machine=HERE)]
    assert with_new(old, new, HERE, part=True) == [old[1], old[2], dict(new[0], machine=HERE)]
    waited = [
        dict(what="load_model", seconds=1.0, machine=HERE),
        dict(what="load_model", seconds=2.0, machine=ELSEWHERE),
    ]
    assert with_new(waited, [dict(what="load_model", seconds=3.0)], HERE, part=True) == [
        waited[1],
        dict(what="load_model", seconds=3.0, machine=HERE),
    ]
    assert with_new([], [], HERE, part=True) == []


def test_comparisons_that_could_not_be_made_have_no_ratio():
    made = dict(ratio=2.0, lowest=1.5, highest=2.5, repeats=3)
    assert ratios_of({"a": made, "b": dict(ratio=None, note="no bfloat16")}) == {"a": [2.0, 1.5, 2.5]}


def test_a_busy_machine_is_refused():
    require_quiet(0.2)
    with pytest.raises(
        InterpToolkitError, match="expected a quiet machine.* by at most 25%, got 180%; stop other work"
    ):
        require_quiet(1.8)


def test_the_machine_is_named_with_its_threads():
    assert machine_kind(3).endswith("3 threads")
    assert machine_kind(3) == machine_kind(3) != machine_kind(2)
    assert noise() >= 0
