"""A run goes on only where all that its numbers depend on is the same; else it is refused, and what differs named."""

import dataclasses
import random

import pytest
import torch
from conftest import crashing

from interp_toolkit import (
    Adapter,
    FileFormatError,
    InterpToolkitError,
    Site,
    TrainConfig,
    VectorLabelPairs,
    load_model,
    train_adapter,
)
from interp_toolkit.pairs.rows import StoredRows
from interp_toolkit.training import loop, run_record

SHORT = TrainConfig(max_steps=4, batch_size=8, lr=0.05, eval_every=2, val_examples=8, log_samples=0)
SITE = Site.after(2)
WORDS = ["rivers", "Poland", "a fox", "baseball"]


def _adapter(seed=0):
    return Adapter.create("scalar_affine_low_rank", 32, rank=8, init_scale=2.0, seed=seed)


def _vectors(seed=0):
    return torch.randn(48, 32, generator=torch.Generator().manual_seed(seed))


def _pairs(vectors=None, labels=None, splits=("train",) * 40 + ("val",) * 8, site=SITE, **settings):
    vectors = _vectors() if vectors is None else vectors
    return VectorLabelPairs.from_tensors(vectors, labels or WORDS * 12, splits=splits, site=site, **settings)


@pytest.fixture
def finished(tiny, tmp_path):
    """A folder with a finished run, and its result."""
    folder = tmp_path / "run"
    return folder, train_adapter(tiny("qwen2"), _pairs(), _adapter(), SHORT, folder=folder, progress=False)


def _one_changed():
    vectors = _vectors()
    vectors[17, 3] += 0.25
    return vectors


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        (dict(vectors=_one_changed()), "vectors: digest"),
        (dict(labels=[*WORDS[::-1], *WORDS * 11]), "labels: digest .*label tokens: digest"),
        (dict(splits=["val"] * 8 + ["train"] * 40), "splits: digest"),
        (dict(weights=[2.0] + [1.0] * 47), "example weights: digest"),
        (dict(site=Site.after(1)), r"site: blocks\.2\.hook_resid_post there, blocks\.1\.hook_resid_post here"),
        (dict(mean=torch.full((32,), 0.5)), "mean: None there, digest"),
    ],
)
def test_other_pairs_are_refused(tiny, finished, pairs, named):
    folder, result = finished
    adapter = _adapter()
    with pytest.raises(InterpToolkitError, match=rf"belongs to another run \({named}.*name another folder, or delete"):
        train_adapter(tiny("qwen2"), _pairs(**pairs), adapter, SHORT, folder=folder, progress=False)
    # What was refused leaves no trace: neither the weights nor the contract of a run.
    assert adapter.digest == _adapter().digest != result.adapter.digest
    assert adapter.contract is None


def test_another_prompt_model_dtype_or_start_is_refused(tiny, finished, checkpoints, tiny_prompt):
    folder, _ = finished

    def again(model, adapter, **settings):
        train_adapter(model, _pairs(), adapter, SHORT, folder=folder, progress=False, **settings)

    elsewhere = tiny_prompt.at("blocks.1.hook_resid_pre")
    with pytest.raises(InterpToolkitError, match=r"soft prompt site: hook_embed there, blocks\.1\.hook_resid_pre here"):
        again(tiny("qwen2"), _adapter(), soft_prompt=elsewhere)
    other = dataclasses.replace(tiny_prompt, template=tiny_prompt.template.replace("meaning", "sense"))
    with pytest.raises(InterpToolkitError, match="soft prompt template: .*meaning.* there, .*sense.* here"):
        again(tiny("qwen2"), _adapter(), soft_prompt=other)
    with pytest.raises(InterpToolkitError, match=r"model weights: digest .*dtype: float32 there, bfloat16 here"):
        again(load_model(checkpoints["qwen2"], dtype="bfloat16"), _adapter())
    with pytest.raises(InterpToolkitError, match=r"\(model weights: digest"):
        again(tiny("llama"), _adapter())
    with pytest.raises(InterpToolkitError, match=r"another run \(adapter's starting weights: digest"):
        again(tiny("qwen2"), _adapter(seed=1))


def test_the_same_run_goes_on_from_files_memory_and_the_trained_adapter(tiny, finished, tmp_path, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(loop, "losses", None)  # nothing is trained again
    _pairs().save(tmp_path / "pairs")
    stored = VectorLabelPairs.load(tmp_path / "pairs")
    # As a notebook's cell does that is run twice: the adapter holds what it was trained to.
    for pairs, adapter in ((stored, _adapter()), (_pairs(), result.adapter)):
        again = train_adapter(tiny("qwen2"), pairs, adapter, SHORT, folder=folder, progress=False)
        assert again.history.equals(result.history)
        assert again.adapter.digest == result.adapter.digest


def test_a_crash_leaves_an_adapter_with_which_the_same_call_goes_on(tiny, tmp_path, monkeypatch):
    model, adapter = tiny("qwen2"), _adapter()
    whole = train_adapter(model, _pairs(), _adapter(), SHORT, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "losses", crashing(loop.losses, 4))
        with pytest.raises(MemoryError):
            train_adapter(model, _pairs(), adapter, SHORT, folder=tmp_path, progress=False)
    again = train_adapter(model, _pairs(), adapter, SHORT, folder=tmp_path, progress=False)
    assert again.history.equals(whole.history)


def test_a_start_by_regression_asks_for_no_starting_weights(tiny, tmp_path):
    config = dataclasses.replace(SHORT, ridge_init=0.03)
    adapters = [Adapter.create("low_rank", 32, rank=4, seed=seed) for seed in (0, 1)]
    results = [train_adapter(tiny("qwen2"), _pairs(), x, config, folder=tmp_path, progress=False) for x in adapters]
    assert results[0].adapter.digest == results[1].adapter.digest


def test_checkpoints_of_version_0_1_are_refused(tiny, finished):
    folder, _ = finished
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["run"] = dict(config=SHORT.to_dict(), adapter=_adapter().config.to_dict())
    torch.save(state, path)
    with pytest.raises(InterpToolkitError, match=r"was written by version 0\.1.*still load.*delete it to start anew"):
        train_adapter(tiny("qwen2"), _pairs(), _adapter(), SHORT, folder=folder, progress=False)


def test_a_checkpoint_that_lacks_a_part_is_damaged(tiny, finished):
    folder, _ = finished
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for key in ("run", "weights", "optimizer", "schedule", "best", "progress"):
        torch.save(state | {key: {}}, path)
        with pytest.raises(FileFormatError, match="is damaged.*delete it to start anew"):
            train_adapter(tiny("qwen2"), _pairs(), _adapter(), SHORT, folder=folder, progress=False)


def test_a_checkpoint_with_flipped_bits_is_damaged(tiny, finished):
    folder, result = finished
    path = folder / "checkpoint.pt"
    whole = path.read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            again = train_adapter(tiny("qwen2"), _pairs(), _adapter(), SHORT, folder=folder, progress=False)
        except FileFormatError:
            refused += 1
        else:  # only where nothing that is read was hit
            assert again.adapter.digest == result.adapter.digest
            assert again.history.equals(result.history)
    assert refused >= 10


def test_the_digest_of_many_vectors_reads_rows_all_over_and_no_more_than_its_share(monkeypatch):
    vectors = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    whole = run_record.digest_of_rows(StoredRows.from_matrix(vectors))
    assert whole == run_record.digest_of_rows(StoredRows.from_matrix(vectors.clone()))
    assert whole != run_record.digest_of_rows(StoredRows.from_matrix(vectors.flip(0)))
    monkeypatch.setattr(run_record, "_VALUES", 800)
    read = []
    real = StoredRows.gather
    monkeypatch.setattr(StoredRows, "gather", lambda self, rows: read.append(len(rows)) or real(self, rows))
    some = run_record.digest_of_rows(StoredRows.from_matrix(vectors))
    assert sum(read) == 100
    for row in (0, 999):
        changed = vectors.clone()
        changed[row] += 1
        assert run_record.digest_of_rows(StoredRows.from_matrix(changed)) != some
