"""SAEs by command: train, label, score, compare; what goes wrong; and the benchmark from corpus to table."""

import gzip
import importlib
import json
import random
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import Letters, make_sae

from benchmarks.sae import layers
from interp_toolkit import Adapter, self_explain
from interp_toolkit.cli import main
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sae import SAEConfig, SAERecipe, sae_vectors
from interp_toolkit.sae import labels as read_labels
from interp_toolkit.scoring import GenerationConfig
from interp_toolkit.scoring.feature_labels import ORIGINAL, REWORDED, comparison_rows, describe_features

pytest.importorskip("sae_lens")
pytestmark = pytest.mark.default_dtype

NEVER = 5  # the feature that never fires
WORDS = [a + b for a in "bcdfghklmnprstvw" for b in ("ear", "ine", "oat", "ump")]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of its own, and a prompt that the tiny model has room for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("interp_toolkit.embedder.Embedder", Letters)
    monkeypatch.setattr("interp_toolkit.evaluation.context.Embedder", Letters)
    monkeypatch.setattr("interp_toolkit.scoring.GenerationConfig", _short)
    return tmp_path


def _short(**settings):
    return GenerationConfig(**settings | dict(prompt="Say {label}", max_new_tokens=4))


@pytest.fixture
def sae(tiny):
    made = make_sae("topk", model_name=model_facts(tiny()).model_id)
    with torch.no_grad():
        made.b_enc[NEVER] = -1e6
    return made


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32)
    made.contract = Contract.from_facts(model_facts(tiny()), None, tiny_prompt, None, True)
    return made.requires_grad_(False).eval()


@pytest.fixture
def folder(place, sae, adapter, checkpoints):
    """What the commands are given: an SAE, an adapter, passages and labels."""
    sae.save_model(place / "sae")
    adapter.save_pretrained(place / "adapter")
    _passages(place / "passages.jsonl.gz")
    labels = {feature: f"{WORDS[feature]} and {WORDS[feature + 1]}" for feature in range(12)}
    (place / "labels.json").write_text(json.dumps(labels))
    return place


def _passages(path):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=14)) for _ in range(28)]
    with gzip.open(path, "wt") as stream:
        stream.writelines(
            json.dumps(dict(text=text, split="train" if i % 4 else "eval")) + "\n" for i, text in enumerate(texts)
        )


@pytest.fixture
def run(capsys, checkpoints):
    def run(step, *arguments):
        model = () if step == "train" else ("--model", str(checkpoints["llama"]))
        code = main(["sae", step, *map(str, arguments), *model])
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_from_training_to_comparison(place, folder, run, checkpoints, monkeypatch):
    recipe = dict(
        output="made",
        passages="passages.jsonl.gz",
        site="blocks.2.hook_resid_post",
        model=str(checkpoints["llama"]),
        context=24,
        top_examples=3,
        sae=dict(features=40, k=4, batch_size=64, tokens=640),
    )
    (place / "sae.yaml").write_text(yaml.safe_dump(recipe))
    code, out, err = run("train", "sae.yaml", "--data", place)
    assert (code, err) == (0, "")
    assert "explained_variance" in out
    label = ["label", "made/sae", "--passages", "passages.jsonl.gz", "--examples", "made/contexts.safetensors"]
    code, out, err = run(*label, "--output", "own.json")
    assert (code, err) == (0, "")
    labels = read_labels("own.json")
    assert set(labels.table["explainer"]) == {"distinctive words"}
    assert out.startswith(f"{len(labels.features)} of 40 features have labels by distinctive words\n")
    some = list(map(str, labels.features[:2]))
    score = ["score", "made/sae", "own.json", "--passages", "passages.jsonl.gz", "--split", "eval", "--texts", "1"]
    score += ["--adapter", "./adapter", "--features", *some]
    code, out, err = run(*score)
    assert (code, err) == (0, "")
    result = json.loads((place / "sae-scores.json").read_text())
    scores = pd.DataFrame(result["tables"]["labels"])
    sources = {"adapter", ORIGINAL, REWORDED, "random labels", "shuffled adapter", f"shuffled {REWORDED}"}
    assert set(scores["source"]) == sources
    assert set(scores.groupby(["source", "feature"]).size()) == {6}
    table = pd.DataFrame(result["tables"]["table"])
    assert set(table["source"]) == sources
    assert set(table["n"]) == {2}
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert result["settings"]["labeller"] == "distinctive words"
    # Everything is kept: nothing is described, written or read again.
    for name in (
        "feature_labels.self_explain",
        "example_texts.sampled_answers",
        "generation.unchecked_activations",
    ):
        monkeypatch.setattr(f"interp_toolkit.scoring.{name}", None)
    assert run(*score)[:2] == (0, out)
    compare = ["compare", "made/sae", "own.json", "--adapter", "./adapter", "--scores", "sae-scores.json"]
    code, out, err = run(*compare, "--features", *some)
    assert (code, err) == (0, "")
    actual = json.loads((place / "sae-comparison.json").read_text())["tables"]
    gaps = [row["disagreement"] for row in actual["features"]]
    assert gaps == sorted(gaps, reverse=True)
    assert {row["winner"] for row in actual["features"]} <= {"label", "description", "tie"}
    assert {row["measure"] for row in actual["summary"]} >= {"similarity", "chance", "tie"}
    assert "farthest apart" in out


def test_a_feature_that_never_fires_is_named(folder, run):
    code, out, _ = run("label", "./sae", "--passages", "passages.jsonl.gz", "--limit", "8")
    assert code == 0
    assert f"1 without: the feature is never active ({NEVER})\n" in out
    assert NEVER not in read_labels("labels.json").features


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "./none", "--passages", "passages.jsonl.gz"], "expected a folder with cfg.json"),
        (["label", "./other", "--passages", "passages.jsonl.gz"], "was trained on another model than"),
        (["label", "./narrow", "--passages", "passages.jsonl.gz"], "has decoder rows of width 16"),
        (["label", "./sae", "--passages", "cut.jsonl.gz"], "cut.jsonl.gz is damaged after line"),
        (["label", "./sae", "--passages", "empty.jsonl"], "expected at least one passage in empty.jsonl"),
        (["label", "./sae", "--passages", "none.jsonl"], "expected a file of passages at none.jsonl"),
        (["label", "./sae", "--passages", "passages.jsonl.gz", "--features", "48"], "feature 48 does not exist"),
        (
            ["label", "./sae", "--passages", "passages.jsonl.gz", "--limit", "0"],
            "expected a limit of at least 1, got 0",
        ),
        (["label", "./sae", "--passages", "passages.jsonl.gz", "--server", "http://x"], "expected --ask MODEL beside"),
        (["label", "./sae", "--passages", "passages.jsonl.gz", "--examples", "none"], "a file of top examples at none"),
        (
            ["score", "./sae", "far.json", "--passages", "passages.jsonl.gz"],
            "feature 99 does not exist: the SAE has 48",
        ),
        (["score", "./sae", "labels.json", "--passages", "passages.jsonl.gz", "--features", "20"], "and 20 has none"),
        (["score", "./sae", "labels.json", "--passages", "passages.jsonl.gz", "--limit", "1"], "at least two features"),
        (["compare", "./sae", "labels.json", "--adapter", "./none"], "no adapter at ./none"),
        (
            ["compare", "./sae", "labels.json", "--adapter", "./adapter", "--scores", "scores.json", "--limit", "2"],
            "holds scores of the sae 0123, this is",
        ),
        (
            ["compare", "./sae", "labels.json", "--adapter", "./adapter", "--scores", "far.json", "--limit", "2"],
            "expected a result of `interp-toolkit sae score` at far.json",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(folder, run, arguments, message):
    make_sae("topk").save_model("other")
    make_sae("topk", width=16).save_model("narrow")
    whole = Path("passages.jsonl.gz").read_bytes()
    Path("cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    Path("empty.jsonl").write_text("")
    Path("far.json").write_text('{"1": "a", "99": "b"}')
    Path("scores.json").write_text(json.dumps(dict(settings=dict(sae="0123", adapter=None), tables=dict(labels=[]))))
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("interp-toolkit: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_contexts_of_another_sae_are_refused(folder, run, sae):
    command = ["label", "./sae", "--passages", "passages.jsonl.gz", "--limit", "3"]
    assert run(*command)[0] == 0
    (kept,) = Path("cache/top_examples").glob("*.safetensors")
    with torch.no_grad():
        sae.W_dec[0] += 1
    sae.save_model("sae")
    code, _, err = run(*command, "--examples", kept)
    assert code == 2
    assert "holds top examples of the SAE" in err


def test_descriptions_are_those_of_the_rows_and_are_kept(tiny, sae, adapter, place, monkeypatch):
    monkeypatch.setattr("interp_toolkit.scoring.feature_labels._SHARD", 2)
    features = [7, 3, 11]
    actual = describe_features(tiny(), adapter, sae, features, samples=1, folder=place)
    alone = self_explain(sae_vectors(sae, features).vectors, model=tiny(), adapter=adapter)
    assert actual["feature"].tolist() == features
    assert actual["description"].tolist() == [row.description for row in alone]
    assert actual["evidence"].tolist() == pytest.approx([row.evidence for row in alone], abs=1e-3, nan_ok=True)
    calls = []
    monkeypatch.setattr(
        "interp_toolkit.scoring.feature_labels.self_explain",
        lambda vectors, **settings: calls.append(len(vectors)) or self_explain(vectors, **settings),
    )
    damaged = sorted((place / "descriptions").glob("*.json"))[0]
    damaged.write_text("[")
    again = describe_features(tiny(), adapter, sae, features, samples=1, folder=place)
    assert again["description"].tolist() == actual["description"].tolist()
    assert len(calls) == 1
    with pytest.raises(InterpToolkitError, match="each once"):
        describe_features(tiny(), adapter, sae, [1, 1])
    with torch.no_grad():
        sae.W_dec[3] = 0
    with pytest.raises(InterpToolkitError, match="feature 3 has no direction"):
        describe_features(tiny(), adapter, sae, features)


def test_every_source_has_as_many_tries_and_chance_has_other_labels():
    labels = {1: "rivers", 2: "cats", 3: "bread"}
    text = [dict(feature=f, number=i, description=f"{f} {i}", evidence=0.0) for f in labels for i in range(4)]
    rows = comparison_rows({"own": pd.DataFrame(text)}, labels, ["a", "b", "c", "d", "e"], tries=4, seed=1)
    assert set(rows.groupby(["source", "feature"]).size()) == {4}
    assert rows[rows.source == ORIGINAL].groupby("feature")["label"].unique().map(list).to_dict() == {
        feature: [label] for feature, label in labels.items()
    }
    by = {source: set(zip(own["feature"], own["label"])) for source, own in rows.groupby("source")}
    for source in ("own", REWORDED):
        assert not by[source] & by[f"shuffled {source}"]
    assert {label for _, label in by["random labels"]} <= set("abcde")
    with pytest.raises(InterpToolkitError, match="of the same features, see 3"):
        comparison_rows({"own": pd.DataFrame(text[:8])}, labels, list("abcdef"), tries=4)


@pytest.mark.slow
def test_the_benchmark_goes_from_corpus_to_table(place, checkpoints, monkeypatch, capsys):
    benchmark, scores = (
        importlib.import_module("benchmarks.sae.__main__"),
        importlib.import_module("benchmarks.sae.scores"),
    )
    monkeypatch.setattr(scores, "GenerationConfig", _short)
    (place / "corpus").mkdir()
    _passages(place / "corpus" / "passages.jsonl.gz")
    titles = [f"{a} {b}" for a in WORDS[:25] for b in WORDS[30:54]]
    (place / "topics").mkdir()
    with gzip.open(place / "topics" / "topics.jsonl.gz", "wt") as stream:
        rows = [dict(title=title, split="val" if i < 24 else "train") for i, title in enumerate(titles)]
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    recipe = dict(
        output="runs/sae",
        passages="corpus/passages.jsonl.gz",
        site="blocks.2.hook_resid_post",
        model=str(checkpoints["llama"]),
        context=24,
    )
    (place / "sae.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(sys, "argv", ["sae", "--config", "sae.yaml", "--data", str(place), "--limit", "3"])
    benchmark.main()
    out = capsys.readouterr().out
    results = place / "runs" / "sae_labels" / "limit-3" / "results"
    result = json.loads((results / "scores.json").read_text())
    table = pd.DataFrame(result["tables"]["generation"])
    trained = ("trained, scalar_affine", "trained, full_rank")
    expected = {*trained, "untrained", ORIGINAL, REWORDED, "random labels"}
    expected |= {f"shuffled {name}" for name in (*trained, "untrained", REWORDED)}
    assert set(table["source"]) == expected
    assert set(table["n"]) == {3}
    assert set(table["tries"]) == {6}
    transfer = pd.DataFrame(
        [row for x in results.glob("*.json") for row in json.loads(x.read_text())["tables"].get("transfer", [])]
    )
    held = transfer[(transfer["rows"] == "held") & (transfer["measure"] == "loss")]
    assert sorted(zip(held["kind"], held["trained_on"], held["measured_on"])) == sorted(
        [("untrained", "nothing", x) for x in ("sae", "topics")]
        + [
            (k, s, x)
            for k in ("scalar_affine", "full_rank")
            for s in ("sae", "topics", "both")
            for x in ("sae", "topics")
        ]
    )
    ground = benchmark.Ground(benchmark.SAERecipe.read("sae.yaml"), place, 3)
    sides = ground.features
    assert not set(sides["held"]) & set(sides["train"] + sides["dev"])
    assert set(pd.DataFrame(result["tables"]["features"])["feature"]) == set(sides["held"])
    assert ground.pairs("sae").split("train").labels == tuple((ground.originals[f],) for f in sorted(sides["train"]))
    # The same command finds all done, and prints the same.
    monkeypatch.setattr("interp_toolkit.training.loop.TrainingRun._step", None)
    capsys.readouterr()
    benchmark.main()
    again = capsys.readouterr().out
    assert again.count("done before") == 8
    assert out.endswith(again.split("what labels cost", 1)[1])
    monkeypatch.setattr(sys, "argv", ["sae", "--data", "/nowhere"])
    with pytest.raises(InterpToolkitError, match=r"expected corpus/passages\.jsonl\.gz in /nowhere"):
        benchmark.main()


@pytest.mark.slow
def test_layers_are_compared_by_what_can_be_read_there(place, checkpoints, monkeypatch):
    _passages(place / "passages.jsonl.gz")
    small = SAEConfig(features=64, k=8, batch_size=64)
    recipe = SAERecipe(
        output="runs/sae",
        passages="passages.jsonl.gz",
        site="blocks.0.hook_resid_post",
        model=str(checkpoints["llama"]),
        context=24,
        sae=small,
    )
    with pytest.raises(InterpToolkitError, match="expected more than 100 labelled features.*--passages"):
        layers.compare_layers(recipe, place, [0, 2], 21, place / "layers.csv")
    assert not (place / "layers.csv").exists()
    monkeypatch.setattr(layers, "_HELD", 8)
    monkeypatch.setattr(layers, "_FIRES", 3)
    table = layers.compare_layers(recipe, place, [0, 2], 21, place / "layers.csv")
    assert set(table["site"]) == {"blocks.0.hook_resid_post", "blocks.2.hook_resid_post"}
    wanted = {"vector_gain", "label_loss", "best_length", "peak_tokens", "explained_variance", "loss_spliced"}
    for _, rows in table.groupby("site"):
        result = rows.set_index("metric")
        assert wanted <= set(result.index)
        assert result.n["vector_gain"] == 8
        assert 0 < result.n["best_length"] <= 56
    assert pd.read_csv(place / "layers.csv").shape == table.shape
