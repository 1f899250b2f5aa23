import gzip
import json
import pickle

import pandas as pd
import pytest
import torch

import interp_toolkit
from interp_toolkit import (
    FileFormatError,
    InterpToolkitError,
    Site,
    VectorLabelPairs,
)

METADATA = dict(dataset_name="topics", filename="v.pt", layer=3, source="wiki", vector_type="contrastive")


def _entry(index, *labels, split="train"):
    return dict(index=index, labels=list(labels), split=split)


ENTRIES = [_entry(4, "cat", "feline"), _entry(0, "dog", split="val"), _entry(2, "cat")]


@pytest.fixture
def published(tmp_path, random_vectors):
    """published(section, ...): a JSON file of these sections, beside v.pt with six vectors."""
    torch.save(random_vectors(6), tmp_path / "v.pt")

    def write(*sections, name="p.json"):
        with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt") as stream:
            json.dump([dict(metadata=metadata, vectors=entries) for metadata, entries in sections], stream)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_published_pairs_are_read(published, random_vectors, name):
    path = published(({**METADATA, "model_name": "org/m", "num_features": 6}, ENTRIES), name=name)
    pairs = VectorLabelPairs.from_json(path, mean=torch.ones(32), origin={"revision": "abc"})
    assert pairs.labels == (("cat", "feline"), ("dog",), ("cat",))
    assert pairs.splits == ("train", "val", "train")
    assert torch.equal(pairs.vectors, random_vectors(6)[[4, 0, 2]])
    assert (pairs.site, pairs.weights) == (Site.after(3), (1.0,) * 3)
    assert pairs.origin == dict(
        dataset_name="topics",
        filename="v.pt",
        layer="3",
        source="wiki",
        vector_type="contrastive",
        model_name="org/m",
        model="org/m",
        num_features="6",
        file=name,
        revision="abc",
    )


def test_sections_are_sources(published, random_vectors, tmp_path):
    torch.save(random_vectors(3, seed=1).bfloat16(), tmp_path / "rows.pt")
    rows = dict(dataset_name="sae", filename="rows.pt", layer=5, source="g", vector_type="sae_decoder")
    pairs = VectorLabelPairs.from_json(published((METADATA, ENTRIES), (rows, [_entry(2, "fox")])))
    assert pairs.source_of == (0, 0, 0, 1)
    assert [x["dataset_name"] for x in pairs.sources] == ["topics", "sae"]
    assert pairs.site is None  # of one section alone
    assert torch.equal(
        pairs.gather([3, 0]), torch.stack([random_vectors(3, seed=1)[2].bfloat16().float(), pairs.vectors[0]])
    )
    assert VectorLabelPairs.from_json(published((rows, [_entry(2, "fox")]))).site is None  # a direction is read nowhere
    assert VectorLabelPairs.from_json(published((rows, [_entry(2, "fox")])), site=5).site == Site.after(5)


def test_vectors_stay_in_their_file(published, random_vectors):
    pairs = VectorLabelPairs.from_json(published((METADATA, ENTRIES), ({**METADATA, "layer": 4}, [_entry(5, "fox")])))
    first, second = pairs.stored.matrices
    assert len(first) == 6
    assert first.data_ptr() == second.data_ptr()  # the file that both name is opened once


def test_a_section_without_a_file_takes_the_callers_vectors(published, random_vectors):
    nameless = {key: value for key, value in METADATA.items() if key != "filename"}
    path = published((nameless, ENTRIES))
    with pytest.raises(InterpToolkitError, match=r"section 'topics@l3' of .* names no file .* vectors=matrix"):
        VectorLabelPairs.from_json(path)
    assert torch.equal(
        VectorLabelPairs.from_json(path, random_vectors(6, seed=2)).vectors, random_vectors(6, seed=2)[[4, 0, 2]]
    )
    two = published((nameless, ENTRIES), (METADATA, [_entry(1, "fox")]))
    with pytest.raises(InterpToolkitError, match="has 2 sections, and one matrix .* give them by name: 'topics@l3'"):
        VectorLabelPairs.from_json(two, random_vectors(6))
    other = published((nameless, ENTRIES), ({**METADATA, "layer": 4}, [_entry(1, "fox")]))
    pairs = VectorLabelPairs.from_json(other, {"topics@l3": random_vectors(6, seed=2)})
    assert torch.equal(pairs.vectors[[0, 3]], torch.stack([random_vectors(6, seed=2)[4], random_vectors(6)[1]]))
    with pytest.raises(InterpToolkitError, match="given for 'topics', which .* does not have; it has 'topics@l3'"):
        VectorLabelPairs.from_json(path, {"topics": random_vectors(6)})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([_entry(0, "a"), _entry(6, "b")], "row 1: index 6 is past the end of its 6 vectors, numbered 0 to 5"),
        ([_entry(-1, "a")], "row 0: index -1 is past the end"),
        ([_entry(1, "a"), _entry(1, "b")], "row 1: index 1 is listed twice; join its labels"),
        ([_entry("1", "a")], "row 0: expected an object with a whole number 'index'"),
        ([_entry(3, "a", " ")], "section 'topics@l3', index 3 needs at least one label and no empty one"),
        ([_entry(3)], "index 3 needs at least one label"),
        ([_entry(3, "a", 5)], "index 3 needs at least one label"),
        ([_entry(3, "a", "a")], "index 3 has the label 'a' twice"),
        ([_entry(3, "a", split="test")], "index 3 has split 'test'; expected 'train' or 'val'"),
        ([dict(index=3, labels=["a"])], "index 3 has split None"),
        ([dict(index=3, labels="a", split="val")], "index 3: expected a list 'labels', got 'a'"),
    ],
)
def test_entries_that_cannot_be_used_are_named(published, entries, message):
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.from_json(published((METADATA, entries)))


def test_only_vectors_that_are_named_must_be_sound(published, tmp_path, random_vectors):
    vectors = random_vectors(6)
    vectors[1], vectors[3, 0] = 0, float("nan")
    torch.save(vectors, tmp_path / "v.pt")
    assert len(VectorLabelPairs.from_json(published((METADATA, ENTRIES)))) == 3
    with pytest.raises(InterpToolkitError, match="section 'topics@l3', index 1 is zero"):
        VectorLabelPairs.from_json(published((METADATA, [*ENTRIES, _entry(1, "a")])))
    with pytest.raises(InterpToolkitError, match="section 'topics@l3', index 3 holds NaN"):
        VectorLabelPairs.from_json(published((METADATA, [*ENTRIES, _entry(3, "a")])))


def test_one_vector_in_two_sections_is_refused(published):
    with pytest.raises(InterpToolkitError, match="section 'more@l3', row 0: index 4 is listed twice"):
        VectorLabelPairs.from_json(
            published((METADATA, ENTRIES), ({**METADATA, "dataset_name": "more"}, [_entry(4, "x")]))
        )


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_pickled_is_run(published, tmp_path, plain):
    path, victim = published((METADATA, ENTRIES)), tmp_path / "was-run"
    if plain:
        (tmp_path / "v.pt").write_bytes(pickle.dumps(_Malicious(victim), protocol=2))
    else:
        torch.save(_Malicious(victim), tmp_path / "v.pt")
    with pytest.raises(FileFormatError, match=r"v.pt holds pickled objects other than tensors, which are never run"):
        VectorLabelPairs.from_json(path)
    assert not victim.exists()


def test_vectors_of_the_old_torch_format_are_read(published, tmp_path, random_vectors):
    torch.save(random_vectors(6), tmp_path / "v.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(VectorLabelPairs.from_json(published((METADATA, ENTRIES))).vectors, random_vectors(6)[[4, 0, 2]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: None, "expected a file of vectors at .*v.pt, and there is none"),
        (lambda whole: whole[: len(whole) // 2], "v.pt"),
        (lambda whole: b"", "the file of vectors .*v.pt is damaged"),
    ],
)
def test_a_damaged_file_of_vectors_is_refused(published, tmp_path, damage, message):
    path, file = published((METADATA, ENTRIES)), tmp_path / "v.pt"
    left = damage(file.read_bytes())
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    with pytest.raises(FileFormatError, match=message):
        VectorLabelPairs.from_json(path)


@pytest.mark.parametrize("value", [{"a": torch.ones(2, 2)}, torch.ones(6), torch.ones(6, 2).long()])
def test_a_file_of_something_else_is_refused(published, tmp_path, value):
    path = published((METADATA, ENTRIES))
    torch.save(value, tmp_path / "v.pt")
    with pytest.raises(FileFormatError, match="expected a matrix of vectors, one per row, in .*v.pt, got"):
        VectorLabelPairs.from_json(path)


def test_a_damaged_json_is_refused(published, tmp_path):
    path = published((METADATA, ENTRIES), name="p.json.gz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileFormatError, match=r"p.json.gz is damaged"):
        VectorLabelPairs.from_json(path)
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(FileFormatError, match=r"expected a list of sections in .*x.json, got {'a': 1}"):
        VectorLabelPairs.from_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('[{"vectors": []}]')
    with pytest.raises(FileFormatError, match="section 0: expected an object with 'metadata' and a list 'vectors'"):
        VectorLabelPairs.from_json(tmp_path / "x.json")
    with pytest.raises(FileFormatError, match="expected a JSON file of vector-label pairs at /no/file.json"):
        VectorLabelPairs.from_json("/no/file.json")


# Data frames.


def test_a_frame_of_one_row_a_vector(random_vectors):
    frame = pd.DataFrame(dict(text=["cat", ["dog", "hound"], "fox"], w=[1, 2, 1], side=["train", "val", "train"]))
    settings = dict(split_column="side", weight_column="w", site=2, origin={"model": "m"})
    pairs = VectorLabelPairs.from_frame(random_vectors(3), frame, "text", **settings)
    assert pairs.labels == (("cat",), ("dog", "hound"), ("fox",))
    assert (pairs.weights, pairs.splits, pairs.site) == ((1.0, 2.0, 1.0), ("train", "val", "train"), Site.after(2))
    drawn = [VectorLabelPairs.from_frame(random_vectors(3), frame, "text", val_fraction=0.4, seed=1) for _ in range(2)]
    built = VectorLabelPairs.from_tensors(random_vectors(3), ["a", "b", "c"], val_fraction=0.4, seed=1)
    assert drawn[0].splits == drawn[1].splits == built.splits


def test_a_frame_of_several_rows_a_vector(random_vectors, tmp_path):
    frame = pd.DataFrame(dict(latent=[4, 1, 4], label=["cat", "dog", "feline"]))
    frame.to_parquet(tmp_path / "f.parquet")
    for result in (frame, frame.set_index(pd.Index([9, 9, 9])), pd.read_parquet(tmp_path / "f.parquet")):
        pairs = VectorLabelPairs.from_frame(random_vectors(6), result, index_column="latent")
        assert pairs.labels == (("cat", "feline"), ("dog",))
        assert torch.equal(pairs.vectors, random_vectors(6)[[4, 1]])


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (dict(label=["a"] * 6, i=range(6)), dict(label_column="text"), "no column 'text'; it has .'label', 'i'."),
        (dict(label=["a"] * 5), {}, "one row of the data frame per vector, got 5 rows and 6 vectors; name the column"),
        (dict(label=["a"], i=[6]), dict(index_column="i"), "row 0 of the data frame: i 6 is past the end of the 6"),
        (dict(label=["a"], i=[0.5]), dict(index_column="i"), "row 0 .* expected a whole number in 'i', got 0.5"),
        (dict(label=["a", None], i=[0, 1]), dict(index_column="i"), "row 1 of the data frame has no label in 'label'"),
        (dict(label=["a", float("nan")], i=[0, 1]), dict(index_column="i"), "row 1 of the data frame has no label"),
        (dict(label=["a", "a"], i=[5, 5]), dict(index_column="i"), "vector 5 has the label 'a' twice"),
        (dict(label=["a", ""], i=[0, 5]), dict(index_column="i"), "vector 5 needs at least one label"),
        (
            dict(label=["a", "b"], i=[5, 5], s=["train", "val"]),
            dict(index_column="i", split_column="s"),
            "row 1 of the data frame: vector 5 has s 'val', and 'train' in a row before; a vector has one",
        ),
        (dict(label=["a", "b"], i=[5, 3]), dict(index_column="i"), "vector 3 is zero"),
    ],
)
def test_frames_that_cannot_be_used(random_vectors, columns, settings, message):
    vectors = random_vectors(6).index_fill(0, torch.tensor([3]), 0)
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.from_frame(vectors, pd.DataFrame(columns), **settings)


# Names of version 0.1.


def test_old_names_go_on_with_a_warning(tmp_path, published, random_vectors):
    vectors, labels = random_vectors(4), ["a", "b", "c", "d"]
    pairs = VectorLabelPairs.from_tensors(vectors, labels, seed=1)
    with pytest.warns(DeprecationWarning, match=r"VectorLabelPairs\.build is deprecated; use .*\.from_tensors"):
        assert VectorLabelPairs.build(vectors, labels, seed=1).splits == pairs.splits
    with pytest.warns(DeprecationWarning, match=r"VectorLabelPairs\.write is deprecated; use .*\.from_batches"):
        assert VectorLabelPairs.write(tmp_path / "p", [(vectors, labels)], seed=1).labels == pairs.labels
    with pytest.warns(DeprecationWarning, match=r"VectorLabelPairs\.mix is deprecated; use .*\.concat"):
        mixed = VectorLabelPairs.mix([(pairs, 1.0), (pairs, 1.0)], seed=2)
    assert mixed.labels == VectorLabelPairs.concat([pairs, pairs], [1.0, 1.0], seed=2).labels
    frame = pd.DataFrame(dict(label=labels))
    with pytest.warns(DeprecationWarning, match=r"pairs_from_frame is deprecated; use VectorLabelPairs\.from_frame"):
        assert interp_toolkit.pairs_from_frame(vectors, frame).labels == pairs.labels
    path = published((METADATA, ENTRIES))
    with pytest.warns(DeprecationWarning, match=r"pairs_from_json is deprecated; use VectorLabelPairs\.from_json"):
        assert interp_toolkit.pairs_from_json(path).labels == VectorLabelPairs.from_json(path).labels
