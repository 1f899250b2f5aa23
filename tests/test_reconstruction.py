import json

import numpy as np
import pandas as pd
import pytest
import torch

from interp_toolkit import Adapter, ContractError, InterpToolkitError, Site, read_activations, self_explain
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import reconstruction, run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.reconstruction import reconstruction_summary, reconstruction_table
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.sites import SiteStack

TITLES = ["Rivers", "Poland", "Foxes", "Baseball", "Dogs"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[1, 2], ids=["one site", "two sites"])
def adapter(request, tiny, tiny_prompt):
    sites = request.param
    made = Adapter.create("low_rank", 32, sites=sites, rank=2, init_scale=3.0).requires_grad_(False)
    place = Site.after(2) if sites == 1 else SiteStack([1, 3])
    mean = torch.randn(32 * sites, generator=torch.Generator().manual_seed(2)) * 0.1
    made.contract = Contract.from_facts(model_facts(tiny()), place, tiny_prompt, mean, True)
    return made


def _cosine(one, other, sites):
    each = [torch.nn.functional.cosine_similarity(x, y, dim=0) for x, y in zip(one.chunk(sites), other.chunk(sites))]
    return torch.stack(each).mean().item()


def test_cosines_are_those_of_the_descriptions_own_vectors(tiny, adapter):
    model, contract, sites = tiny(), adapter.contract, adapter.config.sites
    vectors = contract.centre(topic_vectors(model, TITLES, contract.site))
    described = ["Foxes", "the history of Poland", "  ", "Foxes", "a game"]
    table = reconstruction_table(model, adapter, vectors, described, titles=TITLES)
    assert table.description.tolist() == described
    result = contract.centre(
        topic_vectors(model, ["Foxes", "the history of Poland", "-", "Foxes", "a game"], contract.site)
    )
    nothing = self_explain(vectors[:0], model=model, adapter=adapter, include_null=True)[0].description
    null = contract.centre(topic_vectors(model, [nothing or "-"], contract.site))[0]
    for i, row in table.iterrows():
        assert row.cosine == pytest.approx(_cosine(result[i], vectors[i], sites), abs=1e-5)
        assert row.shuffled == pytest.approx(_cosine(result[i - 2], vectors[i], sites), abs=1e-5)
        assert row.null == pytest.approx(_cosine(null, vectors[i], sites), abs=1e-5)
        nearer = [_cosine(result[i], other, sites) for other in vectors]
        assert row["rank"] == 1 + sum(x > nearer[i] + 1e-6 for x in nearer)
    assert table.title.to_numpy() == pytest.approx(np.ones(5), abs=1e-5)
    assert table["rank"].max() > 1


def test_the_title_itself_comes_all_the_way_back(tiny, adapter):
    contract = adapter.contract
    vectors = contract.centre(topic_vectors(tiny(), TITLES, contract.site))
    table = reconstruction_table(tiny(), adapter, vectors * 3, TITLES)
    assert table.cosine.to_numpy() == pytest.approx(np.ones(5), abs=1e-5)
    assert table["rank"].tolist() == [1] * 5
    assert (table.shuffled < table.cosine - 1e-3).all()
    assert "title" not in table
    assert "texts" not in table


def test_the_second_way_is_by_texts_that_name_the_description(tiny, adapter):
    contract, sites = adapter.contract, adapter.config.sites
    vectors = contract.centre(topic_vectors(tiny(), TITLES[:3], contract.site))
    texts = {"a fox": ["The fox runs.", "I saw a fox."], "rivers": ["The fox runs."], "unasked": ["x"]}
    table = reconstruction_table(tiny(), adapter, vectors, ["rivers", "none", "a fox"], texts=texts)

    def read(text):
        item = [read_activations(tiny(), text, site).vectors[0] for site in contract.site.sites]
        return torch.cat(item)

    fox = torch.stack([read(text) for text in texts["a fox"]]).mean(0) - contract.mean
    assert table.texts[2] == pytest.approx(_cosine(fox, vectors[2], sites), abs=1e-5)
    assert table.texts_shuffled[0] == pytest.approx(_cosine(fox, vectors[0], sites), abs=1e-5)
    one = read("The fox runs.") - contract.mean
    assert table.texts[0] == pytest.approx(_cosine(one, vectors[0], sites), abs=1e-5)
    assert np.isnan(table.texts[1])
    summary = reconstruction_summary(table).set_index("measure")
    assert summary.n["texts"] == 2
    assert summary.value["texts"] == pytest.approx(table.texts[[0, 2]].mean())
    nowhere = reconstruction_table(tiny(), adapter, vectors, TITLES[:3], texts={})
    assert nowhere.texts.isna().all()
    assert "texts" not in reconstruction_summary(nowhere).measure.tolist()


def test_the_summary_is_of_means_paired_by_vector():
    draw = np.random.default_rng(0)
    shuffled = draw.normal(size=300)
    columns = dict(cosine=shuffled + 0.1, rank=[1] * 30 + [7] * 270, shuffled=shuffled, null=draw.normal(size=300))
    table = pd.DataFrame(dict(vector=range(300), description="x") | columns)
    summary = reconstruction_summary(table, seed=3)
    assert list(summary.columns) == ["measure", "value", "low", "high", "n", "seed"]
    assert set(summary.n) == {300}
    assert set(summary.seed) == {3}
    row = summary.set_index("measure")
    for name in ("cosine", "shuffled", "null"):
        assert row.value[name] == pytest.approx(table[name].mean())
        half = 1.96 * table[name].std() / 300**0.5
        assert (row.low[name], row.high[name]) == pytest.approx(
            (row.value[name] - half, row.value[name] + half), abs=0.02
        )
    # Each is nearer by the same, so nothing is uncertain.
    assert row.loc["cosine - shuffled", ["value", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert row.value["cosine - null"] == pytest.approx(row.value["cosine"] - row.value["null"])
    assert row.value["recall@1"] == pytest.approx(0.1)
    assert row.value["recall@10"] == 1


def test_what_cannot_be_brought_back(tiny, tiny_prompt, random_vectors):
    adapter = Adapter.create("scale", 32)
    with pytest.raises(InterpToolkitError, match="the adapter has no contract"):
        reconstruction_table(tiny(), adapter, random_vectors(2), ["a", "b"])
    adapter.contract = Contract.from_facts(model_facts(tiny()), None, tiny_prompt, None, True)
    with pytest.raises(InterpToolkitError, match="whose contract names where its vectors were read"):
        reconstruction_table(tiny(), adapter, random_vectors(2), ["a", "b"])
    adapter.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, None, True)
    with pytest.raises(InterpToolkitError, match="at least two vectors, got 2 vectors, 3 descriptions and 1 titles"):
        reconstruction_table(tiny(), adapter, random_vectors(2), ["a", "b", "c"], titles=["a"])
    with pytest.raises(InterpToolkitError, match="at least two vectors, got 1 vectors, 1 descriptions"):
        reconstruction_table(tiny(), adapter, random_vectors(1), ["a"])
    with pytest.raises(ContractError):
        reconstruction_table(tiny("qwen2"), adapter, random_vectors(2), ["a", "b"])


@pytest.mark.slow
def test_what_a_score_tells_is_the_share_of_pairs_in_the_right_order():
    draw = np.random.default_rng(1)
    scores, right = draw.normal(size=60).round(1), draw.random(60) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]]
    result = reconstruction._auroc(scores, right)
    assert result["value"] == pytest.approx(np.mean(pairs))
    assert result["low"] < result["value"] < result["high"]
    perfect = reconstruction._auroc(right.astype(float), right)
    assert perfect["value"] == perfect["high"] == 1
    assert reconstruction._auroc(np.full(60, -np.inf), right)["value"] == 0.5


class _Letters:
    """Stands in for the embedder."""

    def __call__(self, texts):
        return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()

    cached = __call__


def test_a_run_is_of_the_greedy_descriptions_and_is_not_repeated(tiny, adapter, tmp_path, monkeypatch):
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    path = tmp_path / "data" / "topics" / "topics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    context = EvalContext(path, limit=6, model=tiny())
    context._embedder = _Letters()
    result = run_evaluation("reconstruction", context, adapter, tmp_path / "out.json")
    vectors = adapter.contract.centre(topic_vectors(tiny(), context.titles.held_out, adapter.contract.site))
    described = [row.description for row in self_explain(vectors, model=tiny(), adapter=adapter)]
    truth = reconstruction_summary(
        reconstruction_table(tiny(), adapter, vectors, described, titles=context.titles.held_out)
    )
    actual = pd.DataFrame(result["tables"]["round_trip"])
    assert actual.measure.tolist() == truth.measure.tolist()
    assert actual.value.to_numpy() == pytest.approx(truth.value.to_numpy())
    assert [(row["title"], row["description"]) for row in result["examples"]] == list(
        zip(context.titles.held_out, described)
    )
    monkeypatch.setattr(reconstruction, "reconstruction_table", None)
    assert run_evaluation("reconstruction", context, adapter, tmp_path / "out.json") == json.loads(json.dumps(result))
