"""Bulk work: what parts hold, whatever is interrupted, shared, damaged or wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from interp_toolkit import ContractError, InterpToolkitError, Sampling, VectorLabelPairs, self_explain
from interp_toolkit.bulk import describe_file, open_vectors, parts, read_descriptions
from interp_toolkit.bulk.parts import Part, parse_shard, run_parts, split_rows
from interp_toolkit.cli import main
from interp_toolkit.errors import FileFormatError


def _write(path, vectors, ids=None, rows_per_group=4):
    """The vectors in a file of the kind that its ending says."""
    if path.suffix == ".npy":
        np.save(path, vectors.numpy())
    elif path.suffix == ".safetensors":
        save_file({"vectors": vectors, "mean": vectors[0].clone()}, path)
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.flatten().numpy()), vectors.shape[1])
        columns = {"vector": lists} | ({} if ids is None else {"id": ids})
        pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
def test_any_rows_of_a_file_are_those_that_were_written(tmp_path, random_vectors, ending):
    vectors = random_vectors(11, 5)
    file = open_vectors(_write(tmp_path / f"some.{ending}", vectors))
    assert (file.rows, file.width) == (11, 5)
    for start, stop in ((0, 11), (0, 1), (3, 4), (4, 8), (2, 9), (7, 11), (10, 11)):
        rows, ids = file.read(start, stop)
        assert torch.equal(rows, vectors[start:stop])
        assert ids is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_are_read_as_float32(tmp_path, random_vectors, dtype):
    save_file({"W_dec": random_vectors(4, 3).to(dtype)}, tmp_path / "sae.safetensors")
    rows, _ = open_vectors(tmp_path / "sae.safetensors").read(0, 4)
    assert torch.equal(rows, random_vectors(4, 3).to(dtype).float())


@pytest.mark.parametrize("length", [2, -1], ids=["fixed", "any"])
def test_a_parquet_file_names_its_rows_and_may_leave_some_out(tmp_path, length):
    rows = [[1.0, 2.0], None, [3.0, 4.0], [5.0, None]]
    table = pa.table({"id": ["a", "b", "c", "d"], "x": pa.array(rows, pa.list_(pa.float32(), length))})
    try:
        pq.write_table(table, tmp_path / "some.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this pyarrow writes no lists of fixed length that are missing")
    got, ids = open_vectors(tmp_path / "some.parquet").read(1, 4)
    assert ids == ["b", "c", "d"]
    assert torch.equal(got.isnan(), torch.tensor([[True, True], [False, False], [False, True]]))
    assert got[1].tolist() == [3.0, 4.0]


def test_a_pairs_folder_is_a_file_of_vectors(tmp_path, random_vectors):
    VectorLabelPairs.from_tensors(random_vectors(3), [["a"], ["b"], ["c"]]).save(tmp_path / "pairs")
    assert torch.equal(open_vectors(tmp_path / "pairs").read(1, 3)[0], random_vectors(3)[1:])


def _bad_files(folder):
    save_file({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, folder / "two.safetensors")
    save_file({"a": torch.ones(2)}, folder / "flat.safetensors")
    save_file({"a": torch.ones(2, 3, dtype=torch.int32)}, folder / "whole.safetensors")
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "objects.npy", np.array([[{}, 1]], dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "text.npy").read_bytes()[:40])
    (folder / "cut.safetensors").write_bytes((folder / "two.safetensors").read_bytes()[:40])
    (folder / "cut.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"x": [[1.0], [1.0, 2.0]]}), folder / "uneven.parquet")
    pq.write_table(pa.table({"x": [1.0, 2.0]}), folder / "flat.parquet")
    (folder / "some.csv").write_text("1,2\n")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("two.safetensors", "expected the name of a tensor in .*two.safetensors, got None; there are: a, b"),
        ("flat.safetensors", "expected a tensor in .*flat.safetensors, and there is none"),
        ("whole.safetensors", r"expected vectors, \[rows, width\], in .*, got shape \[2, 3\] I32"),
        ("text.npy", r"expected vectors, \[rows, width\], in .*, got shape \[1, 2\] <U1"),
        ("objects.npy", "objects.npy is damaged: .*Python objects"),
        ("cut.npy", "cut.npy is damaged: "),
        ("cut.safetensors", "cut.safetensors is damaged: "),
        ("cut.parquet", "cut.parquet is damaged: "),
        ("uneven.parquet", "expected vectors of width 1 in .*uneven.parquet, as that of row 0, got 2 in row 1"),
        ("flat.parquet", "expected a column of lists of numbers in .*flat.parquet, and there is none"),
        (
            "some.csv",
            "expected vectors in a .safetensors, .npy or .parquet file, in a folder of .*, got .*csv$",
        ),
        ("none.npy", "none.npy, where there is nothing"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(tmp_path, file, message):
    _bad_files(tmp_path)
    with pytest.raises(InterpToolkitError, match=message):
        open_vectors(tmp_path / file).read(0, 2)


def test_the_name_of_a_tensor_chooses_it_or_is_refused(tmp_path, random_vectors):
    save_file({"a": random_vectors(2, 3), "b": random_vectors(4, 5)}, tmp_path / "two.safetensors")
    assert torch.equal(open_vectors(tmp_path / "two.safetensors", "b").read(0, 4)[0], random_vectors(4, 5))
    with pytest.raises(InterpToolkitError, match="expected the name of a tensor in .*, got 'c'; there are: a, b"):
        open_vectors(tmp_path / "two.safetensors", "c")
    np.save(tmp_path / "one.npy", np.ones((2, 3), dtype=np.float32))
    with pytest.raises(InterpToolkitError, match="one.npy holds one array, which has no name; leave 'b' out"):
        open_vectors(tmp_path / "one.npy", "b")


def test_damage_in_the_middle_of_a_file_is_named_when_it_is_come_to(tmp_path, random_vectors):
    path = _write(tmp_path / "some.parquet", random_vectors(64, 16), rows_per_group=8)
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(4).column(0).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    file = open_vectors(path)
    assert torch.equal(file.read(0, 32)[0], random_vectors(64, 16)[:32])
    with pytest.raises(FileFormatError, match="some.parquet is damaged: "):
        file.read(30, 40)


def test_a_file_is_described_as_its_vectors_are(tmp_path, tiny, adapter, random_vectors):
    vectors = random_vectors(7)
    path = _write(tmp_path / "some.parquet", vectors, ids=[f"v{i}" for i in range(7)])
    sampling = Sampling(n=2, max_new_tokens=4)
    done = describe_file(path, tmp_path / "out", model=tiny(), adapter=adapter, sampling=sampling, rows_per_part=3)
    assert (done.written, done.there, done.rows) == (3, 0, 7)
    got = read_descriptions(tmp_path / "out")
    wanted = self_explain(vectors, model=tiny(), adapter=adapter, sampling=sampling).to_df()
    assert got["row"].tolist() == [i for i in range(7) for _ in range(2)]
    assert got["id"].tolist() == [f"v{i}" for i in got["row"]]
    assert got["sample"].tolist() == [0, 1] * 7
    assert got["description"].tolist() == wanted["description"].tolist()
    np.testing.assert_allclose(got["evidence"], wanted["evidence"], atol=1e-4)
    assert got["problem"].isna().all()


def test_rows_that_cannot_be_described_have_their_reason(tmp_path, tiny, adapter, random_vectors):
    vectors = random_vectors(5)
    vectors[1], vectors[3, 2], vectors[4, 0] = 0, torch.nan, torch.inf
    path = _write(tmp_path / "some.npy", vectors)
    describe_file(path, tmp_path / "out", model=tiny(), adapter=adapter, rows_per_part=4)
    got = read_descriptions(tmp_path / "out").set_index("row")
    assert got["problem"].dropna().to_dict() == {1: "is zero", 3: "is not finite", 4: "is not finite"}
    assert got.loc[[0, 2], "description"].notna().all()
    assert got.loc[[1, 3, 4], ["description", "evidence"]].isna().all(axis=None)


def test_a_call_goes_on_where_one_was_interrupted(tmp_path, tiny, adapter, random_vectors, monkeypatch):
    path = _write(tmp_path / "some.npy", random_vectors(10))
    arguments = dict(model=tiny(), adapter=adapter, sampling=Sampling(n=2, max_new_tokens=3), rows_per_part=3)
    describe_file(path, tmp_path / "whole", **arguments)
    write, calls = parts._write, []

    def failing(*given):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(given[0]))
        write(*given)

    monkeypatch.setattr(parts, "_write", failing)
    with pytest.raises(OSError, match="No space left"):
        describe_file(path, tmp_path / "out", **arguments)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    with pytest.raises(FileFormatError, match="expected 4 parts in .*out, and 2 are missing, such as part-00002-of"):
        read_descriptions(tmp_path / "out")
    done = describe_file(path, tmp_path / "out", **arguments)
    assert (done.written, done.there) == (2, 2)
    pd.testing.assert_frame_equal(read_descriptions(tmp_path / "out"), read_descriptions(tmp_path / "whole"))
    for one in (tmp_path / "whole").glob("part-*"):
        assert one.read_bytes() == (tmp_path / "out" / one.name).read_bytes()


def test_a_part_that_is_damaged_or_of_other_vectors_is_made_again(tmp_path, tiny, adapter, random_vectors, caplog):
    vectors = random_vectors(9)
    path = _write(tmp_path / "some.npy", vectors)
    arguments = dict(model=tiny(), adapter=adapter, sampling=Sampling(max_new_tokens=3), rows_per_part=3)
    describe_file(path, tmp_path / "out", **arguments)
    before = read_descriptions(tmp_path / "out")
    cut = tmp_path / "out" / "part-00001-of-00003.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="part-00001-of-00003.parquet is damaged: .*delete it and run"):
        read_descriptions(tmp_path / "out")
    assert describe_file(path, tmp_path / "out", **arguments).written == 1
    assert "part-00001-of-00003.parquet is damaged, and is made again" in caplog.text
    pd.testing.assert_frame_equal(read_descriptions(tmp_path / "out"), before)
    vectors[8] *= -1
    _write(path, vectors)
    assert describe_file(path, tmp_path / "out", **arguments).written == 1
    after = read_descriptions(tmp_path / "out")
    pd.testing.assert_frame_equal(after[:8], before[:8])
    assert after["evidence"][8] != before["evidence"][8]


def test_a_folder_of_another_job_or_of_other_files_is_refused(tmp_path, tiny, adapter, random_vectors):
    path = _write(tmp_path / "some.npy", random_vectors(4))
    arguments = dict(model=tiny(), adapter=adapter)
    describe_file(path, tmp_path / "out", **arguments)
    for changed, named in (
        (dict(rows_per_part=2), "parts 1 where this one has 2"),
        (dict(sampling=Sampling(n=2)), "sampling "),
        (dict(centered=False), "centered True where this one has False"),
    ):
        with pytest.raises(InterpToolkitError, match=f"out holds another job, with {named}"):
            describe_file(path, tmp_path / "out", **(arguments | changed))
    with torch.no_grad():
        adapter.bias.add_(1)
    with pytest.raises(InterpToolkitError, match="holds another job, with adapter '"):
        describe_file(path, tmp_path / "out", **arguments)
    with pytest.raises(InterpToolkitError, match="expected an empty folder for a new job, and .* holds some.npy"):
        describe_file(path, tmp_path, **arguments)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(FileFormatError, match="job.json is not the description of a job; choose another folder"):
        describe_file(path, tmp_path, **arguments)
    with pytest.raises(FileFormatError, match="expected the folder of a job, got .*none, which has no job.json"):
        read_descriptions(tmp_path / "none")


def test_vectors_of_another_width_or_model_are_refused_before_any_work(tmp_path, tiny, adapter, random_vectors):
    path = _write(tmp_path / "some.npy", random_vectors(4, 31))
    with pytest.raises(InterpToolkitError, match=r"expected vectors of shape \(n, 32\)"):
        describe_file(path, tmp_path / "out", model=tiny(), adapter=adapter)
    path = _write(tmp_path / "some.npy", random_vectors(4))
    with pytest.raises(ContractError):
        describe_file(path, tmp_path / "out", model=tiny("qwen2"), adapter=adapter)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "text", "shard"),
    [
        ({}, None, (0, 1)),
        ({}, "2/3", (2, 3)),
        (dict(RANK="1", WORLD_SIZE="4"), None, (1, 4)),
        (dict(SLURM_PROCID="3", SLURM_NTASKS="8"), None, (3, 8)),
        (dict(RANK="1", WORLD_SIZE="4"), "0/2", (0, 2)),
    ],
)
def test_a_process_knows_its_share(monkeypatch, environment, text, shard):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/0"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(InterpToolkitError, match=f"expected a shard like 0/4, the first of four, got '{text}'"):
        parse_shard(text)


def _numbers(folder, count, shard=(0, 1), wait=0.0):
    """A job of numbers: each row its square."""

    def make(part, numbers):
        time.sleep(wait)
        (folder / "made").mkdir(exist_ok=True)
        (folder / "made" / f"{part.number} by {os.getpid()}").touch()
        return pd.DataFrame(dict(number=numbers, square=np.square(numbers)))

    def read(part):
        return np.arange(part.start, part.stop), str(part)

    return run_parts(folder / "out", dict(job="squares"), split_rows(count, 5), read, make, shard=shard)


def _together(ready, folder, shard):
    ready.wait()  # on a busy machine one could be done before the other begins
    _numbers(folder, 100, shard, wait=0.05)


@pytest.fixture(scope="module")
def context():
    """Of processes that begin with what takes seconds to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interp_toolkit.bulk", "interp_toolkit.cli"])
    return context


def test_processes_share_the_parts(tmp_path, context):
    ready = context.Barrier(2)
    workers = [context.Process(target=_together, args=(ready, tmp_path, (i, 2))) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    made = [name.split(" by ") for name in os.listdir(tmp_path / "made")]
    assert sorted(int(number) for number, _ in made) == list(range(20))  # each once
    assert len({process for _, process in made}) == 2
    assert parts.read_parts(tmp_path / "out")["square"].tolist() == [i * i for i in range(100)]


def test_parts_that_others_are_at_are_left_to_them(tmp_path):
    _numbers(tmp_path, 5)
    (tmp_path / "out" / "part-00000-of-00001.parquet").unlink()
    code = (
        "import sys, time; from filelock import FileLock\n"
        f"with FileLock({str(tmp_path / 'out' / '.locks' / 'part-00000-of-00001.parquet.lock')!r}):\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert (_numbers(tmp_path, 5).written, _numbers(tmp_path, 5).elsewhere) == (0, 1)
        other.send_signal(signal.SIGKILL)
    assert _numbers(tmp_path, 5).written == 1  # the lock of a dead process is free


def test_a_job_survives_being_killed_at_any_moment(tmp_path, context):
    for i in range(10):
        process = context.Process(target=_numbers, args=(tmp_path, 60), kwargs=dict(wait=0.02))
        process.start()
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if len(list((tmp_path / "out").glob("part-*"))) > i:
                time.sleep(0.005 * i)
                process.kill()
                break
            time.sleep(0.002)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for path in (tmp_path / "out").glob("part-*"):
            pq.read_table(path)  # whole
    _numbers(tmp_path, 60)
    assert parts.read_parts(tmp_path / "out")["square"].tolist() == [i * i for i in range(60)]
    assert not list((tmp_path / "out").glob(".part-*"))


def test_a_full_disk_leaves_nothing_half_written(tmp_path, tiny, adapter, random_vectors, monkeypatch, capsys):
    adapter.save_pretrained(tmp_path / "adapter")
    vectors = _write(tmp_path / "some.npy", random_vectors(6))
    write, calls = pq.write_table, []

    def full(table, where, **options):
        calls.append(1)
        if len(calls) == 2:
            with open(where, "wb") as file:
                file.write(b"half")
            raise OSError(28, "No space left on device", str(where))
        write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    command = ["describe", str(vectors), "--model", tiny().cfg.model_name, "--adapter", str(tmp_path / "adapter")]
    command += ["--output", str(tmp_path / "out"), "--rows-per-part", "2"]
    assert main(command) == 2
    assert "error: No space left on device: " in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").glob("*part*")] == ["part-00000-of-00003.parquet"]
    assert main(command) == 0
    assert read_descriptions(tmp_path / "out")["row"].tolist() == list(range(6))


def test_a_change_of_any_byte_is_seen_when_a_part_is_read(tmp_path):
    _numbers(tmp_path, 5)
    path = tmp_path / "out" / "part-00000-of-00001.parquet"
    whole, frame = path.read_bytes(), parts.read_parts(tmp_path / "out")
    refused = []
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            pd.testing.assert_frame_equal(parts.read_parts(tmp_path / "out"), frame)  # where nothing depends on it
        except FileFormatError as error:
            refused.append(str(error))
    assert all("part-00000-of-00001.parquet is damaged: " in message for message in refused)
    assert len(refused) > len(whole) / 2


def test_the_rows_of_parts():
    assert split_rows(0, 5) == []
    assert split_rows(6, 5) == [Part(0, 2, 0, 5), Part(1, 2, 5, 6)]
