"""Adapters for a range of places: each with its own mean and threshold, sites of a stack read alone among them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_toolkit import (
    Adapter,
    ContractError,
    FileFormatError,
    InterpToolkitError,
    Sampling,
    Site,
    SiteStack,
    read_activations,
    self_explain,
)
from interp_toolkit.bridges import describe_grid
from interp_toolkit.contract import Contract, EvidenceThreshold, ReadingPlace
from interp_toolkit.json_lines import read_json
from interp_toolkit.models import model_facts

PROMPTS = ["Tell me about rivers.", "foxes?"]
STACK = SiteStack([0, 2])


def _mean(site, width=32):
    return torch.linspace(-1, 1, width) * (1 + site)


def _threshold(value):
    return EvidenceThreshold(value, 0.05, 20, 0)


@pytest.fixture
def of_stack(tiny, tiny_prompt):
    """An adapter for a stack and for each of its sites, and for the layer behind."""
    adapter = Adapter.create("low_rank", 32, sites=2, rank=3, init_scale=3.0, low_rank_factor=1.0)
    adapter.requires_grad_(False)
    mean = torch.cat([_mean(0), _mean(2)])
    contract = Contract.from_facts(model_facts(tiny()), STACK, tiny_prompt, mean, True)
    more = tuple(ReadingPlace(Site.after(i), _mean(i), _threshold(float(i))) for i in (0, 2, 3))
    adapter.contract = replace(contract, threshold=_threshold(-99.0), more=more)
    return adapter


@pytest.fixture
def pooled(tiny, tiny_prompt):
    """An adapter of one site's width for three layers."""
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, _mean(2), True)
    more = (ReadingPlace(Site.after(1), _mean(1), _threshold(99.0)), ReadingPlace(Site.after(3), None))
    adapter.contract = replace(contract, threshold=_threshold(-99.0), more=more)
    return adapter


def _explain(adapter, model, inputs, **settings):
    return self_explain(inputs, model=model, adapter=adapter, **settings)


def test_each_place_has_its_own_mean_and_threshold(tiny, pooled):
    rows = _explain(pooled, tiny(), PROMPTS, sites=[1, 2, 3])
    assert [row.above_threshold for row in rows] == [False, True, None] * 2
    read = read_activations(tiny(), PROMPTS, [1, 2, 3])
    for layer, mean in ((1, _mean(1)), (2, _mean(2)), (3, 0)):
        here = [row for row in rows if row.site == str(Site.after(layer))]
        alone = self_explain(read.at(layer)[:, 0] - mean, model=tiny(), adapter=pooled)
        assert [row.description for row in here] == [row.description for row in alone]
        assert [row.evidence for row in here] == pytest.approx([row.evidence for row in alone], abs=1e-4)
    assert rows.equals(_explain(pooled, tiny(), read)) if hasattr(rows, "equals") else True
    assert [row.evidence for row in _explain(pooled, tiny(), read)] == pytest.approx([row.evidence for row in rows])
    with pytest.raises(ContractError, match=r"trained on vectors from blocks.2.*, these are from blocks.0"):
        _explain(pooled, tiny(), PROMPTS, sites=[0, 1])


def test_a_site_of_a_stack_fills_its_part(tiny, of_stack):
    model = tiny()
    read = read_activations(model, PROMPTS, [0, 2, 3])
    rows = _explain(of_stack, model, PROMPTS, sites=[0, 2, 3])
    for layer, part in ((0, 0), (2, 1), (3, 1)):
        values = torch.zeros(2, 64)
        values[:, part * 32 : (part + 1) * 32] = read.at(layer)[:, 0] - _mean(layer)
        here = [row for row in rows if row.site == str(Site.after(layer))]
        alone = _explain(of_stack, model, values)
        assert [row.evidence for row in here] == pytest.approx([row.evidence for row in alone], abs=1e-4)
        assert [row.above_threshold for row in here] == [row.evidence >= layer for row in here]
        of_site = _explain(of_stack, model, read.at(layer)[:, 0], sites=layer, centered=False)
        assert [row.evidence for row in of_site] == pytest.approx([row.evidence for row in here], abs=1e-4)
        assert {row.site for row in of_site} == {str(Site.after(layer))}
    # By default the stack, and vectors of one site are taken to be of the deepest.
    assert {row.site for row in _explain(of_stack, model, PROMPTS)} == {str(STACK)}
    vectors = (read.at(3)[:, 0] - _mean(3)).numpy().astype(np.float64)
    deepest = _explain(of_stack, model, vectors)
    assert [row.evidence for row in deepest] == pytest.approx([row.evidence for row in rows][2::3], abs=1e-4)
    with pytest.raises(ContractError, match="read what it was trained on, or use an adapter for these"):
        _explain(of_stack, model, PROMPTS, sites=1)
    with pytest.raises(InterpToolkitError, match="expected one site of all vectors, got 2"):
        _explain(of_stack, model, vectors, sites=[0, 2])
    with pytest.raises(InterpToolkitError, match=r"shape \(n, 32\) or \(32,\), got \(2, 64\)"):
        _explain(of_stack, model, torch.ones(2, 64), sites=0)


def test_grids_take_the_means_of_the_range(tiny, of_stack, pooled):
    for adapter, sites in ((of_stack, [0, 3]), (pooled, [1, 2])):
        grid = describe_grid(tiny(), PROMPTS, adapter, sites=sites, positions=1, samples=1, chat=True)
        rows = []
        for prompt in PROMPTS:
            end = grid.cells[grid.cells.prompt == PROMPTS.index(prompt)].position.iloc[0]
            settings = dict(sites=sites, positions=[int(end)], sampling=Sampling(max_new_tokens=16))
            rows += [row.evidence for row in _explain(adapter, tiny(), prompt, **settings)]
        assert grid.cells.evidence.tolist() == pytest.approx(rows, abs=1e-4)


@pytest.mark.parametrize("kind", ["of_stack", "pooled"])
def test_files_hold_the_range(tmp_path, request, kind):
    adapter = request.getfixturevalue(kind)
    adapter.save_pretrained(tmp_path / "a")
    loaded = Adapter.from_pretrained(tmp_path / "a").contract
    for place, expected in zip(loaded.reading_places, adapter.contract.reading_places, strict=True):
        assert (place.site, place.threshold) == (expected.site, expected.threshold)
        assert (place.mean is None) == (expected.mean is None)
        assert place.mean is None or torch.equal(place.mean, expected.mean)
    data = read_json(tmp_path / "a" / "adapter_config.json", "a config")["contract"]
    # The means of a stack's sites may be parts of its own.
    parts = adapter.contract.mean.split(32)
    more = tuple(ReadingPlace(Site.after(i), part) for i, part in enumerate(parts))
    adapter.contract = replace(adapter.contract, more=more)
    adapter.save_pretrained(tmp_path / "b")
    assert torch.equal(Adapter.from_pretrained(tmp_path / "b").contract.more[-1].mean, parts[-1])
    for more, means, message in (
        (data["more"], [], "further places, and there are means of 0"),
        (data["more"], [None] * len(data["more"]), "says centring 'mean' at .*, and the mean there is missing"),
        (data["more"], [torch.ones(3)] * len(data["more"]), r"mean there has shape \(3,\)"),
    ):
        with pytest.raises(FileFormatError, match=message):
            Contract.from_dict(data | {"more": more}, adapter.contract.mean, means)
