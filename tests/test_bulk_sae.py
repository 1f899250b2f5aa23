"""All features of an SAE described, and what is made of their descriptions."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_sae
from safetensors.torch import save_file

from interp_toolkit import ContractError, InterpToolkitError, Sampling, self_explain
from interp_toolkit.bulk import (
    best_descriptions,
    describe_file,
    describe_sae,
    label_graph,
    neuronpedia_rows,
    read_feature_descriptions,
    usable_labels,
    with_labels,
    write_neuronpedia,
)
from interp_toolkit.cli import main
from interp_toolkit.contract import EvidenceThreshold
from interp_toolkit.errors import FileFormatError
from interp_toolkit.sae import TopExamples, find_top_examples, load, sae_vectors, store_activations, token_rows
from interp_toolkit.sae import labels as sae_labels


@pytest.fixture
def adapter(adapter):
    adapter.contract = replace(adapter.contract, threshold=EvidenceThreshold(0.5, 0.95, 100, 0))
    return adapter


@pytest.fixture
def folder(tmp_path, tiny):
    """An SAE in a folder that says that its features 5 and 6 are dead; feature 7 has no direction."""
    sae = make_sae("jumprelu", model_name=tiny().cfg.model_name, neuronpedia_id="tiny/2-res")
    with torch.no_grad():
        sae.W_dec[7] = 0
    sae.save_model(tmp_path / "sae")
    rates = torch.full((48,), 0.1)
    rates[[5, 6]] = 0
    save_file({"sparsity": (rates + 1e-10).log10()}, tmp_path / "sae" / "sparsity.safetensors")
    return tmp_path / "sae"


def test_live_features_are_described_as_their_directions_are(tmp_path, folder, tiny, adapter):
    done = describe_sae(folder, tmp_path / "out", model=tiny(), adapter=adapter, rows_per_part=20)
    assert (done.written, done.rows) == (3, 45)
    table = read_feature_descriptions(tmp_path / "out")
    assert table["feature"].tolist() == [i for i in range(48) if i not in (5, 6, 7)]
    directions = sae_vectors(folder, [0, 9, 47])
    alone = self_explain(directions.vectors, model=tiny(), adapter=adapter).to_df()
    rows = table[table["feature"].isin([0, 9, 47])]
    assert rows["description"].tolist() == alone["description"].tolist()
    np.testing.assert_allclose(rows["evidence"], alone["evidence"], atol=1e-5)
    again = describe_sae(folder, tmp_path / "out", model=tiny(), adapter=adapter, rows_per_part=20)
    assert (again.written, again.there) == (0, 3)


def test_some_features_and_several_samples(tmp_path, folder, tiny, adapter):
    draws = Sampling(n=3, max_new_tokens=5)
    describe_sae(folder, tmp_path / "out", model=tiny(), adapter=adapter, features=[40, 3], sampling=draws)
    table = read_feature_descriptions(tmp_path / "out")
    assert table["feature"].tolist() == [3, 3, 3, 40, 40, 40]
    assert table["sample"].tolist() == [0, 1, 2] * 2
    best = best_descriptions(table)
    assert best["feature"].tolist() == [3, 40]
    assert best["evidence"].tolist() == table.groupby("feature")["evidence"].max().tolist()


def test_what_does_not_fit_is_refused(tmp_path, folder, tiny, adapter):
    with pytest.raises(ContractError, match="was trained on another model"):
        describe_sae(make_sae("standard", model_name="other"), tmp_path / "out", model=tiny(), adapter=adapter)
    with pytest.raises(InterpToolkitError, match="feature 48 does not exist"):
        describe_sae(folder, tmp_path / "out", model=tiny(), adapter=adapter, features=[48])
    describe_sae(folder, tmp_path / "out", model=tiny(), adapter=adapter, features=[1])
    other = make_sae("jumprelu", seed=1, model_name=tiny().cfg.model_name)
    with pytest.raises(InterpToolkitError, match="holds another job, with (neuronpedia_id|sae)"):
        describe_sae(other, tmp_path / "out", model=tiny(), adapter=adapter, features=[1])
    np.save(tmp_path / "some.npy", np.ones((2, 32), dtype=np.float32))
    describe_file(tmp_path / "some.npy", tmp_path / "file", model=tiny(), adapter=adapter)
    with pytest.raises(FileFormatError, match="expected the folder of a job on an SAE"):
        read_feature_descriptions(tmp_path / "file")


@pytest.fixture
def table():
    return pd.DataFrame(
        dict(
            feature=[3, 3, 5, 8, 9],
            sample=[0, 1, 0, 0, 0],
            description=["cats", "dogs", "rivers", "", None],
            evidence=[1.0, 2.0, 0.1, np.nan, np.nan],
            above_threshold=pd.array([True, True, False, None, None], dtype="boolean"),
            problem=[None, None, None, None, "is zero"],
        )
    )


def test_a_feature_keeps_its_description_of_the_highest_evidence(table):
    best = best_descriptions(table)
    assert best["feature"].tolist() == [3, 5, 8, 9]
    assert best["description"].tolist()[:2] == ["dogs", "rivers"]
    assert usable_labels(best) == {3: "dogs"}
    assert usable_labels(best, all_rows=True) == {3: "dogs", 5: "rivers"}


def test_an_export_is_read_back_as_labels(table, tmp_path):
    rows = neuronpedia_rows(best_descriptions(table), "tiny/2-res", "tiny with adapter x", all_rows=True)
    write_neuronpedia(rows, tmp_path / "export")
    with gzip.open(tmp_path / "export" / "batch-0.jsonl.gz", "rt") as file:
        assert [json.loads(line) for line in file] == rows
    assert rows[0] == dict(
        modelId="tiny",
        layer="2-res",
        index="3",
        description="dogs",
        typeName="self_explanation",
        explanationModelName="tiny with adapter x",
    )
    read = sae_labels(tmp_path / "export")
    assert read.by_feature() == {3: ("dogs",), 5: ("rivers",)}
    assert read.origin["neuronpedia_id"] == "tiny/2-res"
    with pytest.raises(InterpToolkitError, match="expected an id like"):
        neuronpedia_rows(best_descriptions(table), "tiny", "x")
    with pytest.raises(InterpToolkitError, match="pass all_rows=True"):
        write_neuronpedia([], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_labels_that_texts_chose_stand_in_the_export_under_their_source(table, tmp_path):
    best = best_descriptions(table)
    merged = pd.DataFrame(
        dict(
            feature=[3, 5, 7],
            label=["dogs", "streams", "cats"],
            source=["description", "words.json", "words.json"],
            auroc=[0.7, 0.9, 0.6],
        )
    )
    both = with_labels(best, merged)
    assert both["feature"].tolist() == [3, 5, 7, 8, 9]
    assert usable_labels(both) == {3: "dogs", 5: "streams", 7: "cats"}
    assert both["evidence"].isna().tolist() == [False, True, True, *best["evidence"].isna().tolist()[2:]]
    rows = neuronpedia_rows(both, "tiny/2-res", "tiny with adapter x")
    assert [(row["typeName"], row["explanationModelName"]) for row in rows] == [
        ("self_explanation", "tiny with adapter x"),
        ("merged_label", "words.json"),
        ("merged_label", "words.json"),
    ]


def test_many_rows_are_written_in_batches(tmp_path):
    many = pd.DataFrame(dict(feature=range(2500), description="x", above_threshold=True))
    write_neuronpedia(neuronpedia_rows(many, "m/l", "x"), tmp_path / "export")
    names = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert names == [f"batch-{i}.jsonl.gz" for i in range(3)]
    assert len(sae_labels(tmp_path / "export").features) == 2500


def test_nodes_of_a_graph_get_the_labels_of_their_features(tmp_path):
    nodes = [
        dict(node_id="20_3_5", clerp=""),
        dict(node_id="20_3_6", clerp="a label of its own"),
        dict(node_id="20_4_5", clerp=""),
        dict(node_id="19_3_5", clerp=""),
        dict(node_id="E_20_3", clerp=""),
        dict(node_id="20_5_1"),
    ]
    (tmp_path / "graph.json").write_text(json.dumps(dict(nodes=nodes, links=[1], metadata={"a": 1})))
    path = tmp_path / "labelled.json"
    assert label_graph(tmp_path / "graph.json", {3: "dogs", 5: "rivers"}, 20, path) == 2
    written = json.loads(path.read_text())
    assert [node.get("clerp") for node in written["nodes"]] == ["dogs", "a label of its own", "", "", "", "rivers"]
    assert written["links"] == [1]
    (tmp_path / "graph.json").write_text("[]")
    with pytest.raises(FileFormatError, match="expected a graph of circuit-tracer"):
        label_graph(tmp_path / "graph.json", {}, 20, path)


def test_the_command(tmp_path, folder, checkpoints, adapter, capsys, monkeypatch):
    adapter.save_pretrained(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    job = ["sae", "describe", "./sae", "--model", str(checkpoints["llama"]), "--adapter", "./adapter"]
    job += ["--output", "out", "--on-mismatch", "warn"]
    code = main([*job, "--features", "0:4", "30", "--neuronpedia", "export", "--page", "page.html", "--all"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "out: 1 parts made (5 features), 0 were there",
        "5 of 5 features written to export as tiny/2-res",
        "written to page.html",
    ]
    assert read_feature_descriptions("out")["feature"].tolist() == [0, 1, 2, 3, 30]
    assert len(sae_labels("export").features) == 5
    assert "Features of sae" in (tmp_path / "page.html").read_text()
    words = [dict(index=i, description=word) for i, word in enumerate(["foxes", "dogs", "rivers", "jumps"])]
    (tmp_path / "words.json").write_text(json.dumps(words))
    lines = [
        json.dumps(dict(text=text)) for text in ("a quick brown fox", "the lazy dog jumps", "Tell me about rivers.")
    ]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr("interp_toolkit.embedder.Embedder", lambda: lambda texts: torch.ones(len(texts), 2))
    labels = ["--labels", "words.json", "--passages", "passages.jsonl", "--table", "table.parquet"]
    assert main([*job, "--features", "0:4", "30", "--all", *labels]) == 0
    table = pd.read_parquet("table.parquet")
    # The judge finds all alike, so the labels named first stay; feature 30 has only its description.
    assert table["description"].tolist()[:4] == ["foxes", "dogs", "rivers", "jumps"]
    assert table["source"].tolist() == ["words.json"] * 4 + ["description"]
    assert "4 labels of words.json\n1 labels of description\nwritten to table.parquet" in capsys.readouterr().out
    assert main([*job, "--features", "0:4", "30", "--labels", "words.json"]) == 2
    assert "expected --passages beside --labels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*job, "--features", "4:x"])
    assert "expected the number of a feature or a range like 0:4096, got '4:x'" in capsys.readouterr().err


def test_what_is_described_can_be_searched_with_labels_and_examples(tmp_path, folder, tiny, adapter, monkeypatch):
    features = pytest.importorskip("interp_toolkit.serve.features")
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    model, (site,) = tiny(), adapter.contract.require_site().sites
    describe_sae(folder, tmp_path / "out", model=model, adapter=adapter, features=range(4))
    rows = token_rows(model.tokenizer, [f"the cat sat on the {word}" for word in ("mat", "dog", "bird")], context=24)
    store = store_activations(model, rows, site)[site]
    examples = tmp_path / "c.safetensors"
    find_top_examples(load(folder), store, examples, model.tokenizer, count=2, before=2, after=1, pool=3)
    (tmp_path / "labels.json").write_text(json.dumps({"1": "cats"}))
    served = features.Features.read(tmp_path / "out", tmp_path / "labels.json", examples, model.tokenizer)
    assert len(served) == 4
    (card,) = served.search("cats", 0, 10)["features"]
    assert (card["feature"], card["label"]) == (1, "cats")
    table = read_feature_descriptions(tmp_path / "out").set_index("feature")
    assert [row["text"] for row in card["descriptions"]] == [table["description"][1]]
    expected = TopExamples.open(examples, model.tokenizer).get(1)
    assert [tuple(one["tokens"]) for one in card["contexts"]] == expected["tokens"].tolist()
    other = make_sae("jumprelu", model_name=model.cfg.model_name, seed=3)
    find_top_examples(other, store, tmp_path / "o.safetensors", model.tokenizer, count=2, before=2, after=1, pool=3)
    with pytest.raises(ContractError, match="expected top examples of the SAE .*; search for its own"):
        features.Features.read(tmp_path / "out", None, tmp_path / "o.safetensors", model.tokenizer)
