import hashlib
import math

import pytest
import torch
import yaml

from interp_toolkit import (
    Adapter,
    FileFormatError,
    InterpToolkitError,
    Site,
    TrainConfig,
    VectorLabelPairs,
    train_adapter,
)
from interp_toolkit.adapters.config import KINDS
from interp_toolkit.runtime import PromptRun
from interp_toolkit.settings import settings_from
from interp_toolkit.training.objective import epoch_batches, loss
from interp_toolkit.training.recipe import Recipe

WORDS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over"]
FAST = TrainConfig(epochs=6, batch_size=8, lr=0.05, validate_every=4, val_examples=8)


def _pairs(random_vectors, n=48):
    """Vectors that tell which word belongs to them: eight directions with a little noise."""
    directions = random_vectors(8, seed=5)
    vectors = directions.repeat(n // 8, 1) + 0.1 * random_vectors(n, seed=6)
    splits = ["val" if i >= n - 8 else "train" for i in range(n)]
    return VectorLabelPairs.build(
        vectors, WORDS * (n // 8), splits=splits, site=Site.after(2), mean=torch.full((32,), 0.5)
    )


def _adapter(kind="scalar_affine_low_rank"):
    return Adapter.create(kind, 32, **({"rank": 8} if "low_rank" in kind else {}), init_scale=2.0)


def _reference_loss(hf, run, adapter, vectors, targets):
    """The loss with nothing shared: whole prompts, Hugging Face's model, logits everywhere."""
    losses = []
    for soft_token, target in zip(adapter(vectors), targets):
        embeddings = hf.get_input_embeddings()(torch.tensor([[*run.tokens.ids, *target]])).clone()
        embeddings[0, list(run.tokens.slots)] = soft_token
        logits = hf(inputs_embeds=embeddings).logits[0, len(run.tokens.ids) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(target)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "identity"])
def test_loss_and_gradients_are_those_of_a_plain_implementation(
    tiny, tiny_hf, tiny_prompt, random_vectors, kind, backend, architecture
):
    run = PromptRun(tiny(architecture, backend), tiny_prompt)
    targets = tiny_prompt.targets(run.model.tokenizer, WORDS)
    vectors, adapter = random_vectors(8), _adapter(kind)
    ours = loss(run, adapter, vectors, targets)
    ours.backward()
    got = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}
    adapter.zero_grad()
    theirs = _reference_loss(tiny_hf(architecture), run, adapter, vectors, targets)
    theirs.backward()
    assert abs(ours.item() - theirs.item()) < 1e-4
    for name, parameter in adapter.named_parameters():
        assert (got[name] - parameter.grad).norm() <= 1e-4 * max(1.0, parameter.grad.norm().item())


def _hash(model):
    hasher = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        hasher.update(name.encode() + value.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def test_training_learns_what_the_vectors_tell_and_changes_nothing_else(tiny, random_vectors, backend):
    model, adapter = tiny("qwen2", backend), _adapter()
    before = _hash(model)
    config = TrainConfig(epochs=40, batch_size=8, lr=0.1, validate_every=20, val_examples=8)
    result = train_adapter(model, _pairs(random_vectors), adapter, config, progress=False)
    assert _hash(model) == before
    assert not any(parameter.grad is not None for parameter in model.parameters())
    first, last = result.history.iloc[0], result.history.iloc[-1]
    assert list(result.history.columns) == ["step", "train_loss", "val_loss", "shuffled_loss", "scale"]
    assert last.val_loss < first.val_loss - 0.2
    assert last.val_loss < last.shuffled_loss - 0.3
    assert result.best_val_loss == result.history.val_loss.min()
    assert result.adapter is adapter
    assert not any(parameter.requires_grad for parameter in adapter.parameters())


def test_the_best_weights_are_kept_and_the_contract_is_whole(tiny, random_vectors, tmp_path):
    model, adapter, pairs = tiny("qwen2"), _adapter(), _pairs(random_vectors)
    result = train_adapter(model, pairs, adapter, FAST, progress=False)
    run = PromptRun(model, adapter.contract.soft_prompt)
    held = pairs.split("val")
    with torch.no_grad():
        targets = run.soft_prompt.targets(model.tokenizer, [x for _, x in held.examples])
        again = loss(run, adapter, held.vectors, targets).item()
    assert again == pytest.approx(result.best_val_loss, abs=1e-5)
    contract = adapter.contract
    assert (contract.site, contract.d_model) == (Site.after(2), 32)
    assert torch.equal(contract.mean, pairs.mean)
    adapter.save(tmp_path / "a")
    assert Adapter.load(tmp_path / "a").metadata["global_step"] == str(result.best_step)


class _Stop(Exception):
    pass


@pytest.mark.parametrize("at", [4, 20])
def test_going_on_equals_not_having_stopped(tiny, random_vectors, tmp_path, monkeypatch, at):
    model, pairs = tiny("qwen2"), _pairs(random_vectors)
    whole = train_adapter(model, pairs, _adapter(), FAST, progress=False)
    from interp_toolkit.training import loop

    real, calls = loop.loss, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == at + 3:
            raise _Stop
        return real(*arguments)

    monkeypatch.setattr(loop, "loss", stopping)
    with pytest.raises(_Stop):
        train_adapter(model, pairs, _adapter(), FAST, checkpoint=tmp_path / "c.pt", progress=False)
    monkeypatch.setattr(loop, "loss", real)
    again = train_adapter(model, pairs, _adapter(), FAST, checkpoint=tmp_path / "c.pt", progress=False)
    assert again.history.equals(whole.history)
    for name, value in whole.adapter.state_dict().items():
        assert torch.equal(again.adapter.state_dict()[name], value)


def test_a_checkpoint_of_another_run_is_refused(tiny, random_vectors, tmp_path):
    model, pairs = tiny("qwen2"), _pairs(random_vectors)
    short = TrainConfig(max_steps=2, batch_size=8, validate_every=1)
    train_adapter(model, pairs, _adapter(), short, checkpoint=tmp_path / "c.pt", progress=False)
    other = TrainConfig(max_steps=3, batch_size=8, validate_every=1)
    with pytest.raises(
        InterpToolkitError, match=r"belongs to a run with other settings \(max_steps: 2 there, 3 here\)"
    ):
        train_adapter(model, pairs, _adapter(), other, checkpoint=tmp_path / "c.pt", progress=False)
    (tmp_path / "c.pt").write_bytes(b"x")
    with pytest.raises(FileFormatError, match="is damaged.*delete it to start anew"):
        train_adapter(model, pairs, _adapter(), short, checkpoint=tmp_path / "c.pt", progress=False)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_good_weights(tiny, random_vectors, monkeypatch):
    from interp_toolkit.training import loop

    real, calls = loop.loss, []

    def breaking(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(loop, "loss", breaking)
    adapter = _adapter()
    with pytest.raises(
        InterpToolkitError, match=r"the loss is nan at step 6; the adapter keeps its weights of step 4; try"
    ):
        train_adapter(tiny("qwen2"), _pairs(random_vectors), adapter, FAST, progress=False)
    assert all(torch.isfinite(parameter).all() for parameter in adapter.parameters())


def test_the_schedule_and_the_groups_of_the_optimiser():
    from interp_toolkit.training.loop import _optimizer, _schedule

    factor = _schedule(total=110, warmup=10)
    assert [round(factor(step), 4) for step in (0, 9, 10, 60, 110)] == [round(1 / 11, 4), round(10 / 11, 4), 1, 0.5, 0]
    groups = _optimizer(_adapter(), TrainConfig(lr=0.01, scale_lr=0.05, matrix_lr=0.003)).param_groups
    told = {tuple(group["params"][0].shape): (group["lr"], group["weight_decay"]) for group in groups}
    assert told == {(1,): (0.05, 0.0), (32,): (0.01, 0.01), (32, 8): (0.003, 0.01)}


def test_every_example_is_seen_once_an_epoch():
    lengths = [i % 7 for i in range(1001)]
    batches = list(epoch_batches(lengths, 8, seed=0, epoch=0))
    assert sorted(i for batch in batches for i in batch) == list(range(1001))
    assert batches == list(epoch_batches(lengths, 8, seed=0, epoch=0))
    assert batches != list(epoch_batches(lengths, 8, seed=0, epoch=1))
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spread) / len(spread) < 2  # of like length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(adapter=Adapter.create("scale", 16)),
            "one width for model, adapter and vectors, got d_model 32, 16 and 32",
        ),
        (dict(adapter=Adapter.create("identity", 32)), "a 'identity' adapter has nothing to train"),
        (dict(splits="train"), "one side has none"),
    ],
)
def test_runs_that_cannot_start(tiny, random_vectors, change, message):
    pairs = _pairs(random_vectors)
    if "splits" in change:
        pairs = VectorLabelPairs.build(pairs.vectors, pairs.labels, splits=["train"] * len(pairs))
    with pytest.raises(InterpToolkitError, match=message):
        train_adapter(tiny("qwen2"), pairs, change.get("adapter", _adapter()), FAST, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1}, "unknown key 'learning_rate' in 'training'; expected some of epochs, batch_size"),
        ({"lr": "1e-3"}, "expected a number for lr in 'training', got '1e-3' .YAML reads 1e-3 as text"),
        ({"lr": 0}, "expected lr above 0"),
        ({"epochs": 1.5}, "expected a whole number for epochs in 'training', got 1.5"),
        ({"epochs": 0}, "expected epochs of at least 1, got 0"),
        ({"max_steps": 0}, "expected max_steps of 0 or more"),
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
        training=dict(batch_size=4, max_steps=3, validate_every=2),
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
    adapter = Adapter.load("out")
    assert adapter.digest == result.adapter.digest
    assert adapter.metadata["train_vectors"] == "16"
    assert str(adapter.contract.site) == "blocks.2.hook_resid_post"
    assert not list(tmp_path.glob("*.checkpoint.pt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(modle="x"), "unknown key 'modle' in the training file; expected some of output, adapter, model"),
        (dict(output=None), "the training file lacks 'output'"),
        (dict(topics=None), "expected either 'topics' or 'pairs'"),
        (dict(pairs="p"), "expected either 'topics' or 'pairs'"),
        (dict(topics=dict(titles="t", place=3, site="hook_embed")), "unknown key 'place' in 'topics'"),
        (dict(topics=dict(titles="t", site="layer 3")), "expected a site such as"),
        (dict(adapter=dict(kind="affine")), "expected an adapter kind of"),
        (dict(adapter="affine"), "expected a mapping for adapter in the training file, got 'affine'"),
        (dict(training=dict(lr="fast")), "expected a number for lr"),
    ],
)
def test_recipes_with_a_mistake_are_refused_before_anything_runs(tmp_path, changes, message):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_recipe("m", **changes)))
    with pytest.raises(InterpToolkitError, match=message):
        Recipe.read(tmp_path / "run.yaml")


def test_recipe_files_that_are_none(tmp_path):
    with pytest.raises(FileFormatError, match="expected a training file at"):
        Recipe.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,")
    with pytest.raises(FileFormatError, match="is not readable YAML"):
        Recipe.read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InterpToolkitError, match="expected a mapping in the training file"):
        Recipe.read(tmp_path / "list.yaml")
