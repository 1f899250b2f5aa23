"""Every reader of JSON says which file is damaged, and where; so do those of settings."""

import gzip
import json

import pytest
import yaml

from interp_toolkit import FileFormatError, InterpToolkitError, VectorLabelPairs, read_topics
from interp_toolkit.bridges.twohop import read_aliases, read_twohop
from interp_toolkit.json_lines import read_json, read_json_lines
from interp_toolkit.results import finished_result
from interp_toolkit.sae import labels as read_labels
from interp_toolkit.sae.passages import read_passages
from interp_toolkit.training.recipe import Recipe

READERS = (read_topics, read_twohop, read_aliases, read_passages, read_labels)


@pytest.mark.parametrize("read", [*READERS, VectorLabelPairs.from_json])
def test_damaged_gzip_is_named(tmp_path, read):
    path = tmp_path / ("x.json.gz" if read == VectorLabelPairs.from_json else "x.jsonl.gz")
    whole = gzip.compress("".join(json.dumps({"title": f"Topic {i * i}"}) + "\n" for i in range(500)).encode())
    damaged = {
        "the stream": whole[:100] + bytes([whole[100] ^ 255]) + whole[101:],  # zlib.error
        "cut off": whole[:-20],  # EOFError
        "the checksum": whole[:-8] + b"\0" * 4 + whole[-4:],  # BadGzipFile
        "no gzip": b"title\n",
        "no UTF-8": gzip.compress(b"\xff\xfe"),
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=str(path)):
            read(path)
    with pytest.raises(FileFormatError, match=str(tmp_path / "none.jsonl")):
        read(tmp_path / "none.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(FileFormatError, match=str(tmp_path / "folder.jsonl")):
        read(tmp_path / "folder.jsonl")


def test_lines_are_read_with_their_names(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('\ufeff{"a": "\\u00e9"}\n\n{"a": 2}\n', encoding="utf-8")
    assert list(read_json_lines(path, "rows")) == [(f"{path}, line 1", {"a": "é"}), (f"{path}, line 3", {"a": 2})]
    for line, why in (("[1]", r"got '\[1\]'"), ("{", "Expecting"), ('{"a": "\\ud800"}', "half of a surrogate pair")):
        path.write_text('{"a": 1}\n' + line + "\n")
        with pytest.raises(FileFormatError, match=rf"x\.jsonl, line 2: expected a row: .*{why}|line 2: .*{why}"):
            list(read_json_lines(path, "rows", "a row"))
    path.write_text("9" * 10_000)
    with pytest.raises(FileFormatError, match=r"x\.jsonl is damaged: expected a number, and it is no JSON"):
        read_json(path, "a number")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(training=dict(lr=float("inf"))), "expected lr to be finite, got inf"),
        (dict(training=dict(lr=10**400)), "expected a number for lr in 'training', got one of 401 digits"),
        (dict(soft_prompt=dict(mode="ad")), "expected 'replace' or 'add' for mode in 'soft_prompt', got 'ad'"),
        (dict(adapter=dict(kind="scale", init_scale=float("inf"))), "expected an init_scale above 0, got inf"),
        (dict(adapter=dict(kind="low_rank", rank=4, low_rank_factor=float("nan"))), "expected a low_rank_factor that"),
        (dict(output=3), "expected a text for output in the training file, got 3"),
    ],
)
def test_settings_are_refused_with_the_name_of_their_file(tmp_path, changes, message):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(dict(output="o", adapter=dict(kind="scale"), pairs="p") | changes))
    with pytest.raises(InterpToolkitError, match=f"{path}: {message}"):
        Recipe.read(path)


@pytest.mark.parametrize(
    "content", ["a: 2001-13-45", "[" * 5000, "a: !!python/object:os.system {}", "? [a]\n: 1", "\0"]
)
def test_yaml_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"run\.yaml is not readable YAML"):
        Recipe.read(path)


def test_a_damaged_result_is_named_and_not_gone_on_from(tmp_path):
    path = tmp_path / "r.json"
    assert finished_result(path, {"n": 1}) is None
    path.write_text('{"settings": {"n": 1}, "tables"')
    with pytest.raises(FileFormatError, match=r"r\.json is damaged"):
        finished_result(path, {"n": 1})
    path.write_text("[]")
    with pytest.raises(FileFormatError, match="expected a results file with settings at .*; move it away or delete it"):
        finished_result(path, {"n": 1})
