"""Labels in: the forms in which they are published, and pairs of them with decoder rows."""

import gzip
import json

import pytest
import torch
from conftest import make_sae

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.sae import SAELabels, sae_vectors
from interp_toolkit.sae import labels as read_labels
from interp_toolkit.sae import pairs as sae_pairs

ROW = dict(modelId="gemma-2-2b", layer="20-res-16k", typeName="oai_token-act-pair")


def _rows(*result, **more):
    return [dict(ROW, index=str(i), description=text, explanationModelName=by, **more) for i, text, by in result]


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_an_export_in_a_folder(tmp_path):
    _write(tmp_path / "batch-0.jsonl.gz", _rows((3, "cats", "gpt-4o-mini"), (3, "felines", "claude")))
    _write(tmp_path / "batch-1.jsonl", _rows((3, "cats", "claude"), (11, "a line\u2028separator", "claude")))
    (tmp_path / "README").write_text("not a batch")
    labels = read_labels(tmp_path)
    assert labels.by_feature() == {3: ("cats", "felines"), 11: ("a line\u2028separator",)}
    assert labels.table["explainer"].tolist() == ["gpt-4o-mini", "claude", "claude"]
    assert labels.table["split"].isna().all()
    assert labels.features == (3, 11)
    assert labels.origin == {"labels": tmp_path.name, "neuronpedia_id": "gemma-2-2b/20-res-16k"}
    assert read_labels(tmp_path / "batch-1.jsonl").features == (3, 11)


def test_rows_without_a_description_are_counted(tmp_path):
    _write(tmp_path / "a.jsonl", _rows((1, "cats", ""), (2, None, ""), (3, " ", "")))
    labels = read_labels(tmp_path / "a.jsonl")
    assert labels.features == (1,)
    assert labels.origin["without_description"] == "2"
    assert labels.table["explainer"].tolist() == ["oai_token-act-pair"]


@pytest.mark.parametrize("name", ["labels.json", "labels.json.gz"])
def test_lists_and_mappings(tmp_path, name):
    def write(data):
        with (gzip.open if name.endswith("gz") else open)(tmp_path / name, "wt") as stream:
            json.dump(data, stream)

    path = tmp_path / name
    write(_rows((3, "cats", "claude"), (5, "dogs", "claude")))
    assert read_labels(path).by_feature() == {3: ("cats",), 5: ("dogs",)}
    write({"7": "cats", "2": ["dogs", "pets"]})
    assert read_labels(path).by_feature() == {2: ("dogs", "pets"), 7: ("cats",)}
    assert read_labels({7: "cats", 2: ["dogs", "pets"]}).by_feature() == {2: ("dogs", "pets"), 7: ("cats",)}


def test_labels_are_written_and_read_back(tmp_path):
    labels = SAELabels.from_dict({3: "cats", 5: ["dogs", "pets"]}, explainer="tokens")
    labels.write(tmp_path / "labels.json")
    back = read_labels(tmp_path / "labels.json")
    assert back.table.equals(labels.table)
    assert set(back.table["explainer"]) == {"tokens"}
    assert len(back) == 3
    labels.table.loc[:, "split"] = "val"
    labels.write(tmp_path / "labels.json")
    assert set(read_labels(tmp_path / "labels.json").table["split"]) == {"val"}


def test_the_published_format(tmp_path):
    section = dict(
        metadata=dict(dataset_name="Goodfire/SAE-l19", layer=19, source="Goodfire", vector_type="sae_decoder"),
        vectors=[
            dict(index=40, labels=["cats"], split="train"),
            dict(index=2, labels=["dogs", "pets"], split="val"),
        ],
    )
    path = tmp_path / "labels.json.gz"
    with gzip.open(path, "wt") as stream:
        json.dump([section], stream)
    labels = read_labels(path)
    assert labels.by_feature() == {2: ("dogs", "pets"), 40: ("cats",)}
    assert labels.table["split"].tolist() == ["train", "val", "val"]
    assert set(labels.table["explainer"]) == {"Goodfire"}
    pairs = sae_pairs(make_sae(), path)
    assert dict(zip([x[0] for x in pairs.labels], pairs.splits)) == {"dogs": "val", "cats": "train"}
    with gzip.open(path, "wt") as stream:
        json.dump([section, section], stream)
    with pytest.raises(InterpToolkitError, match="has 2 sections of vector-label pairs"):
        read_labels(path)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileFormatError, match=r"expected a folder of \*\.jsonl.* and there is none"):
        read_labels(tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match=r"expected \*\.jsonl or \*\.jsonl\.gz in the folder"):
        read_labels(tmp_path / "empty")
    path = tmp_path / "cut.jsonl.gz"
    _write(path, _rows(*((i, f"label {i}", "x") for i in range(100))))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match=r"cut\.jsonl\.gz is damaged"):
        read_labels(path)
    (tmp_path / "bad.jsonl").write_text(json.dumps(_rows((1, "a", "x"))[0]) + "\n{cut\n")
    with pytest.raises(FileFormatError, match=r"bad\.jsonl, line 2: expected a JSON object"):
        read_labels(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"index": 3}\n')
    with pytest.raises(FileFormatError, match="line 1: expected 'index' and 'description', got \\['index'\\]"):
        read_labels(tmp_path / "bad.jsonl")
    for wrong in ("x", -1, 1.5, True, None):
        (tmp_path / "bad.jsonl").write_text(json.dumps(dict(index=wrong, description="a")))
        with pytest.raises(FileFormatError, match="line 1: expected the number of a feature from 0"):
            read_labels(tmp_path / "bad.jsonl")
    _write(tmp_path / "none.jsonl", _rows((3, "", "x")))
    with pytest.raises(FileFormatError, match="expected labels in .*, and there are none"):
        read_labels(tmp_path / "none.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(FileFormatError, match="expected labels in .*, and there are none"):
        read_labels(tmp_path / "none.jsonl")
    (tmp_path / "a.json").write_text("3")
    with pytest.raises(FileFormatError, match="expected a folder of .*, got 3"):
        read_labels(tmp_path / "a.json")
    with pytest.raises(InterpToolkitError, match="feature 3 needs at least one label and no empty one"):
        read_labels({3: ["cats", " "]})


def test_labels_of_several_saes_are_refused(tmp_path):
    _write(tmp_path / "a.jsonl", _rows((1, "cats", "x")))
    _write(tmp_path / "b.jsonl", [dict(_rows((1, "cats", "x"))[0], layer="21-res-16k")])
    with pytest.raises(InterpToolkitError, match=r"several SAEs \(gemma-2-2b/20-res-16k, gemma-2-2b/21-res-16k\)"):
        read_labels(tmp_path)


def test_pairs_are_directions_with_their_labels():
    sae = make_sae()
    labels = SAELabels.from_dict({7: ["cats", "felines"], 3: "dogs", 40: "birds"}, explainer="tokens")
    pairs = sae_pairs(sae, labels, val_fraction=0.34, seed=1)
    assert pairs.labels == (("dogs",), ("cats", "felines"), ("birds",))
    assert torch.equal(pairs.vectors, sae_vectors(sae, [3, 7, 40]).vectors)
    assert sorted(pairs.splits) == ["train", "train", "val"]
    assert pairs.splits == sae_pairs(sae, labels, val_fraction=0.34, seed=1).splits
    assert (pairs.site, pairs.mean) == (None, None)
    assert pairs.origin["explainer"] == "tokens"
    assert pairs.origin["hook_name"] == "blocks.2.hook_resid_post"
    assert pairs.origin["model"] == "llama"
    assert sae_pairs(sae, {1: "cats", 2: "cats"}, val_fraction=0.0).labels == (("cats",), ("cats",))


def test_dead_features_give_no_pairs():
    sae = make_sae()
    firing = torch.ones(48)
    firing[3] = 0
    pairs = sae_pairs(sae, {3: "dogs", 7: "cats"}, activation_rates=firing)
    assert pairs.labels == (("cats",),)
    assert pairs.origin["dead_left_out"] == "1"
    with pytest.raises(InterpToolkitError, match="all 1 features that have labels are dead"):
        sae_pairs(sae, {3: "dogs"}, activation_rates=firing)


def test_labels_must_be_the_saes_own(tmp_path):
    with pytest.raises(InterpToolkitError, match="labels for feature 48, and the SAE has 48 features"):
        sae_pairs(make_sae(), {1: "cats", 48: "dogs"})
    _write(tmp_path / "a.jsonl", _rows((1, "cats", "x")))
    with pytest.raises(InterpToolkitError, match=r"the labels are of gemma-2-2b/20-res-16k and the SAE is gpt2/1-res"):
        sae_pairs(make_sae(neuronpedia_id="gpt2/1-res"), tmp_path / "a.jsonl")
    assert len(sae_pairs(make_sae(neuronpedia_id="gemma-2-2b/20-res-16k"), tmp_path / "a.jsonl")) == 1
    with pytest.raises(InterpToolkitError, match="expected labels for at least one feature, got none"):
        sae_pairs(make_sae(), {})
