"""What a training run leaves on disk and tells: checkpoints, logs, recipes."""

import dataclasses
import io
import json
import math
import signal
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from conftest import crashing

from interp_toolkit import (
    Adapter,
    FileFormatError,
    InterpToolkitError,
    Site,
    TrainConfig,
    VectorLabelPairs,
    train_adapter,
)
from interp_toolkit.cli import main
from interp_toolkit.settings import settings_from
from interp_toolkit.training import TrainingInterrupted, loop
from interp_toolkit.training.recipe import Recipe

FAST = TrainConfig(epochs=3, batch_size=8, lr=0.05, eval_every=4, val_examples=8, log_samples=2)


@pytest.fixture
def pairs(random_vectors):
    words = ["rivers", "Poland", "a fox", "baseball"]
    splits = ["train"] * 40 + ["val"] * 8
    return VectorLabelPairs.from_tensors(random_vectors(48), words * 12, splits=splits, site=Site.after(2))


def _adapter():
    return Adapter.create("scalar_affine_low_rank", 32, rank=8, init_scale=2.0)


def _interrupted(monkeypatch, at):
    """Ctrl-C during the loss of step ``at``."""
    real, calls = loop.losses, []

    def pressing(*arguments):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "losses", pressing)


@pytest.mark.parametrize("at", [6, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 8, 14))])
def test_going_on_after_ctrl_c_equals_not_having_stopped(tiny, pairs, tmp_path, monkeypatch, at):
    model, handler = tiny("qwen2"), signal.getsignal(signal.SIGINT)
    whole = train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _interrupted(patch, at)
        message = f"interrupted after step {at} of 15; all is saved in .*: the same call or command goes on from there"
        with pytest.raises(TrainingInterrupted, match=message):
            train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path / "cut", progress=False)
    again = train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path / "cut", progress=False)
    assert again.history.equals(whole.history)
    for one, other in ((again.adapter, whole.adapter), (again.last, whole.last)):
        assert one.digest == other.digest
    result = [_events(tmp_path / name, "step") for name in ("cut", "whole")]
    for rows in result:
        for row in rows:
            row.pop("pairs_per_second")
    assert result[0] == result[1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_without_a_folder_says_that_nothing_is_saved(tiny, pairs, monkeypatch):
    _interrupted(monkeypatch, 2)
    adapter = _adapter()
    with pytest.raises(TrainingInterrupted, match="after step 2 of 15; nothing was saved: name a folder"):
        train_adapter(tiny("qwen2"), pairs, adapter, FAST, progress=False)
    assert adapter.digest == _adapter().digest


@pytest.mark.parametrize("max_steps", [4, 5, 7, None])
def test_the_bar_ends_at_its_total(tiny, pairs, monkeypatch, max_steps):
    bars = []

    class Bar(loop.tqdm):
        def __init__(self, **settings):
            super().__init__(**{**settings, "disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(loop, "tqdm", Bar)
    settings = dataclasses.replace(FAST, batch_size=7, max_steps=max_steps, log_samples=0)
    train_adapter(tiny("qwen2"), pairs, _adapter(), settings, progress=False)
    assert [bar.n for bar in bars] == [bar.total for bar in bars]
    assert bars


@pytest.mark.slow
def test_a_crash_goes_on_from_the_last_validation(tiny, pairs, tmp_path, monkeypatch):
    model = tiny("qwen2")
    whole = train_adapter(model, pairs, _adapter(), FAST, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "losses", crashing(loop.losses, 11))
        with pytest.raises(MemoryError):
            train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path, progress=False)
    # A line that the crash cut off is no event.
    with open(tmp_path / "log.jsonl", "a") as stream:
        stream.write('{"event": "st')
    again = train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path, progress=False)
    assert again.history.equals(whole.history)
    assert [row["step"] for row in _events(tmp_path, "step")] == list(range(1, 16))
    # A run that is finished is not done again.
    monkeypatch.setattr(loop, "losses", None)
    assert train_adapter(model, pairs, _adapter(), FAST, folder=tmp_path, progress=False).history.equals(whole.history)


def _events(folder, kind):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == kind]


def test_the_log_tells_the_run(tiny, pairs, tmp_path):
    result = train_adapter(tiny("qwen2"), pairs, _adapter(), FAST, folder=tmp_path, progress=False)
    (start,) = _events(tmp_path, "start")
    assert (start["dtype"], start["train_examples"], start["steps"]) == ("torch.float32", 40, 15)
    assert isinstance(start["fast_bfloat16"], bool)
    assert settings_from(TrainConfig, start["config"], "the log") == FAST
    steps = _events(tmp_path, "step")
    assert [row["step"] for row in steps] == list(range(1, 16))
    assert all(math.isfinite(row[key]) for row in steps for key in ("loss", "gradient_norm", "lr"))
    output = _events(tmp_path, "validation")
    assert [row["val_loss"] for row in output] == result.history.val_loss.tolist()
    assert [shown["label"] for shown in output[0]["descriptions"]] == ["rivers", "Poland"]
    assert all(isinstance(shown["description"], str) for shown in output[0]["descriptions"])
    (end,) = _events(tmp_path, "end")
    assert end["best_val_loss"] == result.best_val_loss


def test_provenance_may_have_the_name_of_a_setting(tiny, random_vectors):
    # The metadata of a published file is the user's, and may hold anything.
    made = VectorLabelPairs.from_tensors(
        random_vectors(48), ["rivers"] * 48, origin={"seed": "7", "dtype": "x", "who": "me"}
    )
    metadata = train_adapter(tiny("qwen2"), made, _adapter(), FAST, progress=False).adapter.metadata
    assert (metadata["seed"], metadata["dtype"], metadata["who"]) == ("0", "torch.float32", "me")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_the_numbers(tiny, pairs, tmp_path, monkeypatch, name):
    logged = []
    tracker = types.SimpleNamespace(
        init=lambda **facts: logged.append(facts),
        log=lambda values, step: logged.append((step, values)),
        finish=lambda: logged.append("finished"),
    )
    monkeypatch.setitem(sys.modules, name, tracker)
    config = dataclasses.replace(FAST, tracker=name, max_steps=4)
    result = train_adapter(tiny("qwen2"), pairs, _adapter(), config, folder=tmp_path / "run", progress=False)
    assert (logged[0]["project"], logged[0]["name"]) == ("interp-toolkit", "run")
    assert [step for step, values in logged[1:-1] if "step/loss" in values] == [1, 2, 3, 4]
    assert (4, result.best_val_loss) in [(step, values.get("validation/val_loss")) for step, values in logged[1:-1]]
    assert logged[-1] == "finished"


def test_a_tracker_that_is_not_installed_is_named(tiny, pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    config = dataclasses.replace(FAST, tracker="trackio")
    with pytest.raises(InterpToolkitError, match="tracker 'trackio' is not installed: pip install trackio"):
        train_adapter(tiny("qwen2"), pairs, _adapter(), config, progress=False)


def test_the_bar_shows_loss_rate_and_descriptions(tiny, pairs, capsys):
    train_adapter(tiny("qwen2"), pairs, _adapter(), FAST)
    out, err = capsys.readouterr()
    assert out == ""
    assert "120/120" in err
    assert "pair/s" in err or "s/pair" in err
    assert "step 15: validation loss" in err
    assert "rivers -> " in err


def test_a_checkpoint_of_another_run_is_refused(tiny, pairs, tmp_path):
    model = tiny("qwen2")
    short = TrainConfig(max_steps=2, batch_size=8, eval_every=1, log_samples=0)
    train_adapter(model, pairs, _adapter(), short, folder=tmp_path, progress=False)
    other = dataclasses.replace(short, max_steps=3)
    with pytest.raises(InterpToolkitError, match=r"belongs to another run \(max_steps: 2 there, 3 here\)"):
        train_adapter(model, pairs, _adapter(), other, folder=tmp_path, progress=False)
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(FileFormatError, match="is damaged.*delete it to start anew"):
        train_adapter(model, pairs, _adapter(), short, folder=tmp_path, progress=False)


# Settings.


def test_every_setting_is_described():
    result = TrainConfig.describe()
    assert list(result) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert result["epochs"] == "passes over all (vector, label) examples."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1}, "unknown key 'learning_rate' in 'training'; expected some of epochs, batch_size"),
        ({"lr": "1e-3"}, "expected a number for lr in 'training', got '1e-3' .YAML reads 1e-3 as text"),
        ({"lr": 0}, "expected lr above 0"),
        ({"epochs": 1.5}, "expected a whole number for epochs in 'training', got 1.5"),
        ({"epochs": 0}, "expected epochs of at least 1, got 0"),
        ({"max_steps": 0}, "expected max_steps of at least 1, got 0"),
        ({"label_smoothing": 1.0}, "expected label_smoothing from 0 up to 1, got 1.0"),
        ({"tracker": "mlflow"}, "expected tracker wandb or trackio, got 'mlflow'"),
        ({"frozen": "bias"}, "expected a list for frozen in 'training', got 'bias'"),
    ],
)
def test_settings_that_make_no_run(settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        settings_from(TrainConfig, settings, "'training'")


# Recipes.


def _recipe(folder, **changes):
    described = dict(
        model=str(folder),
        topics=dict(titles="titles.txt", site="blocks.2.hook_resid_post", val=4),
        adapter=dict(kind="scalar_affine"),
        training=dict(batch_size=4, max_steps=3, eval_every=2, log_samples=1),
        output="out",
    )
    described.update(changes)
    return {key: value for key, value in described.items() if value is not None}


def test_a_yaml_file_makes_an_adapter(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"])))
    result = Recipe.read("run.yaml").run(progress=False)
    adapter = Adapter.from_pretrained("out/best")
    assert adapter.digest == result.adapter.digest
    assert adapter.metadata["train_vectors"] == "16"
    assert str(adapter.contract.site) == "blocks.2.hook_resid_post"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["best", "checkpoint.pt", "last", "log.jsonl"]


def test_the_command_trains_with_settings_of_its_own(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"])))
    command = ["train", "run.yaml", "--max-steps", "2", "--frozen", "log_scale", "--lr", "0.5"]
    with monkeypatch.context() as patch:
        _interrupted(patch, 1)
        assert main(command) == 130
    assert "interp-toolkit: training was interrupted after step 1 of 2; all is saved in out" in capsys.readouterr().err
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("best: validation loss ")
    assert out[1].endswith(", in out/last")
    metadata = Adapter.from_pretrained("out/last").metadata
    assert (metadata["global_step"], metadata["lr"], metadata["frozen"]) == ("2", "0.5", "['log_scale']")


def test_a_recipe_starts_from_an_adapter(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    still = dict(batch_size=4, max_steps=1, lr=1e-12, log_samples=0)

    def run(kind, output, **changes):
        described = _recipe(checkpoints["llama"], adapter=kind, output=output, training=still, **changes)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
        return Recipe.read("run.yaml").run(progress=False)

    full = run(dict(kind="full_rank"), "full").adapter
    again = run(dict(kind="full_rank"), "again", start="full/best").adapter
    assert torch.allclose(again.weight, full.weight, atol=1e-9)
    assert again.metadata["start"] == full.digest
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    # All the rank there is: nothing is lost. With less, the soft tokens stay nearer than without any vector.
    low = run(dict(kind="low_rank", rank=32), "low", start="full/best").adapter
    few = run(dict(kind="low_rank", rank=4), "few", start="full/best").adapter
    assert torch.allclose(low(vectors), full(vectors), atol=1e-3)
    assert 1e-2 < (few(vectors) - full(vectors)).norm() < (full.null() - full(vectors)).norm()
    with pytest.raises(InterpToolkitError, match=r"adapter of AdapterConfig\(kind='scale'.*to start from, got one of"):
        run(dict(kind="scale"), "other", start="full/best")
    elsewhere = dict(titles="titles.txt", site="blocks.1.hook_resid_post", val=4)
    with pytest.raises(InterpToolkitError, match=r"of blocks\.1\.hook_resid_post to start from, got one of blocks\.2"):
        run(dict(kind="full_rank"), "other", start="full/best", topics=elsewhere)


def test_a_recipe_takes_descriptions_as_further_labels(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    rows = [
        dict(title=f"Topic {i}", descriptions=[f"thing {i}", f"matter {i}"], split="val" if i % 5 == 0 else "train")
        for i in range(20)
    ]
    (tmp_path / "titles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    topics = dict(titles="titles.jsonl", site="blocks.2.hook_resid_post", train=10, val=4, labels=2)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"], topics=topics)))
    metadata = Recipe.read("run.yaml").run(progress=False).adapter.metadata
    assert (metadata["train_vectors"], metadata["train_examples"]) == ("10", "20")
    too_many = dict(topics, train=17)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"], topics=too_many, output="other")))
    with pytest.raises(InterpToolkitError, match=r"expected 17 train titles in titles\.jsonl, got 16"):
        Recipe.read("run.yaml").run(progress=False)


def test_a_recipe_validates_on_training_titles_where_asked(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    seen = {}

    class Seen(Exception):
        pass

    def stand_in(model, titles, site, labels, splits, chat, progress):
        seen.update(zip(titles, splits))
        raise Seen

    monkeypatch.setattr("interp_toolkit.training.recipe.topic_pairs", stand_in)
    rows = [dict(title=f"Topic {i}", split="val" if i % 5 == 0 else "train") for i in range(20)]
    (tmp_path / "titles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    topics = dict(titles="titles.jsonl", site=2, dev=5)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"], topics=topics)))
    with pytest.raises(Seen):
        Recipe.read("run.yaml").run(progress=False)
    assert sorted(seen.values()) == ["train"] * 11 + ["val"] * 5
    assert set(seen) == {row["title"] for row in rows if row["split"] == "train"}


def test_a_recipe_names_the_soft_prompt(checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    prompt = dict(question="What is this?", answer='"{slot}" means "', site="blocks.1.hook_resid_pre", mode="add")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe(checkpoints["llama"], soft_prompt=prompt)))
    result = Recipe.read("run.yaml").run(progress=False).adapter.contract.soft_prompt
    assert result.template.count(result.marker) == 1
    assert (str(result.site), result.mode) == ("blocks.1.hook_resid_pre", "add")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(modle="x"), "unknown key 'modle' in the training file; expected some of output, adapter, model"),
        (dict(output=None), "the training file lacks 'output'"),
        (dict(topics=None), "expected either 'topics' or 'pairs'"),
        (dict(pairs="p"), "expected either 'topics' or 'pairs'"),
        (dict(topics=dict(titles="t", place=3, site="hook_embed")), "unknown key 'place' in 'topics'"),
        (dict(topics=dict(titles="t", site="layer 3")), "expected a site such as"),
        (
            dict(topics=dict(titles="t", site="hook_embed", labels=0)),
            "expected labels of at least 1 in 'topics', got 0",
        ),
        (dict(adapter=dict(kind="affine")), "expected an adapter kind of"),
        (dict(adapter="affine"), "expected a mapping for adapter in the training file, got 'affine'"),
        (dict(training=dict(lr="fast")), "expected a number for lr"),
        (dict(soft_prompt=dict(preset="llama-4")), "expected a soft-prompt preset of llama-3.1, qwen2.5"),
        (dict(soft_prompt=dict(wording="x")), "unknown key 'wording' in 'soft_prompt'"),
    ],
)
def test_recipes_with_a_mistake_are_refused_before_anything_runs(tmp_path, changes, message):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe("m", **changes)))
    with pytest.raises(InterpToolkitError, match=message):
        Recipe.read(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "smollm2_scalar_affine",
        "smollm2_four_layers",
        "smollm2_four_layers_full_rank",
        "smollm2_rank64",
        "llama31_8b",
        "gemma2_9b",
        "qwen25_7b",
        "llama31_70b",
        "qwen25_72b",
    ],
)
def test_the_committed_recipes_are_whole(name):
    recipe = Recipe.read(Path(__file__).parent.parent / "benchmarks" / "configs" / f"{name}.yaml")
    assert recipe.output.startswith("runs/")
    assert (recipe.topics is None) == recipe.shard == (recipe.pairs is not None)


def test_a_model_that_is_shared_out_takes_vectors_that_were_read_before(tmp_path, checkpoints):
    text = f"model: {checkpoints['llama']}\noutput: {tmp_path / 'run'}\nadapter: {{kind: scale}}\nshard: true\n"
    (tmp_path / "topics.yaml").write_text(text + "topics: {titles: titles.jsonl, site: 2}\n")
    with pytest.raises(InterpToolkitError, match="expected 'pairs' with 'shard', a folder of vectors"):
        Recipe.read(tmp_path / "topics.yaml")
    VectorLabelPairs.from_tensors(torch.randn(8, 32), list("abcdefgh"), site=2).save(tmp_path / "pairs")
    (tmp_path / "alone.yaml").write_text(text + "pairs: pairs\n")
    with pytest.raises(InterpToolkitError, match="expected several processes, .* torchrun --nproc-per-node N"):
        Recipe.read(tmp_path / "alone.yaml").run(tmp_path)


def test_recipe_files_that_are_none(tmp_path):
    with pytest.raises(FileFormatError, match="expected a training file at"):
        Recipe.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,")
    with pytest.raises(FileFormatError, match="is not readable YAML"):
        Recipe.read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InterpToolkitError, match="expected a mapping in the training file"):
        Recipe.read(tmp_path / "list.yaml")
