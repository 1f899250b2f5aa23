"""Evidence in every dtype, and samples that do not depend on what else is described."""

from dataclasses import replace

import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Sampling, load_model, self_explain
from interp_toolkit.contract import Contract
from interp_toolkit.models import batches, model_facts
from interp_toolkit.runtime import PromptRun, evidence, generate
from interp_toolkit.sites import Site

DTYPES = {"float32": 1e-5, "bfloat16": 0.1, "float16": 0.02}


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def model(checkpoints, dtype):
    return load_model(checkpoints["llama"], dtype=dtype)


@pytest.fixture
def adapter(model, tiny_prompt):
    torch.manual_seed(0)
    adapter = Adapter.create("scalar_affine", d_model=32, init_scale=3.0)
    torch.nn.init.normal_(adapter.bias)
    adapter.contract = Contract.from_facts(model_facts(model), Site.after(2), tiny_prompt, torch.ones(32), True)
    return adapter.requires_grad_(False)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("samples", [1, 5])
def test_the_null_vector_has_none_in_any_dtype(model, adapter, random_vectors, samples, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = self_explain(
            random_vectors(7),
            model=model,
            adapter=adapter,
            include_null=True,
            sampling=Sampling(n=samples, max_new_tokens=9),
        ).to_df()
    finally:
        torch.set_num_threads(before)
    is_null = rows.source == "null vector"
    assert is_null.sum() == samples
    assert rows.evidence[is_null].abs().max() <= 1e-6
    assert rows.evidence[~is_null].abs().median() > 1e-3


def test_texts_judged_by_nothing_have_none_wherever_they_stand(model, adapter, random_vectors, monkeypatch):
    run = PromptRun(model, adapter.contract.soft_prompt)
    soft_tokens = adapter(random_vectors(9))
    texts = [row[0].token_ids for row in generate(run, soft_tokens, max_new_tokens=6)]
    mixed = torch.stack([adapter.null(), *soft_tokens[:3], adapter.null()])
    owners = [0, 1, 2, 3, 4, 4, 0, 1, 0]
    monkeypatch.setattr(batches, "_ON_CPU", replace(batches._ON_CPU, rows=4))
    of_null = evidence(run, adapter.null(), texts, mixed, owners)[1][[owner in (0, 4) for owner in owners]]
    assert of_null.abs().max() <= 1e-6


def test_equal_texts_of_one_vector_are_read_once(model, dtype, adapter, random_vectors, monkeypatch):
    run = PromptRun(model, adapter.contract.soft_prompt)
    soft_tokens = adapter(random_vectors(2))
    texts, owners = [(5, 9, 3), (5, 9, 3), (7, 2, 4), (), (5, 9, 3)], [0, 0, 0, 0, 1]
    passes = []
    hidden = run.backend.hidden
    monkeypatch.setattr(run.backend, "hidden", lambda ids, *a, **k: (passes.append(len(ids)), hidden(ids, *a, **k))[1])
    log_probs, evidences = evidence(run, adapter.null(), texts, soft_tokens, owners)
    # Three prompts, then three texts behind their vectors and two of them behind the null vector.
    assert passes[-1] == 5
    assert log_probs[0] == log_probs[1]
    assert evidences[0] == evidences[1]
    assert torch.isnan(log_probs).tolist() == torch.isnan(evidences).tolist() == [False, False, False, True, False]
    alone = [evidence(run, adapter.null(), [texts[i]], soft_tokens[[owners[i]]]) for i in (0, 2, 4)]
    assert log_probs[[0, 2, 4]].tolist() == pytest.approx([float(x) for x, _ in alone], abs=DTYPES[dtype])
    assert evidences[[0, 2, 4]].tolist() == pytest.approx([float(x) for _, x in alone], abs=DTYPES[dtype])


def test_generated_texts_carry_the_evidence_that_scoring_them_gives(model, dtype, adapter, random_vectors):
    run = PromptRun(model, adapter.contract.soft_prompt)
    soft_tokens = adapter(random_vectors(5))
    rows = generate(run, soft_tokens, null=adapter.null(), samples=3, temperature=1.0, max_new_tokens=8)
    texts = [text for row in rows for text in row]
    owners = [i for i, row in enumerate(rows) for _ in row]
    log_probs, evidences = evidence(run, adapter.null(), [text.token_ids for text in texts], soft_tokens, owners)
    assert [text.log_prob for text in texts] == pytest.approx(log_probs.tolist(), abs=DTYPES[dtype])
    assert [text.evidence for text in texts] == pytest.approx(evidences.tolist(), abs=DTYPES[dtype])
    decoded = [sum(text.log_probs) / len(text.log_probs) for text in texts]
    assert [text.log_prob for text in texts] == pytest.approx(decoded, abs=DTYPES[dtype])


def test_a_count_that_does_not_fit_is_refused(tiny, tiny_prompt, random_vectors):
    run = PromptRun(tiny(), tiny_prompt)
    with pytest.raises(InterpToolkitError, match="expected a soft token for each of 3 texts, got 2 soft tokens"):
        evidence(run, torch.zeros(32), [(5,)] * 3, random_vectors(2))
    with pytest.raises(InterpToolkitError, match="expected a row id for each of 2 soft tokens, got 1"):
        generate(run, random_vectors(2), row_ids=[b"one"])


class TestSamples:
    """A vector's samples are drawn by what it is, the seed and their number."""

    sampling = Sampling(n=6, seed=0, max_new_tokens=8, temperature=1.0)

    @pytest.fixture
    def model(self, tiny):
        return tiny()

    def test_a_vector_alone_and_among_others(self, model, adapter, random_vectors):
        vectors = random_vectors(40)
        together = self_explain(vectors, model=model, adapter=adapter, sampling=self.sampling).to_df()
        for i in (0, 1, 17, 39):
            alone = self_explain(vectors[i], model=model, adapter=adapter, sampling=self.sampling).to_df()
            assert alone.description.tolist() == together.description[together.source == f"vector {i}"].tolist()

    def test_a_prompt_alone_and_among_others(self, model, adapter):
        prompts = ["Tell me about rivers.", "Tell me about the history of Poland.", "What is that?", "Baseball."]
        together = self_explain(prompts, model=model, adapter=adapter, sampling=self.sampling).to_df()
        for prompt in prompts:
            alone = self_explain(prompt, model=model, adapter=adapter, sampling=self.sampling).to_df()
            assert alone.description.tolist() == together.description[together.source == prompt].tolist()

    def test_fewer_samples_and_shorter_ones_begin_alike(self, model, adapter, random_vectors):
        vectors = random_vectors(3)
        many = self_explain(vectors, model=model, adapter=adapter, sampling=self.sampling).to_df()
        few = self_explain(vectors, model=model, adapter=adapter, sampling=replace(self.sampling, n=2)).to_df()
        assert few.description.tolist() == many.description[many["sample"] < 2].tolist()
        run = PromptRun(model, adapter.contract.soft_prompt)
        settings = dict(temperature=1.0, samples=4, until="length")
        long, short = (generate(run, adapter(vectors), max_new_tokens=n, **settings) for n in (9, 4))
        pairs = [(x, y) for one, other in zip(long, short) for x, y in zip(one, other)]
        assert all(x.token_ids[:4] == y.token_ids for x, y in pairs)

    def test_another_seed_or_another_vector_draws_otherwise(self, model, adapter, random_vectors):
        vectors = random_vectors(2)
        one, other = (
            self_explain(vectors, model=model, adapter=adapter, sampling=replace(self.sampling, seed=seed)).to_df()
            for seed in (0, 1)
        )
        assert one.description.tolist() != other.description.tolist()
        assert one.description[:6].tolist() != one.description[6:].tolist()
