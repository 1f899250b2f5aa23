import gzip
import json
import math
import os

import pytest
import torch

from interp_toolkit import FileFormatError, InterpToolkitError, Site, VectorLabelPairs, read_activations, topic_pairs
from interp_toolkit.vectors import read_titles, topic_vectors

LABELS = [["cat", "feline"], ["dog"], "bird", ["fish"], ["fox", "vixen", "reynard"]]


def _pairs(vectors, **settings):
    return VectorLabelPairs.build(vectors, LABELS, **settings)


def test_labels_splits_and_examples(random_vectors):
    pairs = _pairs(random_vectors(5), val_fraction=0.4, seed=1)
    assert pairs.labels[2] == ("bird",)
    assert sorted(pairs.splits) == ["train"] * 3 + ["val"] * 2
    assert len(pairs.examples) == 8
    train, val = pairs.split("train"), pairs.split("val")
    assert {x for _, x in train.examples}.isdisjoint({x for _, x in val.examples})
    assert len(train) + len(val) == 5
    assert all(torch.equal(val.vectors[i], pairs.vectors[pairs.labels.index(val.labels[i])]) for i in range(2))


def test_the_same_seed_makes_the_same_split():
    vectors = torch.ones(400, 2)
    splits = [VectorLabelPairs.build(vectors, ["x"] * 400, seed=seed).splits for seed in (3, 3, 4)]
    assert splits[0] == splits[1] != splits[2]
    assert splits[0].count("val") == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, x: (v[:4], x), "as many vectors as lists of labels"),
        (lambda v, x: (v.index_fill(0, torch.tensor([3]), math.nan), x), "vector 3 holds NaN"),
        (lambda v, x: (v.index_fill(0, torch.tensor([2]), 0), x), "vector 2 is zero"),
        (lambda v, x: (v, [*x[:4], []]), r"vector 4 needs at least one label and no empty one, got \(\)"),
        (lambda v, x: (v, [["a", " "], *x[1:]]), "vector 0 needs at least one label"),
    ],
)
def test_rows_that_cannot_be_used_are_named(random_vectors, change, message):
    vectors, labels = change(random_vectors(5), LABELS)
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.build(vectors, labels)


def test_splits_that_are_none_are_refused(random_vectors):
    with pytest.raises(InterpToolkitError, match="vector 0 has split 'test'; expected 'train' or 'val'"):
        _pairs(random_vectors(5), splits=["test"] * 5)
    with pytest.raises(InterpToolkitError, match="val_fraction from 0 up to 1, got 1"):
        _pairs(random_vectors(5), val_fraction=1.0)


def test_a_folder_holds_them(tmp_path, random_vectors):
    pairs = _pairs(random_vectors(5), site=Site.after(3), mean=torch.ones(32), origin={"model": "org/m"})
    pairs.save(tmp_path / "p")
    again = VectorLabelPairs.load(tmp_path / "p")
    assert torch.equal(again.vectors, pairs.vectors)
    assert torch.equal(again.mean, pairs.mean)
    assert (again.labels, again.splits, again.site, again.origin) == (
        pairs.labels,
        pairs.splits,
        pairs.site,
        pairs.origin,
    )
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("name", ["vectors.safetensors", "labels.parquet", "origin.json"])
def test_a_damaged_folder_is_refused(tmp_path, random_vectors, name):
    _pairs(random_vectors(5)).save(tmp_path / "p")
    (tmp_path / "p" / name).write_bytes(b"{")
    with pytest.raises(FileFormatError, match="are damaged"):
        VectorLabelPairs.load(tmp_path / "p")
    (tmp_path / "p" / name).unlink()
    with pytest.raises(FileFormatError, match="expected a folder of vector-label pairs"):
        VectorLabelPairs.load(tmp_path / "p")


# Topics.


def test_topic_vectors_are_centred_on_the_training_topics(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    titles, splits = ["Rivers", "Poland", "Foxes", "Baseball"], ["train", "val", "train", "train"]
    pairs = topic_pairs(tiny(), titles, 2, splits=splits)
    raw = read_activations(tiny(), [f"Tell me about {title}." for title in titles], 2).vectors
    mean = raw[[0, 2, 3]].mean(0)
    assert torch.allclose(pairs.mean, mean, atol=1e-5)
    assert torch.allclose(pairs.vectors, raw - mean, atol=1e-5)
    assert pairs.labels == tuple((title,) for title in titles)
    assert (pairs.splits, str(pairs.site)) == (tuple(splits), "blocks.2.hook_resid_post")


def test_reading_topics_goes_on_from_what_is_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("interp_toolkit.vectors.topics._SHARD", 2)
    titles, read = ["a", "b", "c", "d", "e"], []

    def counting(model, prompts, site):
        read.append(prompts)
        return read_activations(model, prompts, site)

    monkeypatch.setattr("interp_toolkit.vectors.topics.read_activations", counting)
    first = topic_vectors(tiny(), titles[:4], 1)
    assert len(read) == 2
    whole = topic_vectors(tiny(), titles, 1)
    assert [len(prompts) for prompts in read] == [2, 2, 1]  # the first two shards were kept
    assert torch.equal(whole[:4], first)
    topic_vectors(tiny(), titles, 2)
    assert len(read) == 6  # another site is another reading


def test_a_reading_that_is_stopped_keeps_what_is_done(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("interp_toolkit.vectors.topics._SHARD", 2)
    read = []

    def stopping(model, prompts, site):
        if len(read) == 1:
            raise KeyboardInterrupt
        read.append(prompts)
        return read_activations(model, prompts, site)

    monkeypatch.setattr("interp_toolkit.vectors.topics.read_activations", stopping)
    with pytest.raises(KeyboardInterrupt):
        topic_vectors(tiny(), ["a", "b", "c"], 1)
    kept = [path.name for path in (tmp_path / "topics").iterdir()]
    assert len(kept) == 1
    assert not kept[0].startswith(".")


def test_titles_are_read_from_files(tmp_path):
    rows = [{"title": "Poland", "split": "train"}, {"title": "Rivers", "split": "val"}]
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    assert read_titles(tmp_path / "t.jsonl.gz") == (["Poland", "Rivers"], ["train", "val"])
    (tmp_path / "t.txt").write_text("São Paulo\n\nRivers\n")
    assert read_titles(tmp_path / "t.txt") == (["São Paulo", "Rivers"], None)
    whole = (tmp_path / "t.jsonl.gz").read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(FileFormatError, match=r"cut\.jsonl\.gz is damaged"):
        read_titles(tmp_path / "cut.jsonl.gz")
    (tmp_path / "bad.jsonl").write_text('{"title": "a"}\n{"name": "b"}\n')
    with pytest.raises(FileFormatError, match="line 2: expected a JSON object with a title"):
        read_titles(tmp_path / "bad.jsonl")
    with pytest.raises(FileFormatError, match="expected a file of topic titles at /no/titles"):
        read_titles("/no/titles")


def test_topics_that_cannot_be_used(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    with pytest.raises(InterpToolkitError, match="a topic title is empty"):
        topic_vectors(tiny(), ["a", " "], 1)
    with pytest.raises(InterpToolkitError, match="at least one training topic among 1, got none"):
        topic_pairs(tiny(), ["a"], 1, splits=["val"])
