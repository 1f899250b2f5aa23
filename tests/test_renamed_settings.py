"""Settings by their names of version 0.1: in the API, in files, on the command line, in checkpoints and adapters."""

import dataclasses

import pytest
import torch
import yaml

from interp_toolkit import Adapter, InterpToolkitError, Site, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.cli import main
from interp_toolkit.settings import settings_from
from interp_toolkit.shipped import find_adapter
from interp_toolkit.training.recipe import Recipe

OLD = dict(clip=0.25, accumulate=2, show=0, validate_every=3, ridge_start=0.1)
NEW = dict(max_grad_norm=0.25, gradient_accumulation_steps=2, log_samples=0, eval_every=3, ridge_init=0.1)
PAIRS = list(zip(OLD, NEW))


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_api_takes_old_names(old, new):
    with pytest.warns(DeprecationWarning, match=rf"TrainConfig\({old}=...\) is deprecated; use {new}=..."):
        config = TrainConfig(**{old: OLD[old]})
    assert config == TrainConfig(**{new: NEW[new]})
    with pytest.warns(DeprecationWarning, match=rf"TrainConfig\({old}=...\) is deprecated"):
        assert dataclasses.replace(TrainConfig(seed=1), **{old: OLD[old]}) == dataclasses.replace(config, seed=1)
    with pytest.warns(DeprecationWarning, match=rf"TrainConfig\.{old} is deprecated; use {new}"):
        assert getattr(config, old) == OLD[old]


def test_a_name_that_never_was_is_none():
    with pytest.raises(AttributeError, match="'TrainConfig' object has no attribute 'clipp'"):
        _ = TrainConfig().clipp
    with pytest.raises(TypeError, match="unexpected keyword argument 'clipp'"):
        TrainConfig(clipp=1.0)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_files_take_old_names(old, new):
    with pytest.warns(DeprecationWarning, match=f"'{old}' in 'training' is deprecated; use '{new}'"):
        assert settings_from(TrainConfig, {old: OLD[old]}, "'training'") == TrainConfig(**{new: NEW[new]})


def test_a_setting_under_both_names_is_refused():
    with pytest.raises(
        InterpToolkitError, match="'training' has 'max_grad_norm' and its old name 'clip'; leave 'clip'"
    ):
        settings_from(TrainConfig, {"clip": 1.0, "max_grad_norm": 1.0}, "'training'")


def test_a_wrong_value_under_an_old_name_is_refused():
    with pytest.raises(InterpToolkitError, match="expected a whole number for log_samples in 'training', got 1.5"):
        with pytest.warns(DeprecationWarning, match="'show'"):
            settings_from(TrainConfig, {"show": 1.5}, "'training'")


def test_the_command_takes_old_names(tmp_path, monkeypatch, capsys):
    training = dict(validate_every=7)
    described = dict(output="out", adapter=dict(kind="scale"), pairs="p", training=training)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
    seen = []

    def run(self, data, progress):
        seen.append(self.training)
        raise InterpToolkitError("enough seen")

    monkeypatch.setattr(Recipe, "run", run)
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as warned:
        assert main(["train", str(tmp_path / "run.yaml"), "--clip", "0.25", "--accumulate", "2"]) == 2
    assert seen == [TrainConfig(eval_every=7, max_grad_norm=0.25, gradient_accumulation_steps=2)]
    assert sorted(str(x.message) for x in warned) == [
        "'accumulate' in the training settings is deprecated; use 'gradient_accumulation_steps'",
        "'clip' in the training settings is deprecated; use 'max_grad_norm'",
        "'validate_every' in 'training' is deprecated; use 'eval_every'",
    ]
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "--max-grad-norm" in shown
    assert "--clip" not in shown


def test_a_run_that_was_interrupted_under_old_names_goes_on(tiny, random_vectors, tmp_path):
    config = TrainConfig(max_steps=4, batch_size=8, eval_every=2, val_examples=8, log_samples=0)
    splits = ["train"] * 40 + ["val"] * 8
    pairs = VectorLabelPairs.from_tensors(
        random_vectors(48), ["rivers", "a fox"] * 24, splits=splits, site=Site.after(2)
    )
    adapter = Adapter.create("scalar_affine", 32, init_scale=2.0)
    whole = train_adapter(tiny("qwen2"), pairs, adapter, config, folder=tmp_path, progress=False)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    old = {new: old for old, new in PAIRS}
    state["run"]["settings"] = {old.get(key, key): value for key, value in state["run"]["settings"].items()}
    assert "validate_every" in state["run"]["settings"]
    torch.save(state, path)
    again = Adapter.create("scalar_affine", 32, init_scale=2.0)
    result = train_adapter(tiny("qwen2"), pairs, again, config, folder=tmp_path, progress=False)
    assert result.history.equals(whole.history)
    other = dataclasses.replace(config, max_grad_norm=0.1)
    with pytest.raises(InterpToolkitError, match=r"another run \(max_grad_norm: 0\.5 there, 0\.1 here\)"):
        train_adapter(tiny("qwen2"), pairs, again, other, folder=tmp_path, progress=False)


def test_adapters_of_version_0_1_load_with_their_metadata():
    metadata = find_adapter("smollm2_scalar_affine").metadata
    assert (metadata["clip"], metadata["accumulate"], metadata["validate_every"]) == ("0.5", "1", "150")
