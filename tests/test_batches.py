"""Which rows share a pass: all of them once, within bounds, at the least cost."""

from itertools import combinations

import numpy as np
import pytest
import torch

from interp_toolkit.models import backend_of
from interp_toolkit.models.batches import padded_batches, pass_size

COST = pass_size(torch.device("cpu")).cost


def _time(batches, lengths):
    return sum(max(max(lengths[i], 1) for i in batch) * len(batch) + COST for batch in batches)


def _least_time(lengths):
    """Over all ways to cut the rows, sorted by length, into batches."""
    rows = sorted(range(len(lengths)), key=lambda i: lengths[i])
    cuts = (cut for n in range(len(rows)) for cut in combinations(range(1, len(rows)), n))
    return min(_time(np.split(rows, cut), lengths) for cut in cuts)


@pytest.mark.parametrize("seed", range(8))
def test_rows_share_passes_in_the_way_that_takes_the_least_time(seed, tiny):
    drawn = np.random.default_rng(seed)
    lengths = drawn.choice([1, 2, 3, 5, 24, 60], size=9).tolist()
    batches = list(padded_batches(backend_of(tiny()), lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(9))
    assert _time(batches, lengths) == _least_time(lengths)


def test_a_few_long_rows_do_not_pad_the_others(tiny):
    lengths = [4] * 60 + [24] * 4
    batches = list(padded_batches(backend_of(tiny()), lengths))
    assert [sorted({lengths[i] for i in batch}) for batch in batches] == [[24], [4]]


def test_batches_stay_within_rows_and_tokens(tiny):
    backend = backend_of(tiny())
    lengths = [*np.random.default_rng(0).integers(0, 40, 300).tolist(), 200]
    for bounds in (dict(rows=16), dict(tokens=100), dict(rows=8, tokens=90)):
        batches = list(padded_batches(backend, lengths, **bounds))
        assert sorted(row for batch in batches for row in batch) == list(range(301))
        for batch in batches:
            assert len(batch) <= bounds.get("rows", 301)
            assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= bounds.get("tokens", 10**6)
        longest = [max(lengths[i] for i in batch) for batch in batches]
        assert longest == sorted(longest, reverse=True)
    assert list(padded_batches(backend, [])) == []
