import gzip
import json
import math

import datasets
import pandas as pd
import pytest
import torch

from interp_toolkit import (
    FileFormatError,
    InterpToolkitError,
    Site,
    read_activations,
    read_topics,
    topic_pairs,
)
from interp_toolkit.pairs import read_titles, topic_vectors, topic_vectors_by_site, topics_from_dataset


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))


@pytest.fixture
def reads(monkeypatch):
    """What was read, shard by shard, of two titles each."""
    monkeypatch.setattr("interp_toolkit.pairs.topics._SHARD", 2)
    read = []

    def counting(model, prompts, sites):
        read.append((prompts, sites))
        return read_activations(model, prompts, sites)

    monkeypatch.setattr("interp_toolkit.pairs.topics.read_activations", counting)
    return read


def test_topic_vectors_are_centred_on_the_training_topics(tiny):
    titles, splits = ["Rivers", "Poland", "Foxes", "Baseball"], ["train", "val", "train", "train"]
    pairs = topic_pairs(tiny(), titles, 2, splits=splits)
    raw = read_activations(tiny(), [f"Tell me about {title}." for title in titles], 2).vectors
    mean = raw[[0, 2, 3]].mean(0)
    assert torch.allclose(pairs.mean, mean, atol=1e-5)
    assert torch.allclose(pairs.vectors, raw - mean, atol=1e-5)
    assert pairs.labels == tuple((title,) for title in titles)
    assert (pairs.splits, str(pairs.site)) == (tuple(splits), "blocks.2.hook_resid_post")


def test_reading_topics_goes_on_from_what_is_kept(tiny, reads):
    titles = ["a", "b", "c", "d", "e"]
    first = topic_vectors(tiny(), titles[:4], 1)
    assert len(reads) == 2
    whole = topic_vectors(tiny(), titles, 1)
    assert [len(prompts) for prompts, _ in reads] == [2, 2, 1]  # the first two shards were kept
    assert torch.equal(whole[:4], first)
    assert torch.allclose(
        whole, read_activations(tiny(), [f"Tell me about {x}." for x in titles], 1).vectors, atol=1e-5
    )
    topic_vectors(tiny(), titles, 2)
    assert len(reads) == 6  # another site is another reading
    topic_vectors(tiny("qwen2"), titles, 2)
    assert len(reads) == 9  # and so is another model


def test_several_sites_are_read_in_one_pass(tiny, reads):
    titles = ["rivers", "Poland", "a fox"]
    alone = topic_vectors(tiny(), titles[:2], 1)
    by_site = topic_vectors_by_site(tiny(), titles, [3, 1, "blocks.3.hook_resid_post", 2])
    assert [site for _, site in reads] == [[Site.after(1)], [Site.after(3), Site.after(2)], list(by_site)]
    assert list(by_site) == [Site.after(3), Site.after(1), Site.after(2)]
    assert torch.equal(by_site[Site.after(1)][:2], alone)
    for site, vectors in by_site.items():
        expected = read_activations(tiny(), [f"Tell me about {title}." for title in titles], site).vectors
        assert torch.allclose(vectors, expected, atol=1e-5)
    topic_pairs(tiny(), titles, 3)
    assert len(reads) == 3  # kept, whichever call read it
    with pytest.raises(InterpToolkitError, match="expected at least one site, got none"):
        topic_vectors_by_site(tiny(), titles, [])


def test_weights_that_change_are_read_anew(tiny, checkpoints, reads):
    from interp_toolkit import load_model

    tuned = load_model(checkpoints["llama"], dtype="float32")
    before = topic_vectors(tuned, ["a", "b"], 2)
    topic_vectors(tiny(), ["a", "b"], 2)
    assert len(reads) == 1  # the same weights loaded twice
    with torch.no_grad():
        # One weight of a block: name and embedding, and so the fingerprint, stay.
        next(w for name, w in tuned.named_parameters() if "0" in name and w.ndim > 1 and w.shape[0] == 32).mul_(1.5)
    assert not torch.equal(topic_vectors(tuned, ["a", "b"], 2), before)
    assert len(reads) == 2


def test_a_damaged_shard_is_read_anew(tiny, tmp_path, reads):
    whole = topic_vectors(tiny(), ["a", "b"], 1)
    (file,) = (tmp_path / "topics").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert torch.equal(topic_vectors(tiny(), ["a", "b"], 1), whole)
    assert len(reads) == 2
    assert topic_vectors(tiny(), [], 1).shape == (0, 32)


def test_the_bar_counts_titles(tiny, reads, capsys):
    topic_vectors(tiny(), ["a", "b", "c"], 1, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_a_reading_that_is_stopped_keeps_what_is_done(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("interp_toolkit.pairs.topics._SHARD", 2)
    read = []

    def stopping(model, prompts, sites):
        if len(read) == 1:
            raise KeyboardInterrupt
        read.append(prompts)
        return read_activations(model, prompts, sites)

    monkeypatch.setattr("interp_toolkit.pairs.topics.read_activations", stopping)
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


def test_titles_are_read_from_tables(tmp_path):
    rows = 'id,title,split\n1,"Paris, Texas",train\n2,NA,val\n\n3,"say ""hi""",train\n'
    (tmp_path / "t.csv").write_text("\ufeff" + rows, encoding="utf-8")
    expected = (["Paris, Texas", "NA", 'say "hi"'], ["train", "val", "train"])
    assert read_titles(tmp_path / "t.csv") == expected
    with gzip.open(tmp_path / "t.tsv.gz", "wt") as stream:
        stream.write("title\nRivers\nSão Paulo\n")
    assert read_titles(tmp_path / "t.tsv.gz") == (["Rivers", "São Paulo"], None)
    (tmp_path / "bom.txt").write_text("\ufeffRivers\n", encoding="utf-8")
    assert read_titles(tmp_path / "bom.txt") == (["Rivers"], None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "Rivers\nPoland\n", r"expected a column 'title' in the first line of .*t\.csv, got \['Rivers'\]"),
        ("t.csv", "", r"expected a column 'title' in the first line of .*t\.csv, got \[\]"),
        ("t.csv", "title\nParis, Texas\n", r"t\.csv, line 2: expected 1 fields, got 2; a title with the delimiter"),
        ("t.csv", "title,split\n,train\n", r"t\.csv, line 2: expected a title, got an empty one"),
        ("t.csv", 'title\n"Rivers\n', r"t\.csv, line 2: unexpected end of data"),
        ("t.md", "# Titles\n- Rivers\n", r"t\.md is of a kind whose titles are not known \(\.md\); expected \.txt"),
        ("t.xlsx", "PK", r"t\.xlsx is of a kind whose titles are not known"),
        ("t.csv.gz", "no gzip", r"t\.csv\.gz is damaged"),
        ("t.jsonl", '{"title": "\\ud800"}\n', r"t\.jsonl, line 1: expected .* half of a surrogate pair"),
        ("t.jsonl", "[" * 100_000, r"t\.jsonl, line 1: expected a JSON object with a title: nested too deeply"),
        ("t.jsonl", '{"title": "a", "split": 3}\n', r"t\.jsonl, line 1: expected a text for the split, got 3"),
    ],
)
def test_titles_of_another_kind_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileFormatError, match=message):
        read_topics(tmp_path / name)


@pytest.mark.parametrize("title", [math.nan, 1984, None])
def test_a_title_that_is_no_text_is_named(tiny, title, unchecked):
    frame = pd.DataFrame({"title": ["Rivers", title]}, index=[7, 3], dtype=object)
    for read in (topic_pairs, topic_vectors):
        with pytest.raises(
            InterpToolkitError, match=f"expected a text for the title of topic 1, got {title}; leave it"
        ):
            read(tiny(), frame["title"], 1)
    with pytest.raises(InterpToolkitError, match=f"row 1 of the data set: expected a text in 'title', got {title}"):
        topics_from_dataset(frame, label_column=None)
    with pytest.raises(InterpToolkitError, match="expected a list of titles, got one text, 'Rivers'"):
        topic_vectors(tiny(), "Rivers", 1)


def test_titles_of_a_data_frame_are_taken_by_position(tiny):
    titles = pd.DataFrame({"title": ["a", "Rivers", "Poland"]})["title"][1:]
    assert torch.equal(topic_vectors(tiny(), titles, 1), topic_vectors(tiny(), ["Rivers", "Poland"], 1))
    assert topic_pairs(tiny(), titles, 1, val_fraction=0.0).labels == (("Rivers",), ("Poland",))


def test_topics_have_labels_title_first(tmp_path):
    rows = [
        {"title": "Fox", "descriptions": [{"description": "a sly animal", "source": "s"}, {"description": "FOX"}]},
        {"title": "Poland", "descriptions": ["a country", "A country ", " "]},
        {"title": "Rivers"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    topics = read_topics(tmp_path / "t.jsonl")
    assert topics.labels == [("Fox", "a sly animal"), ("Poland", "a country"), ("Rivers",)]
    assert (topics.titles, topics.splits, len(topics)) == (["Fox", "Poland", "Rivers"], None, 3)
    assert read_topics(tmp_path / "t.jsonl", labels=1).labels == [("Fox",), ("Poland",), ("Rivers",)]
    with pytest.raises(InterpToolkitError, match="at least 1 for labels, since the title is one, got 0"):
        read_topics(tmp_path / "t.jsonl", labels=0)
    for bad in ({"title": 3}, {"title": "a", "descriptions": [3]}, {"title": "a", "descriptions": [{"text": "b"}]}):
        (tmp_path / "bad.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(bad))
        with pytest.raises(FileFormatError, match="line 2: expected a"):
            read_topics(tmp_path / "bad.jsonl")


def test_topics_come_from_a_dataset():
    columns = dict(
        name=["Fox", "Poland"], also=[["a sly animal", "fox"], ["a country"]], side=["val", "train"], odd=["x", "y"]
    )
    for dataset in (datasets.Dataset.from_dict(columns), pd.DataFrame(columns), columns):
        topics = topics_from_dataset(dataset, "name", "also", split_column="side")
        assert topics.titles == ["Fox", "Poland"]
        assert topics.labels == [("Fox", "a sly animal"), ("Poland", "a country")]
        assert topics.splits == ["val", "train"]
        assert topics_from_dataset(dataset, "name", None).labels == [("Fox",), ("Poland",)]
        with pytest.raises(InterpToolkitError, match="no column 'title'; it has .'name', 'also', 'side', 'odd'."):
            topics_from_dataset(dataset)
        with pytest.raises(
            InterpToolkitError, match="row 0 of the data set: expected a list of texts in 'odd', got 'x'"
        ):
            topics_from_dataset(dataset, "name", "odd")
    parts = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns))
    with pytest.raises(InterpToolkitError, match="one data set, got parts .'train'.; choose one: dataset.'train'."):
        topics_from_dataset(parts, "name", "also")
    with pytest.raises(InterpToolkitError, match="row 1 of the data set: expected a text in 'name', got None"):
        topics_from_dataset(dict(name=["a", None]), "name", None)


def test_topics_with_labels_become_pairs(tiny):
    labels = [("Fox", "a sly animal"), ("Poland",), ("Rivers", "water")]
    pairs = topic_pairs(tiny(), [x[0] for x in labels], 1, labels=labels, splits=["train", "train", "val"])
    assert pairs.labels == tuple(labels)
    assert [x for _, x in pairs.split("val").examples] == ["Rivers", "water"]
    assert pairs.origin["source"] == "contrastive topic vectors"


@pytest.mark.parametrize(
    ("titles", "settings", "message"),
    [
        (["a", " "], {}, "topic 1 has an empty title; leave it out"),
        (["a"], dict(splits=["val"]), "at least one training topic among 1, got none"),
        (["a", "b"], dict(splits=["val"]), "a split for each title, got 2 titles and 1 splits"),
        (["a", "b"], dict(splits=["train", "test"]), r"topic 1 \('b'\) has split 'test'"),
        (["a", "b"], dict(labels=[["a"]]), "labels for each title, got 2 titles and 1 lists"),
        (["a", "b"], dict(labels=[["a"], ["b", "b"]]), r"topic 1 \('b'\) has the label 'b' twice"),
    ],
)
def test_topics_that_cannot_be_used_are_told_before_anything_is_read(tiny, reads, titles, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        topic_pairs(tiny(), titles, 1, **settings)
    assert not reads
