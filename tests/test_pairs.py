import json
import math
import os
import weakref

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interp_toolkit import FileFormatError, InterpToolkitError, Site, VectorLabelPairs
from interp_toolkit.pairs import folder, rows

LABELS = [["cat", "feline"], ["dog"], "bird", ["fish"], ["fox", "vixen", "reynard"]]


def _pairs(vectors, **settings):
    return VectorLabelPairs.from_tensors(vectors, LABELS, **settings)


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
    splits = [VectorLabelPairs.from_tensors(vectors, ["x"] * 400, seed=seed).splits for seed in (3, 3, 4)]
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
        (lambda v, x: (v, [*x[:3], ["a", "b", " a"], x[4]]), "vector 3 has the label 'a' twice; list it once"),
        (lambda v, x: (v[:, 0], x), r"expected a matrix, .* got vectors of shape \(5,\)"),
    ],
)
def test_rows_that_cannot_be_used_are_named(random_vectors, change, message):
    vectors, labels = change(random_vectors(5), LABELS)
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.from_tensors(vectors, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(splits=["test"] * 5), "vector 0 has split 'test'; expected 'train' or 'val'"),
        (dict(splits=["val"] * 4), "got 5 vectors, 5 lists of labels, 4 splits and 5 weights"),
        (dict(val_fraction=1.0), "val_fraction from 0 up to 1, got 1"),
        (dict(weights=[1.0, 2.0, 0.0, 1.0, 1.0]), "vector 2 has weight 0.0; expected one above 0"),
        (dict(weights=[1.0, math.nan, 1.0, 1.0, 1.0]), "vector 1 has weight nan"),
        (dict(mean=torch.ones(31)), r"expected a mean of shape \(32,\) without NaN, .* got shape \(31,\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(random_vectors, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        _pairs(random_vectors(5), **settings)


def test_values_are_checked_in_blocks(monkeypatch, random_vectors):
    monkeypatch.setattr(rows, "_BLOCK", 64)  # two rows of 32
    vectors = random_vectors(9)
    vectors[7] = 0
    with pytest.raises(InterpToolkitError, match="vector 7 is zero"):
        VectorLabelPairs.from_tensors(vectors, ["x"] * 9)
    vectors[7, 3] = math.inf
    with pytest.raises(InterpToolkitError, match="vector 7 holds NaN or infinity"):
        VectorLabelPairs.from_tensors(vectors, ["x"] * 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_come_as_float32_whatever_they_are_stored_in(random_vectors, dtype):
    vectors = random_vectors(5).to(dtype)
    pairs = _pairs(vectors)
    assert pairs.gather([4, 0, 4]).dtype == torch.float32
    assert torch.equal(pairs.gather([4, 0, 4]), vectors[[4, 0, 4]].float())


def test_taking_rows_shares_the_vectors_and_keeps_weights(random_vectors):
    vectors = random_vectors(5)
    pairs = _pairs(vectors, weights=[1.0, 2.0, 3.0, 4.0, 5.0])
    part = pairs.take([3, 1, 4]).take([2, 0])
    assert part.stored.matrices[0].data_ptr() == vectors.data_ptr()
    assert (part.labels, part.weights) == ((pairs.labels[4], pairs.labels[3]), (5.0, 4.0))
    assert torch.equal(part.vectors, vectors[[4, 3]])
    assert torch.equal(part.gather([1]), vectors[[3]])
    assert len(pairs.take([])) == 0
    assert pairs.take([]).vectors.shape == (0, 32)


# The folder.


def test_a_folder_holds_them(tmp_path, random_vectors):
    settings = dict(
        site=Site.after(3), mean=torch.ones(32), origin={"model": "org/m"}, weights=[1.0, 2.0, 0.5, 1.0, 1.0]
    )
    pairs = _pairs(random_vectors(5), **settings)
    pairs.save(tmp_path / "p")
    again = VectorLabelPairs.load(tmp_path / "p")
    assert torch.equal(again.vectors, pairs.vectors)
    assert torch.equal(again.mean, pairs.mean)
    for name in ("labels", "splits", "weights", "site", "sources", "source_of", "origin"):
        assert getattr(again, name) == getattr(pairs, name)
    assert os.listdir(tmp_path) == ["p"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "p").iterdir()} == {0o644}


def test_safetensors_itself_reads_the_vectors(tmp_path, random_vectors):
    from safetensors.torch import load_file

    _pairs(random_vectors(5), mean=torch.ones(32)).save(tmp_path / "p")
    tensors = load_file(tmp_path / "p" / "vectors.safetensors")
    assert torch.equal(tensors["vectors"], random_vectors(5))
    assert torch.equal(tensors["mean"], torch.ones(32))


def test_a_folder_can_be_saved_over_itself_and_may_be_empty(tmp_path, random_vectors):
    _pairs(random_vectors(5), val_fraction=0.0).save(tmp_path / "p")
    pairs = VectorLabelPairs.load(tmp_path / "p")
    pairs.take([4, 2]).save(tmp_path / "p")
    assert torch.equal(VectorLabelPairs.load(tmp_path / "p").vectors, random_vectors(5)[[4, 2]])
    assert torch.equal(pairs.vectors, random_vectors(5))  # what is open stays readable
    pairs.split("val").save(tmp_path / "p")
    assert (len(VectorLabelPairs.load(tmp_path / "p")), VectorLabelPairs.load(tmp_path / "p").width) == (0, 32)


def test_a_folder_larger_than_memory_is_read_row_by_row(tmp_path, random_vectors):
    n, d = 2**15, 2**19  # 64 GiB, nearly all of it a hole in the file
    labels = [[f"label {i}"] for i in range(n)]
    VectorLabelPairs.from_tensors(torch.ones(n, 1), labels, val_fraction=0.25).save(tmp_path / "p")
    file = tmp_path / "p" / folder.VECTORS
    result = dict(vectors=dict(dtype="F32", shape=[n, d], data_offsets=[0, 4 * n * d]))
    values = random_vectors(3, d)
    with open(file, "wb") as stream:
        stream.write((1016).to_bytes(8, "little") + json.dumps(result).encode().ljust(1016))
        stream.truncate(1024 + 4 * n * d)
        for row, value in zip((0, 12345, n - 1), values):
            stream.seek(1024 + 4 * row * d)
            stream.write(value.numpy().tobytes())
    pairs = VectorLabelPairs.load(tmp_path / "p")
    assert pairs.width == d
    assert torch.equal(pairs.gather([n - 1, 0, 12345]), values[[2, 0, 1]])
    train, val = pairs.split("train"), pairs.split("val")
    assert (len(train), len(val)) == (3 * n // 4, n // 4)
    assert train.stored.matrices[0].data_ptr() == pairs.stored.matrices[0].data_ptr()
    both = VectorLabelPairs.concat([pairs, pairs])
    side = next(x for x in (train, val) if ("label 12345",) in x.labels)
    assert torch.equal(side.gather([side.labels.index(("label 12345",))])[0], values[1])
    assert torch.equal(both.gather([n + 12345])[0], values[1])


def test_writing_from_blocks_is_building_and_saving(tmp_path, random_vectors):
    vectors, labels = random_vectors(10), [*LABELS, *LABELS]
    settings = dict(site=2, mean=torch.ones(32), origin={"model": "m"}, weights=[1.0] * 9 + [2.0], seed=3)
    VectorLabelPairs.from_tensors(vectors, labels, **settings).save(tmp_path / "built")
    blocks = ((vectors[i : i + 4], labels[i : i + 4]) for i in range(0, 10, 4))
    written = VectorLabelPairs.from_batches(tmp_path / "written", blocks, **settings)
    assert torch.equal(written.vectors, vectors)
    for name in (folder.VECTORS, folder.ORIGIN):
        assert (tmp_path / "built" / name).read_bytes() == (tmp_path / "written" / name).read_bytes()
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / x / folder.LABELS) for x in ("built", "written")))


def test_writing_holds_one_block_at_a_time(tmp_path, random_vectors):
    alive = []

    def blocks():
        for i in range(6):
            block = random_vectors(4, seed=i)
            alive.append(weakref.ref(block))
            yield block, ["x"] * 4
            del block
            assert sum(ref() is not None for ref in alive) <= 1

    assert len(VectorLabelPairs.from_batches(tmp_path / "p", blocks())) == 24


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ((torch.ones(2, 31), ["a", "b"]), "expected vectors of width 32, got 31 from row 5 on"),
        ((torch.ones(2, 32), ["a"]), "in the block from row 5 on, got vectors of shape .2, 32. and 1 lists"),
        ((torch.eye(2, 32) - torch.eye(2, 32)[:1], ["a", "b"]), "vector 5 is zero"),
        ((torch.ones(2, 32), ["a", ""]), "vector 6 needs at least one label"),
    ],
)
def test_a_bad_block_leaves_nothing_behind(tmp_path, random_vectors, second, message):
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.from_batches(tmp_path / "p", [(random_vectors(5), LABELS), second])
    with pytest.raises(InterpToolkitError, match="expected at least one block of vectors, got none"):
        VectorLabelPairs.from_batches(tmp_path / "p", [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["vectors.safetensors", "labels.parquet", "origin.json"])
def test_a_damaged_folder_is_refused(tmp_path, random_vectors, name):
    _pairs(random_vectors(5)).save(tmp_path / "p")
    whole = (tmp_path / "p" / name).read_bytes()
    for damaged in (b"{", b"", whole[:-1], whole[: len(whole) // 2]):
        (tmp_path / "p" / name).write_bytes(damaged)
        with pytest.raises(FileFormatError, match="are damaged"):
            VectorLabelPairs.load(tmp_path / "p")
    (tmp_path / "p" / name).unlink()
    with pytest.raises(FileFormatError, match="expected a folder of vector-label pairs"):
        VectorLabelPairs.load(tmp_path / "p")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (folder.VECTORS, "the SHA-256 of the numbers in vectors.safetensors is not the one in its header"),
        (folder.LABELS, "the SHA-256 of labels.parquet is not the one in origin.json"),
        (folder.ORIGIN, "the SHA-256 of origin.json is not the one written in it"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written_is_refused(tmp_path, random_vectors, name, message):
    _pairs(random_vectors(5), site=3).save(tmp_path / "p")
    file = tmp_path / "p" / name
    whole = file.read_bytes()
    at = {folder.VECTORS: len(whole) - 40, folder.LABELS: len(whole) // 2}.get(name, whole.find(b"blocks.3") + 7)
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(FileFormatError, match=f"are damaged: {message}"):
        VectorLabelPairs.load(tmp_path / "p")


def test_a_folder_of_0_1_has_no_digests(tmp_path, random_vectors):
    pairs = _pairs(random_vectors(5))
    pairs.save(tmp_path / "p")
    save_file({"vectors": pairs.vectors}, tmp_path / "p" / folder.VECTORS)
    origin = json.loads((tmp_path / "p" / folder.ORIGIN).read_text())
    origin.pop("sha256")
    (tmp_path / "p" / folder.ORIGIN).write_text(json.dumps(origin))
    assert torch.equal(VectorLabelPairs.load(tmp_path / "p").vectors, pairs.vectors)


def test_parts_that_do_not_belong_together_are_refused(tmp_path, random_vectors):
    _pairs(random_vectors(5)).save(tmp_path / "p")
    _pairs(random_vectors(5), mean=torch.ones(32)).save(tmp_path / "centred")
    _pairs(random_vectors(5)).take([0, 1]).save(tmp_path / "short")
    whole = (tmp_path / "p" / folder.VECTORS).read_bytes()
    for other, message in (("centred", "says centring 'none'"), ("short", "2 vectors, but 5 rows in labels.parquet")):
        (tmp_path / "p" / folder.VECTORS).write_bytes((tmp_path / other / folder.VECTORS).read_bytes())
        with pytest.raises(FileFormatError, match=message):
            VectorLabelPairs.load(tmp_path / "p")
    (tmp_path / "p" / folder.VECTORS).write_bytes(whole)
    (tmp_path / "p" / folder.ORIGIN).write_text("[]")
    with pytest.raises(FileFormatError, match="expected format 'vector_label_pairs_v1'"):
        VectorLabelPairs.load(tmp_path / "p")


# Mixing.


def _source(n, a, random_vectors, **settings):
    """n vectors of ``a`` labels each, a tenth of them held out."""
    name = settings.get("origin", {}).get("source", "x")
    labels = [[f"{name} {i} {k}" for k in range(a)] for i in range(n)]
    return VectorLabelPairs.from_tensors(random_vectors(n, seed=n), labels, **settings)


def test_ratios_are_shares_of_the_examples_of_an_epoch(random_vectors):
    topics = _source(100, 3, random_vectors, site=2, mean=torch.ones(32), origin=dict(source="t", model="org/m"))
    rows = _source(50, 1, random_vectors, origin=dict(source="sae", release="r"))
    mixed = VectorLabelPairs.concat([topics, rows], [3.0, 1.0], seed=5)
    train = mixed.split("train")
    shares = [sum(mixed_of == k for mixed_of in (train.source_of[i] for i, _ in train.examples)) for k in (0, 1)]
    assert shares == [135, 45]  # all 45 of the smaller, three times as many of the larger's 270
    assert len(mixed.split("val")) == 10 + 5
    assert (mixed.site, mixed.origin) == (Site.after(2), dict(source="t + sae", model="org/m", release="r"))
    assert torch.equal(mixed.mean, torch.ones(32))
    assert mixed.sources == (*topics.sources, *rows.sources)
    for i in range(len(mixed)):  # every vector keeps labels of its own, and its side
        own = (topics, rows)[mixed.source_of[i]]
        j = next(j for j, labels in enumerate(own.labels) if mixed.labels[i][0] in labels)
        assert set(mixed.labels[i]) <= set(own.labels[j])
        assert mixed.splits[i] == own.splits[j]
        assert torch.equal(mixed.gather([i]), own.gather([j]))
    half = VectorLabelPairs.concat([topics, rows], [0.75, 0.25], seed=5)
    assert half.labels == mixed.labels  # ratios are normalised
    assert VectorLabelPairs.concat([topics, rows], [3.0, 1.0], seed=6).labels != mixed.labels


def test_without_ratios_all_of_each_source_is_there(random_vectors):
    one, other = _source(20, 2, random_vectors, site=2), _source(10, 1, random_vectors, splits=["val"] * 10)
    both = VectorLabelPairs.concat([one, other])
    assert (both.labels, both.splits) == (one.labels + other.labels, one.splits + other.splits)
    assert torch.equal(both.vectors, torch.cat([one.vectors, other.vectors]))
    assert both.site == Site.after(2)


def test_a_mix_is_saved_and_mixed_again(tmp_path, random_vectors):
    first, second, third = (_source(n, 1, random_vectors, origin=dict(source=str(n))) for n in (20, 30, 40))
    mixed = VectorLabelPairs.concat([VectorLabelPairs.concat([first, second], [1.0, 1.0]), third], [2.0, 1.0])
    assert {mixed.sources[k]["source"] for k in mixed.source_of} == {"20", "30", "40"}
    mixed.save(tmp_path / "p")
    again = VectorLabelPairs.load(tmp_path / "p")
    assert torch.equal(again.vectors, mixed.vectors)
    assert (again.sources, again.source_of, again.labels) == (mixed.sources, mixed.source_of, mixed.labels)


@pytest.mark.parametrize(
    ("settings", "ratio", "message"),
    [
        (dict(site=3), 1.0, "source 0 was read at blocks.2.hook_resid_post, source 1 at blocks.3.hook_resid_post"),
        (dict(mean=torch.zeros(32)), 1.0, "sources 0 and 1 were centred with different means .* carries one mean"),
        (dict(origin=dict(model="org/other")), 1.0, "source 0 is of model 'org/m', source 1 of 'org/other'"),
        (dict(origin=dict(revision="b")), 1.0, "source 0 is of revision 'a', source 1 of 'b'"),
        (dict(), 0.0, "source 1 has ratio 0.0; expected one above 0, or leave it out"),
        (dict(), 1e-6, "source 1 with ratio 1e-06 would give no example to an epoch of 9"),
        (dict(splits=["val"] * 10), 1.0, "source 1 has no training rows to mix"),
    ],
)
def test_sources_that_cannot_be_mixed(random_vectors, settings, ratio, message):
    origin = dict(model="org/m", revision="a")
    one = _source(10, 1, random_vectors, site=2, mean=torch.ones(32), origin=origin)
    with pytest.raises(InterpToolkitError, match=message):
        VectorLabelPairs.concat([one, _source(10, 1, random_vectors, **settings)], [1.0, ratio])


def test_mixing_needs_one_width_and_something_to_mix(random_vectors):
    one = VectorLabelPairs.from_tensors(random_vectors(10), ["x"] * 10)
    with pytest.raises(InterpToolkitError, match=r"vectors of one width to mix, got \[16, 32\]"):
        VectorLabelPairs.concat([one, VectorLabelPairs.from_tensors(random_vectors(10, 16), ["x"] * 10)])
    with pytest.raises(InterpToolkitError, match="at least one source to mix, and a ratio for each, got 0 sources"):
        VectorLabelPairs.concat([])
    with pytest.raises(InterpToolkitError, match="a ratio for each, got 1 sources and 2 ratios"):
        VectorLabelPairs.concat([one], [1.0, 2.0])
    # The same model by another path, and the same mean but for its last bits.
    a = _source(10, 1, random_vectors, mean=torch.ones(32), origin=dict(model="org/M"))
    b = _source(10, 1, random_vectors, mean=torch.ones(32) * (1 + 1e-7), origin=dict(model="/models/m/"))
    assert len(VectorLabelPairs.concat([a, b], [1.0, 1.0])) == 20
