import json

import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Site
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import mixtures, run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.mixtures import mix, mixture_table, named_within, project_out
from interp_toolkit.models import model_facts

LABELS = ["Bees", "Poland", "Opera", "Rivers", "Foxes"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


def _embed_letters(texts):
    return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()


def test_a_mixture_is_of_directions_at_each_site_alone(random_vectors):
    first, second = random_vectors(3, 8, seed=1) * 50, random_vectors(3, 8, seed=2)
    mixed = mix(first, second, 0.25, sites=2)
    for site in (slice(0, 4), slice(4, 8)):
        for row in range(3):
            x, y = first[row, site], second[row, site]
            assert torch.allclose(mixed[row, site], 0.75 * x / x.norm() + 0.25 * y / y.norm(), atol=1e-6)
    assert torch.allclose(mix(first, second, 1.0), second / second.norm(dim=1, keepdim=True))
    with pytest.raises(InterpToolkitError, match="from 0 to 1, got 1.5"):
        mix(first, second, 1.5)


def test_what_is_left_has_nothing_of_the_first_and_one_direction_whatever_the_share(random_vectors):
    first, second = random_vectors(4, 8, seed=1), random_vectors(4, 8, seed=2)
    left = [project_out(mix(first, second, share, 2), first, 2) for share in (0.1, 0.5, 1.0)]
    for actual in left:
        along = (actual.view(4, 2, 4) * first.view(4, 2, 4)).sum(-1)
        assert along.abs().max() < 1e-5
    each = [torch.nn.functional.normalize(actual.view(4, 2, 4), dim=-1) for actual in left]
    assert torch.allclose(each[0], each[2], atol=1e-4)
    assert torch.allclose(each[1], each[2], atol=1e-4)
    # What was along the first is all that went.
    gone = (second - project_out(second, first)) @ first.T
    assert torch.allclose(gone.diagonal(), (second * first).sum(1), atol=1e-5)


def _tell(vectors, samples):
    """The nearest labels of orthogonal vectors, as many as samples."""
    result = vectors.topk(samples, dim=1)
    return [
        [LABELS[i] if x > 1e-6 else "nothing" for i, x in zip(*row)]
        for row in zip(result.indices.tolist(), result.values.tolist())
    ]


def _names(descriptions, labels):
    return [label in texts for texts, label in zip(descriptions, labels)]


def test_what_is_named_where_the_stronger_half_speaks_first():
    adapter = Adapter.create("scale", 5)
    table = mixture_table(adapter, torch.eye(5) * 7, LABELS, _tell, _names, shares=(0.1, 0.6), samples=(1, 2))
    assert len(table) == (3 + 1) * 2 * 3
    assert list(table.columns) == ["vector", "share", "what", "samples", "value", "low", "high", "n"]
    assert set(table.n) == {5}
    result = table.set_index(["vector", "share", "samples", "what"]).value.to_dict()
    expected = {("mixture", 0.0, 1): (1, 0), ("mixture", 0.0, 2): (1, 0), ("mixture", 0.1, 1): (1, 0)}
    expected |= {("mixture", 0.1, 2): (1, 1), ("mixture", 0.6, 1): (0, 1), ("mixture", 0.6, 2): (1, 1)}
    expected |= {("first taken out", 1.0, 1): (0, 1), ("first taken out", 1.0, 2): (0, 1)}
    for where, (first, second) in expected.items():
        assert (result[(*where, "first")], result[(*where, "second")], result[(*where, "control")]) == (
            first,
            second,
            0,
        )


def test_the_interval_is_wilsons():
    adapter = Adapter.create("scale", 5)
    named = lambda descriptions, labels: [True, True, False, False, False]  # noqa: E731
    row = mixture_table(adapter, torch.eye(5), LABELS, _tell, named, samples=(1,)).iloc[0]
    share, z, n = 0.4, 1.959964, 5
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    assert (row.value, row.low, row.high) == pytest.approx((0.4, middle - half, middle + half), abs=1e-6)


def test_what_cannot_be_mixed(random_vectors):
    adapter = Adapter.create("scale", 5)
    with pytest.raises(InterpToolkitError, match="got 5 vectors and 5 labels, 4 of them different"):
        mixture_table(adapter, torch.eye(5), ["Bees", *LABELS[:4]], _tell, _names)
    with pytest.raises(InterpToolkitError, match="at least three vectors .* got 2 vectors and 2 labels"):
        mixture_table(adapter, torch.eye(5)[:2], LABELS[:2], _tell, _names)
    as_they_are = Adapter.create("scale", 5, normalize=False)
    with pytest.raises(InterpToolkitError, match="an adapter that normalises"):
        mixture_table(as_they_are, torch.eye(5), LABELS, _tell, _names)


def test_named_within_looks_at_every_sample():
    entries = ["Bees", "Bee", "Opera", "Poland"]
    result = [["Opera", "Bees"], ["Poland", "Poland"], ["Bee", "Bee"]]
    wanted = ["Bees", "Bees", "Bees"]
    first = named_within(1, _embed_letters, _embed_letters(entries), entries)
    second = named_within(2, _embed_letters, _embed_letters(entries), entries)
    assert first(result, wanted) == [True, False, False]
    assert second(result, wanted) == [True, False, True]
    with pytest.raises(InterpToolkitError, match="the label 'Foxes' is no entry of the index"):
        first([["Bees"]], ["Foxes"])


class _Letters:
    """Stands in for the embedder."""

    def __call__(self, texts):
        return _embed_letters(texts)

    cached = __call__


@pytest.mark.slow
def test_a_run_tells_all_cells_and_is_not_repeated(tiny, tiny_prompt, tmp_path, monkeypatch):
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    path = tmp_path / "data" / "topics" / "topics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    context = EvalContext(path, limit=4, model=tiny())
    context._embedder = _Letters()
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    adapter.contract = Contract.from_facts(
        model_facts(tiny()), Site.after(2), tiny_prompt, torch.full((32,), 0.1), True
    )
    result = run_evaluation("mixtures", context, adapter, tmp_path / "out.json")
    table = result["tables"]["mixtures"]
    assert len(table) == 2 * (4 + 1) * 2 * 3
    within = {k: [row["value"] for row in table if row["named"] == f"within {k}"] for k in (1, 10)}
    assert all(one <= ten for one, ten in zip(within[1], within[10]))
    assert result["failed"]["count"] == 0
    assert [row["second"] for row in result["examples"]] == context.titles.held_out[1:]
    monkeypatch.setattr(mixtures, "mixture_table", None)
    assert run_evaluation("mixtures", context, adapter, tmp_path / "out.json") == json.loads(json.dumps(result))
