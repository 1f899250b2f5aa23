"""The content-addressed store: what is kept comes back exactly, and what is damaged is made anew."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp_toolkit.cache import JsonCache, TensorCache, cache_folder


def _refuse():
    raise AssertionError("made again, though it was kept")


@pytest.mark.parametrize("value", [[], {}, 0, "", {"a": [1.5, None, "ü", "\U0001f600"], "b": {"c": True}}])
def test_json_values_are_kept(tmp_path, value):
    cache = JsonCache("kind", tmp_path)
    assert cache.load("key") is None
    assert cache.get("key", lambda: value) == value
    assert cache.get("key", _refuse) == value


def test_numbers_that_are_none_are_kept(tmp_path):
    cache = JsonCache("kind", tmp_path)
    cache.save("key", [math.nan, math.inf])
    first, second = cache.get("key", _refuse)
    assert math.isnan(first)
    assert second == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_are_kept_to_the_bit(tmp_path, dtype):
    cache = TensorCache("kind", tmp_path)
    value = {"a": torch.randn(3, 5).mul(100).to(dtype), "b": torch.zeros(0, 4, dtype=dtype)}
    made = cache.get(["key", 1], lambda: value)
    kept = cache.get(["key", 1], _refuse)
    for name in value:
        assert torch.equal(kept[name], value[name])
        assert torch.equal(made[name], value[name])
        assert kept[name].dtype == dtype


@given(data=st.data())
@pytest.mark.parametrize("kind", [JsonCache, TensorCache])
def test_a_damaged_file_is_made_anew(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("cache")
    cache, value = kind("kind", folder), {"numbers": torch.arange(6.0)} if kind is TensorCache else {"numbers": [1, 2]}
    cache.save("key", value)
    content = bytearray(cache.path("key").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    cache.path("key").write_bytes(content)
    kept = cache.load("key")
    # What JSON does not regard, such as the case of an escape, may differ.
    assert kept is None or all(list(kept[name]) == list(value[name]) for name in value)


def test_other_keys_and_kinds_are_other_files(tmp_path):
    paths = [JsonCache(kind, tmp_path).path(key) for kind in ("a", "b") for key in ("k", ["k"], {"k": 1}, {"k": 2})]
    assert len(set(paths)) == len(paths)
    assert JsonCache("a", tmp_path).path({"x": 1, "y": 2}) == JsonCache("a", tmp_path).path({"y": 2, "x": 1})


def test_the_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert JsonCache("kind").path(0).parent == tmp_path / "kind"
