"""Reading back: descriptions in a prompt, at the place of the vectors that they describe."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_toolkit import Adapter, ContractError, InterpToolkitError, Site, SiteStack
from interp_toolkit.confidence import READ_BACK
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.read_back import read_back
from interp_toolkit.reading_place import ReadingPlace

TEXTS = ["Baseball", "the red fox"]


def _adapter(model, prompt, site, **more):
    """One that reads a place, with a mean, and two soft tokens."""
    torch.manual_seed(0)
    adapter = Adapter.create("low_rank", 32, sites=len(site.sites), tokens=2, rank=4, init_scale=30.0).requires_grad_(
        False
    )
    adapter.bias.copy_(torch.randn(64) / 100)
    contract = Contract.from_facts(model_facts(model), site, prompt, topic_vectors(model, ["Poland"], site)[0], True)
    adapter.contract = replace(contract, **more)
    return adapter


@pytest.fixture
def model(tiny):
    return tiny()


def test_a_vector_of_the_prompt_itself_comes_back(model, tiny_prompt):
    adapter = _adapter(model, tiny_prompt, Site.after(1))
    vectors = adapter.contract.centre(topic_vectors(model, TEXTS, Site.after(1)))
    cosines = read_back(model, adapter, vectors, TEXTS)
    assert set(cosines) == set(READ_BACK)
    for name in ("cosine_last", "soft_cosine_last"):
        assert np.allclose(cosines[name], 1.0, atol=1e-5)
        assert (read_back(model, adapter, vectors, TEXTS[::-1])[name] < 0.999).all()
    assert (cosines["cosine_title"] < 0.999).all()


def test_cosines_are_those_of_the_vectors_and_of_their_soft_tokens(model, tiny_prompt):
    adapter = _adapter(model, tiny_prompt, SiteStack([0, 1]))
    again = adapter.contract.centre(topic_vectors(model, TEXTS, SiteStack([0, 1])))
    vectors = torch.randn(2, 64)
    cosines = read_back(model, adapter, vectors, TEXTS)
    by_site = torch.cosine_similarity(vectors.view(2, 2, 32), again.view(2, 2, 32), dim=-1).mean(1)
    assert np.allclose(cosines["cosine_last"], by_site, atol=1e-5)
    soft = torch.cosine_similarity(adapter(vectors), adapter(again), dim=-1).mean(1)
    assert np.allclose(cosines["soft_cosine_last"], soft, atol=1e-5)


def test_a_site_alone_is_compared_at_that_site_less_its_mean(model, tiny_prompt):
    mean = torch.linspace(1, 2, 32)
    adapter = _adapter(model, tiny_prompt, SiteStack([0, 1]), more=(ReadingPlace(Site.after(1), mean),))
    again = topic_vectors(model, TEXTS, Site.after(1)) - mean
    cosines = read_back(model, adapter, adapter.contract.filled(again, Site.after(1)), TEXTS, Site.after(1))
    assert np.allclose(cosines["cosine_last"], 1.0, atol=1e-5)
    assert np.allclose(cosines["soft_cosine_last"], 1.0, atol=1e-5)


def test_equal_descriptions_get_equal_cosines_and_an_empty_one_none(model, tiny_prompt):
    adapter = _adapter(model, tiny_prompt, Site.after(1))
    vectors = torch.randn(1, 32).expand(4, -1)
    cosines = read_back(model, adapter, vectors, ["Baseball", " Baseball ", "", "bees {title} {0}"])
    for values in cosines.values():
        assert values[0] == values[1]
        assert np.isnan(values).tolist() == [False, False, True, False]
    assert all(np.isnan(x).all() for x in read_back(model, adapter, vectors[:2], ["", " "]).values())
    assert all(len(x) == 0 for x in read_back(model, adapter, vectors[:0], []).values())


def test_what_cannot_be_compared_is_refused(model, tiny_prompt):
    adapter = _adapter(model, tiny_prompt, Site.after(1))
    with pytest.raises(InterpToolkitError, match="one description for each vector of width 32, got 1 descriptions for"):
        read_back(model, adapter, torch.randn(2, 32), ["one"])
    with pytest.raises(InterpToolkitError, match="of width 32, got 2 descriptions for vectors of shape"):
        read_back(model, adapter, torch.randn(2, 31), ["one", "two"])
    with pytest.raises(ContractError, match=r"trained on vectors from blocks\.1.*these are from blocks\.0"):
        read_back(model, adapter, torch.randn(1, 32), ["one"], 0)
    with pytest.raises(InterpToolkitError, match="12018 tokens long, and the model's context is 256 tokens"):
        read_back(model, adapter, torch.randn(1, 32), ["word " * 3000])
