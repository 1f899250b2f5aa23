"""The trained way back: its fit against numpy, its files, its scores, and what it explains on the real model."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Letters
from safetensors.torch import load_file, save_file

from interp_toolkit import Adapter, FileFormatError, InterpToolkitError, Site, SiteStack, read_activations
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import reconstruction, run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.trained_reconstruction import fve_table, sample_scores
from interp_toolkit.json_lines import read_json
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.reconstruct import (
    fit_way_back,
    reconstruct,
    reconstruction_scores,
    site_cosine,
    text_features,
    unit_by_site,
)
from interp_toolkit.regression import Moments, low_rank_factors, penalized_covariance, ridge_fit
from interp_toolkit.way_back import parse_way_back

TEXTS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over", "a quick game", "Tell me"]
TEXTS += [f"{text} and {other}" for text in TEXTS[:5] for other in TEXTS[5:]]
PLACE = SiteStack([1, 3])
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def way_back(tiny, random_vectors):
    return fit_way_back(tiny(), TEXTS, random_vectors(len(TEXTS), 64), PLACE, rank=5)


@pytest.fixture
def adapter(tiny, tiny_prompt, way_back):
    adapter = Adapter.create("low_rank", 32, sites=2, rank=2, init_scale=3.0).requires_grad_(False)
    mean = torch.linspace(-0.1, 0.1, 64)
    contract = Contract.from_facts(model_facts(tiny()), SiteStack([1, 2]), tiny_prompt, mean, True)
    adapter.contract = replace(contract, way_back=way_back)
    return adapter


def _data(random_vectors, n=60):
    x = random_vectors(n, 12, seed=1) + 3
    return x, (x @ random_vectors(12, 7, seed=2) + random_vectors(n, 7, seed=3)).float()


def _least_squares(x, y, penalty):
    """Ridge regression as the least squares of data with rows for the penalty, [inputs, outputs], by numpy."""
    x, y = (z.double().numpy() - z.double().numpy().mean(0) for z in (x, y))
    weight = penalty * x.var(0).mean() * len(x)
    rows = np.concatenate([x, np.sqrt(weight) * np.eye(x.shape[1])])
    return rows, np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))])


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_closed_form_is_the_least_squares_of_numpy(random_vectors, penalty):
    x, y = _data(random_vectors)
    moments = Moments(12, 7)
    for block in (slice(0, 25), slice(25, 60)):
        moments.add(x[block], y[block])
    rows, targets = _least_squares(x, y, penalty)
    matrix = np.linalg.lstsq(rows, targets, rcond=None)[0]
    fit = ridge_fit(moments, penalty)
    assert np.allclose(fit.numpy(), matrix, atol=1e-9)
    # Of low rank: the best approximation of the fitted rows, by their singular values.
    spread = penalized_covariance(moments, penalty)
    for rank in (1, 3, 7):
        left, right = low_rank_factors(fit, spread, rank)
        assert left.shape == (12, rank)
        u, s, v = np.linalg.svd(rows @ matrix, full_matrices=False)
        nearest = (u[:, :rank] * s[:rank]) @ v[:rank]
        assert np.allclose(rows @ (left @ right.T).numpy(), nearest, atol=1e-8)
    assert np.allclose((left @ right.T).numpy(), matrix, atol=1e-9)  # of full rank


def test_features_are_the_last_state_and_the_mean_of_the_texts_tokens(tiny):
    model = tiny()
    features = text_features(model, ["a fox", " rivers ", "a fox"], PLACE, "What is {text}, then?")
    assert features.shape == (3, 128)
    assert torch.equal(features[0], features[2])
    read = read_activations(model, "What is a fox, then?", 1, "all", chat=False).table.token.tolist()
    ends = [len("".join(read[1 : i + 1])) for i in range(len(read))]  # of each token, in letters
    inside = slice(ends.index(len("What is")) + 1, ends.index(len("What is a fox")) + 1)
    expected = []
    for site in PLACE.sites:
        states = read_activations(model, "What is a fox, then?", site, "all", chat=False).vectors
        expected += [states[-1], states[inside].mean(0)]
    expected = torch.cat([x / x.norm() for x in expected])
    assert torch.allclose(features[0], expected, atol=1e-5)


def test_the_fit_is_that_of_its_features(tiny, random_vectors):
    vectors = random_vectors(len(TEXTS), 64)
    fitted = fit_way_back(tiny(), TEXTS, vectors, PLACE, rank=64, penalty=0.3, wording="A {text}.")
    assert (fitted.rank, fitted.n, fitted.penalty, fitted.wording) == (64, len(TEXTS), 0.3, "A {text}.")
    x = text_features(tiny(), TEXTS, PLACE, "A {text}.")
    y = torch.cat([part / part.norm(dim=1, keepdim=True) for part in vectors.chunk(2, dim=1)], dim=1)
    matrix = np.linalg.lstsq(*_least_squares(x, y, 0.3), rcond=None)[0]
    predicted = (x - x.mean(0)).double().numpy() @ matrix + y.double().mean(0).numpy()
    assert np.allclose(reconstruct(tiny(), fitted, TEXTS, normalize=False).numpy(), predicted, atol=1e-5)
    directions = reconstruct(tiny(), fitted, [*TEXTS, " "])
    assert torch.allclose(directions.unflatten(1, (2, 32)).norm(dim=-1), torch.ones(len(TEXTS) + 1, 2), atol=1e-5)
    assert torch.allclose(directions[:-1], unit_by_site(torch.tensor(predicted), 2), atol=1e-4)
    assert torch.allclose(directions[-1], unit_by_site(fitted.vector_mean[None], 2)[0])  # of an empty text
    assert reconstruct(tiny(), fitted, []).shape == (0, 64)


def test_the_penalty_is_chosen_on_held_out_texts(tiny, random_vectors):
    # Of noise the most shrunken explains most; of vectors that are a map of the features the least shrunken.
    noise = random_vectors(len(TEXTS), 64)
    x = text_features(tiny(), TEXTS, PLACE)
    mapped = (x - x.mean(0)) @ random_vectors(128, 64, seed=4)
    assert fit_way_back(tiny(), TEXTS, noise, PLACE, penalty=(1e-6, 1e3)).penalty == 1e3
    assert fit_way_back(tiny(), TEXTS, mapped, PLACE, penalty=(1e-4, 1e3)).penalty == 1e-4
    assert fit_way_back(tiny(), TEXTS, noise, rank=3).site == SiteStack([1, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(texts=TEXTS[:-1]), r"got 34 texts for vectors of shape \(35, 64\)"),
        (dict(vectors=torch.ones(35, 40)), r"of width 32 for each site, got 35 texts for vectors of shape \(35, 40\)"),
        (dict(vectors=torch.eye(35, 64)), "other than zero at each site, and vector 0 is not"),
        (dict(vectors=torch.full((35, 64), torch.nan)), "finite vectors"),
        (dict(rank=65), "a rank from 1 to 64, got 65"),
        (dict(rank=0), "a rank from 1 to 64, got 0"),
        (dict(penalty=0.0), "a positive penalty, or several, got 0.0"),
        (dict(penalty=[]), "a positive penalty, or several"),
        (dict(texts=["same"] * 35), "at least 10 different texts to fit to, got 1"),
        (dict(texts=["same"] * 35, penalty=1.0), "at least 2 different texts to fit to, got 1"),
        (dict(wording="no place"), "a wording with {text} once, got 'no place'"),
        (dict(texts=[*TEXTS[:-1], " "]), "text 34 is empty"),
    ],
)
def test_what_cannot_be_fitted(tiny, random_vectors, change, message):
    settings = dict(texts=TEXTS, vectors=random_vectors(len(TEXTS), 64), site=PLACE) | change
    with pytest.raises(InterpToolkitError, match=message):
        fit_way_back(tiny(), **settings)
    with pytest.raises(InterpToolkitError, match="at least one text, got none"):
        text_features(tiny(), [], PLACE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_files_hold_it(tmp_path, tiny, adapter, dtype):
    way_back = adapter.contract.way_back
    adapter.save_pretrained(tmp_path / "a", dtype)
    loaded = Adapter.from_pretrained(tmp_path / "a").contract.way_back
    assert loaded.to_dict() == way_back.to_dict()
    assert loaded.site == PLACE
    stored = {name: value for name, value in load_file(tmp_path / "a" / WEIGHTS).items() if "way_back" in name}
    steps = {"contract.way_back.U.step", "contract.way_back.V.step"} if dtype == torch.int8 else set()
    assert set(stored) == {f"contract.way_back.{name}" for name in way_back.tensors()} | steps
    for name, value in way_back.tensors().items():
        read, raw = loaded.tensors()[name], stored[f"contract.way_back.{name}"]
        if dtype != torch.int8 or value.ndim == 1:
            assert torch.equal(read, value)
            continue
        assert raw.dtype == torch.int8
        assert torch.equal(read, raw.float() * stored[f"contract.way_back.{name}.step"])
        assert (read - value).abs().max() <= value.abs().max() / 127
    if dtype != torch.int8:
        assert loaded.digest == way_back.digest
        assert torch.equal(reconstruct(tiny(), loaded, TEXTS), reconstruct(tiny(), way_back, TEXTS))
    else:
        cosine = site_cosine(reconstruct(tiny(), loaded, TEXTS), reconstruct(tiny(), way_back, TEXTS), 2)
        assert cosine.min() > 0.99


def test_adapters_without_one_are_written_and_read_as_ever(tmp_path, adapter):
    adapter.contract = replace(adapter.contract, way_back=None)
    adapter.save_pretrained(tmp_path / "a")
    assert "way_back" not in (tmp_path / "a" / CONFIG).read_text()
    assert not [name for name in load_file(tmp_path / "a" / WEIGHTS) if "way_back" in name]
    loaded = Adapter.from_pretrained(tmp_path / "a")
    assert loaded.contract.way_back is None
    loaded.save_pretrained(tmp_path / "b")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def _damaged(folder, change_tensors=lambda tensors: None, change_contract=lambda contract: None):
    """The folder with changed files, without the digests that would tell first."""
    tensors, described = load_file(folder / WEIGHTS), read_json(folder / CONFIG, "a config")
    change_tensors(tensors)
    change_contract(described["contract"])
    described.pop("sha256")
    save_file(tensors, folder / WEIGHTS, {"format": "interp_toolkit_adapter"})
    (folder / CONFIG).write_text(json.dumps(described))


_U, _V = "contract.way_back.U", "contract.way_back.V"


@pytest.mark.parametrize(
    ("tensors", "contract", "message"),
    [
        (lambda x: x.pop(_U), None, "the contract's way back lacks U; the file is damaged, save the adapter again"),
        (lambda x: x.update({_V: torch.ones(3, 5)}), None, r"expected V of shape \(64, 5\) .* got \(3, 5\)"),
        (lambda x: x[_U].fill_(torch.nan), None, "U of the contract's way back holds NaN or infinity"),
        (lambda x: x.update({_U: x[_U].int()}), None, "U holds torch.int32"),
        (lambda x: x.update({"contract.way_back.W": torch.ones(2)}), None, "way back has no tensor W"),
        (None, lambda x: x.pop("way_back"), "names no way back, and there are tensors of one, U, V, feature_mean"),
        (None, lambda x: x.update(way_back=None), "names no way back, and there are tensors of one"),
        (None, lambda x: x.update(way_back=3), "'wording'.* in the contract's way back, got 3"),
        (None, lambda x: x["way_back"].pop("n"), r"got \['penalty', 'rank', 'site', 'wording'\]"),
        (None, lambda x: x["way_back"].update(rank="5"), "expected numbers for rank, n and penalty .* got '5'"),
        (None, lambda x: x["way_back"].update(rank=4), r"expected U of shape \(128, 4\) .* got \(128, 5\)"),
        (None, lambda x: x["way_back"].update(wording="x"), "expected a wording with {text} once .* got 'x'"),
        (None, lambda x: x["way_back"].update(site="blocks.1.hook_resid_post"), r"expected U of shape \(64, 5\)"),
        (None, lambda x: x["way_back"].update(site=""), "cannot be used: expected a site"),
    ],
)
def test_damaged_files_are_refused(tmp_path, adapter, tensors, contract, message):
    adapter.save_pretrained(tmp_path / "a")
    _damaged(tmp_path / "a", tensors or (lambda x: None), contract or (lambda x: None))
    with pytest.raises(FileFormatError, match=message):
        Adapter.from_pretrained(tmp_path / "a")


def test_parts_in_whole_numbers_need_their_steps(tmp_path, adapter):
    adapter.save_pretrained(tmp_path / "a", torch.int8)
    _damaged(tmp_path / "a", lambda x: x.pop(f"{_U}.step"))
    with pytest.raises(FileFormatError, match="U holds torch.int8"):
        Adapter.from_pretrained(tmp_path / "a")


def test_its_inverse_is_exact(way_back):
    again = parse_way_back(json.loads(json.dumps(way_back.to_dict())), way_back.tensors(), 32, 64)
    assert again.digest == way_back.digest
    assert again.to_dict() == way_back.to_dict()
    assert replace(way_back, wording="{text}").digest != way_back.digest
    assert "U=" not in repr(way_back) or len(repr(way_back)) < 1000


def test_scores_are_cosines_averaged_over_sites(tiny, adapter, random_vectors):
    vectors = random_vectors(4, 64, seed=8)
    vectors[2, :32] = 0  # of the second site alone
    vectors[3] = 0
    scores = reconstruction_scores(tiny(), adapter, vectors, ["a fox", " ", "rivers", "Poland"])
    back = reconstruct(tiny(), adapter.contract.way_back, ["a fox", "rivers"])
    cosine = torch.nn.functional.cosine_similarity
    both = [cosine(x, y, dim=0) for x, y in zip(back[0].chunk(2), vectors[0].chunk(2))]
    assert scores[0] == pytest.approx(float(sum(both)) / 2, abs=1e-5)
    assert scores[2] == pytest.approx(float(cosine(back[1, 32:], vectors[2, 32:], dim=0)), abs=1e-5)
    assert scores.isnan().tolist() == [False, True, False, True]
    assert reconstruction_scores(tiny(), adapter, vectors[:0], []).shape == (0,)


def test_what_has_no_score(tiny, adapter, random_vectors):
    with pytest.raises(InterpToolkitError, match=r"one description for each vector of width 64, got 1 .*\(2, 64\)"):
        reconstruction_scores(tiny(), adapter, random_vectors(2, 64), ["a"])
    with pytest.raises(InterpToolkitError, match=r"vector of width 64, got 2 descriptions .*\(2, 32\)"):
        reconstruction_scores(tiny(), adapter, random_vectors(2, 32), ["a", "b"])
    with pytest.raises(InterpToolkitError, match="the adapter was trained on"):
        reconstruction_scores(tiny("qwen2"), adapter, random_vectors(2, 64), ["a", "b"])
    adapter.contract = replace(adapter.contract, way_back=None)
    with pytest.raises(InterpToolkitError, match="has no way back from a description to a vector; fit one with fit_"):
        reconstruction_scores(tiny(), adapter, random_vectors(2, 64), ["a", "b"])
    way_back = fit_way_back(tiny(), TEXTS, random_vectors(len(TEXTS), 64), 3, rank=2)
    adapter.contract = replace(adapter.contract, way_back=replace(way_back, site=Site.after(9)))
    with pytest.raises(InterpToolkitError, match="blocks.9.hook_resid_post does not exist"):
        reconstruction_scores(tiny(), adapter, random_vectors(2, 64), ["a", "b"])


def test_variance_explained(random_vectors, unchecked):
    vectors, mean = random_vectors(40, 64), random_vectors(1, 64)[0] * 0.01
    x = unit_by_site(vectors, 2)
    y = x + 0.05 * random_vectors(40, 64, seed=2)
    names = dict(exact=x, noisy=y, mean=mean.expand(40, 64), twice=2 * x, nothing=torch.zeros(40, 64))
    table = fve_table(3 * vectors, names, mean, 2, seed=4)
    assert list(table.columns) == ["text", "measure", "value", "low", "high", "n", "seed"]
    assert set(table.n) == {40}
    assert set(table.seed) == {4}
    explained = table[table.measure == "fve"].set_index("text")
    spread = float((x - mean).square().sum())
    assert explained.value["exact"] == pytest.approx(1)
    assert explained.value["noisy"] == pytest.approx(1 - float((x - y).square().sum()) / spread)
    assert explained.low["noisy"] < explained.value["noisy"] < explained.high["noisy"]
    assert explained.loc["mean", ["value", "low", "high"]].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    # The scale counts: twice the vector is as far from it as nothing.
    assert explained.value["twice"] == pytest.approx(1 - float(x.square().sum()) / spread, abs=1e-5)
    cosine = table[table.measure == "cosine"].set_index("text").value
    assert (cosine["twice"], cosine["nothing"]) == (pytest.approx(1), 0)
    with pytest.raises(InterpToolkitError, match=r"shape of the vectors, \(40, 64\).* got {'x': \(40, 32\)}"):
        fve_table(vectors, dict(x=y[:, :32]), mean, 2)


def test_samples_are_scored_against_a_wrong_vector(random_vectors):
    vectors, samples = random_vectors(6, 64), random_vectors(18, 64, seed=3).view(6, 3, 64)
    scores = sample_scores(vectors, samples, 2)
    for i in range(6):
        for k in range(3):
            one, other = (
                np.mean([torch.cosine_similarity(a, b, dim=0) for a, b in zip(samples[i, k].chunk(2), x.chunk(2))])
                for x in (vectors[i], vectors[i - 3])
            )
            assert scores[i, k] == pytest.approx(one - other, abs=1e-5)


def test_the_evaluation_measures_it_where_there_is_one(tiny, adapter, tmp_path):
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    path = tmp_path / "topics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    context = EvalContext(path, limit=6, model=tiny(), progress=False)
    context._embedder = Letters()
    result = run_evaluation("reconstruction", context, adapter, tmp_path / "out.json")
    way_back, contract, titles = adapter.contract.way_back, adapter.contract, context.titles.held_out
    assert result["settings"]["way_back"] == way_back.digest
    explained = pd.DataFrame(result["tables"]["fve"])
    assert {row["score"] for row in result["tables"]["telling"]} <= {"cosine", "evidence", "trained cosine"}
    assert explained.text.unique().tolist() == ["description", "shuffled", "null", "mean", "title"]
    vectors = contract.centre(topic_vectors(tiny(), titles, contract.site))
    y = reconstruct(tiny(), way_back, titles, normalize=False)
    expected = fve_table(vectors, dict(title=y), way_back.vector_mean, 2)
    assert explained[explained.text == "title"].value.to_numpy() == pytest.approx(expected.value.to_numpy(), abs=1e-5)
    chosen = pd.DataFrame(result["tables"]["choosing_by_reconstruction"])
    by_choice = chosen[chosen.measure == "mrr"].set_index("choice").value
    assert by_choice["best of six by answer"] >= by_choice["best of six by reconstruction"]
    gain = by_choice["best of six by reconstruction - greedy"]
    assert gain == pytest.approx(by_choice["best of six by reconstruction"] - by_choice["greedy"])
    adapter.contract = replace(contract, way_back=None)
    assert "way_back" not in reconstruction.EVALUATION.settings(context, adapter)
    again = run_evaluation("reconstruction", context, adapter, tmp_path / "without.json")
    assert list(again["tables"]) == ["round_trip", "telling"]
    assert again["tables"]["round_trip"] == result["tables"]["round_trip"]


@pytest.mark.slow
def test_on_the_real_model_descriptions_explain_more_than_shuffled_ones(smollm):
    from pathlib import Path

    from interp_toolkit.evaluation.titles import Titles

    titles = Titles.read(Path(__file__).parent.parent / "benchmarks" / "data" / "topics" / "topics.jsonl.gz")
    train, held_out = titles.train[:300], titles.held_out[:60]
    raw = topic_vectors(smollm, train + held_out, SiteStack([10, 23]))
    vectors = raw - raw[:300].mean(0)
    way_back = fit_way_back(smollm, train, vectors[:300])
    assert way_back.site == SiteStack([12, 22])
    y = reconstruct(smollm, way_back, held_out, normalize=False)
    table = fve_table(vectors[300:], dict(title=y, shuffled=y.roll(30, 0)), way_back.vector_mean, 2)
    rows = table.set_index(["measure", "text"])
    assert rows.low["fve", "title"] > 0.3
    assert rows.high["fve", "shuffled"] < 0
    assert rows.low["cosine", "title"] > rows.high["cosine", "shuffled"] + 0.3
