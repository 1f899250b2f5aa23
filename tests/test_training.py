import dataclasses
import hashlib
import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from interp_toolkit import Adapter, InterpToolkitError, Site, TrainConfig, VectorLabelPairs, load_model, train_adapter
from interp_toolkit.adapters.kinds import KINDS
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training.examples import epoch_batches
from interp_toolkit.training.objective import losses
from interp_toolkit.training.optimizer import make_optimizer, make_schedule

WORDS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over"]
FAST = TrainConfig(epochs=6, batch_size=8, lr=0.05, eval_every=4, val_examples=8, log_samples=0)


def _pairs(random_vectors, n=48, **settings):
    """Vectors that tell which word belongs to them: eight directions with a little noise."""
    directions = random_vectors(8, seed=5)
    vectors = directions.repeat(n // 8, 1) + 0.1 * random_vectors(n, seed=6)
    splits = ["val" if i >= n - 8 else "train" for i in range(n)]
    return VectorLabelPairs.from_tensors(
        vectors, WORDS * (n // 8), splits=splits, site=Site.after(2), mean=torch.full((32,), 0.5), **settings
    )


def _adapter(kind="scalar_affine_low_rank"):
    return Adapter.create(kind, 32, **({"rank": 8} if "low_rank" in kind else {}), init_scale=2.0)


def _reference_losses(hf, run, adapter, vectors, targets, smoothing=0.0, most=math.inf):
    """The losses with nothing shared: whole prompts, Hugging Face's model, logits everywhere."""
    result = []
    for soft_token, target in zip(adapter(vectors), targets):
        embeddings = hf.get_input_embeddings()(torch.tensor([[*run.tokens.ids, *target]])).clone()
        embeddings[0, list(run.tokens.slots)] = soft_token
        logits = hf(inputs_embeds=embeddings).logits[0, len(run.tokens.ids) - 1 : -1]
        item = torch.nn.functional.cross_entropy(
            logits, torch.tensor(target), reduction="none", label_smoothing=smoothing
        )
        result.append(item.clamp(max=most).mean())
    return torch.stack(result)


def _gradients(adapter, value):
    adapter.zero_grad()
    value.backward()
    return {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}


def _assert_close(ours, theirs, tolerance=1e-4):
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= tolerance * max(1.0, gradient.norm().item()), name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "identity"])
def test_loss_and_gradients_are_those_of_a_plain_implementation(
    tiny, tiny_hf, tiny_prompt, random_vectors, kind, backend, architecture
):
    run = PromptRun(tiny(architecture, backend), tiny_prompt)
    targets = tiny_prompt.targets(run.model.tokenizer, WORDS)
    vectors, adapter = random_vectors(8), _adapter(kind)
    ours = losses(run, adapter, vectors, targets)
    theirs = _reference_losses(tiny_hf(architecture), run, adapter, vectors, targets)
    assert torch.allclose(ours, theirs, atol=1e-4)
    got = _gradients(adapter, ours.mean())
    _assert_close(got, _gradients(adapter, theirs.mean()))
    # In another order of the batch, the same.
    order = [3, 0, 7, 6, 1, 5, 2, 4]
    again = losses(run, adapter, vectors[order], [targets[i] for i in order])
    assert torch.allclose(again, ours[order], atol=1e-5)
    _assert_close(_gradients(adapter, again.mean()), got)


@pytest.mark.parametrize(("smoothing", "most"), [(0.1, math.inf), (0.0, 4.0), (0.2, 5.0)])
def test_smoothing_and_clamp_are_those_of_a_plain_implementation(
    tiny, tiny_hf, tiny_prompt, random_vectors, backend, smoothing, most
):
    run = PromptRun(tiny("llama", backend), tiny_prompt)
    targets = tiny_prompt.targets(run.model.tokenizer, WORDS)
    vectors, adapter = random_vectors(8), _adapter()
    ours = losses(run, adapter, vectors, targets, smoothing, most)
    theirs = _reference_losses(tiny_hf("llama"), run, adapter, vectors, targets, smoothing, most)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, losses(run, adapter, vectors, targets), atol=1e-2)
    _assert_close(_gradients(adapter, ours.mean()), _gradients(adapter, theirs.mean()))


@pytest.mark.parametrize("site", ["hook_embed", "blocks.1.hook_resid_pre"])
def test_gradient_checkpointing_changes_memory_and_nothing_else(
    tiny, tiny_prompt, random_vectors, backend, architecture, site
):
    model, vectors, actual = tiny(architecture, backend), random_vectors(8), []
    for recompute in (False, True):
        run, adapter = PromptRun(model, tiny_prompt.at(site), recompute), _adapter()
        targets = tiny_prompt.targets(model.tokenizer, WORDS)
        held: dict[int, int] = {}

        def keep(tensor, held=held):
            held[tensor.data_ptr()] = tensor.numel()
            return tensor

        run.past  # noqa: B018 - run once, before what is measured
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            value = losses(run, adapter, vectors, targets).mean()
        actual.append((value.item(), _gradients(adapter, value), sum(held.values())))
    (plain, plain_gradients, plain_size), (value, gradients, size) = actual
    assert value == pytest.approx(plain, abs=1e-6)
    _assert_close(gradients, plain_gradients, 1e-5)
    assert size < 0.6 * plain_size


def _hash(model):
    hasher = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        hasher.update(name.encode() + value.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def test_training_learns_what_the_vectors_tell_and_changes_nothing_else(tiny, random_vectors, backend):
    model, adapter = tiny("qwen2", backend), _adapter()
    before, start = _hash(model), adapter.digest
    flags = [(module.training, [p.requires_grad for p in module.parameters(False)]) for module in model.modules()]
    config = TrainConfig(epochs=40, batch_size=8, lr=0.1, eval_every=20, val_examples=8, log_samples=0)
    result = train_adapter(model, _pairs(random_vectors), adapter, config, progress=False)
    assert _hash(model) == before
    assert not any(parameter.grad is not None for parameter in model.parameters())
    first, last = result.history.iloc[0], result.history.iloc[-1]
    assert list(result.history.columns) == ["step", "train_loss", "val_loss", "shuffled_loss", "scale"]
    assert last.val_loss < first.val_loss - 0.2
    assert last.val_loss < last.shuffled_loss - 0.3
    assert result.best_val_loss == result.history.val_loss.min()
    after = [(module.training, [p.requires_grad for p in module.parameters(False)]) for module in model.modules()]
    assert after == flags
    # The adapter given is where training starts, and stays there.
    assert (adapter.digest, adapter.contract, adapter.metadata) == (start, None, _adapter().metadata)
    assert adapter.training == _adapter().training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in adapter.parameters())
    for trained in (result.adapter, result.last):
        assert trained.digest != start
        assert not trained.training
        assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_the_best_weights_are_kept_and_the_contract_is_whole(tiny, random_vectors, tmp_path):
    model, pairs = tiny("qwen2"), _pairs(random_vectors)
    result = train_adapter(model, pairs, _adapter(), FAST, progress=False)
    adapter = result.adapter
    run = PromptRun(model, adapter.contract.soft_prompt)
    held = pairs.split("val")
    with torch.no_grad():
        targets = run.soft_prompt.targets(model.tokenizer, [x for _, x in held.examples])
        again = losses(run, adapter, held.vectors, targets).mean().item()
    assert again == pytest.approx(result.best_val_loss, abs=1e-5)
    contract = adapter.contract
    assert (contract.site, contract.d_model) == (Site.after(2), 32)
    assert torch.equal(contract.mean, pairs.mean)
    adapter.save_pretrained(tmp_path / "a")
    assert Adapter.from_pretrained(tmp_path / "a").metadata["global_step"] == str(result.best_step)


def test_best_and_last_are_both_kept_with_their_losses(tiny, random_vectors, tmp_path):
    # Vectors that tell nothing are learnt by heart, and what comes last is not the best.
    model = tiny("qwen2")
    pairs = VectorLabelPairs.from_tensors(random_vectors(48), WORDS * 6, splits=["train"] * 40 + ["val"] * 8)
    config = dataclasses.replace(FAST, epochs=12, lr=0.1)
    result = train_adapter(model, pairs, _adapter(), config, folder=tmp_path, progress=False)
    held = pairs.split("val")
    for name, step, shown in (
        ("best", result.best_step, result.best_val_loss),
        ("last", 60, result.last_val_loss),
    ):
        adapter = Adapter.from_pretrained(tmp_path / name)
        assert adapter.metadata["global_step"] == str(step)
        assert float(adapter.metadata["val_loss"]) == pytest.approx(shown, abs=1e-5)
        run = PromptRun(model, adapter.contract.soft_prompt)
        targets = run.soft_prompt.targets(model.tokenizer, [label for _, label in held.examples])
        assert losses(run, adapter, held.vectors, targets).mean().item() == pytest.approx(shown, abs=1e-4)
    assert result.best_step < 60
    assert result.best_val_loss < result.last_val_loss


@pytest.mark.slow
def test_eight_parts_of_a_batch_are_one_batch(tiny, random_vectors, backend):
    model, pairs = tiny("qwen2", backend), _pairs(random_vectors, weights=[1.0, 0.5, 2.0, 1.0] * 12)
    whole, parts = (
        train_adapter(
            model, pairs, _adapter(), dataclasses.replace(FAST, gradient_accumulation_steps=n), progress=False
        )
        for n in (1, 8)
    )
    assert (whole.history - parts.history).abs().max().max() < 1e-4
    for name, value in whole.last.state_dict().items():
        assert (parts.last.state_dict()[name] - value).abs().max() < 1e-4


def test_a_weight_of_two_is_the_example_twice(tiny, random_vectors):
    pairs = _pairs(random_vectors, 16)
    twice = VectorLabelPairs.from_tensors(
        torch.cat([pairs.vectors, pairs.vectors[:1]]),
        [*pairs.labels, pairs.labels[0]],
        splits=[*pairs.splits, "train"],
    )
    heavy = VectorLabelPairs.from_tensors(pairs.vectors, pairs.labels, splits=pairs.splits, weights=[2.0] + [1.0] * 15)
    config = dataclasses.replace(FAST, batch_size=16, max_steps=1, warmup_steps=0, eval_every=1)
    results = [train_adapter(tiny("qwen2"), x, _adapter(), config, progress=False) for x in (twice, heavy)]
    for name, value in results[0].last.state_dict().items():
        assert torch.allclose(results[1].last.state_dict()[name], value, atol=1e-5), name


@pytest.mark.parametrize("frozen", [("log_scale", "U", "V"), ("bias",)])
def test_frozen_parts_keep_their_start(tiny, random_vectors, frozen):
    start, config = _adapter().state_dict(), dataclasses.replace(FAST, frozen=frozen, epochs=1)
    adapter = train_adapter(tiny("qwen2"), _pairs(random_vectors), _adapter(), config, progress=False).adapter
    moved = {name for name, value in adapter.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"log_scale", "bias", "U", "V"} - set(frozen)


def test_training_stops_early_when_nothing_gets_better(tiny, random_vectors, monkeypatch):
    from interp_toolkit.training import loop

    shown = iter([5.0, 4.0, 4.5, 4.2, 1.0])
    monkeypatch.setattr(loop, "validation_losses", lambda *_: (next(shown), 6.0))
    config = dataclasses.replace(FAST, patience=2)
    result = train_adapter(tiny("qwen2"), _pairs(random_vectors), _adapter(), config, progress=False)
    assert result.history.val_loss.tolist() == [5.0, 4.0, 4.5, 4.2]
    assert (result.best_step, result.best_val_loss, result.last_val_loss) == (8, 4.0, 4.2)


def test_a_model_in_bfloat16_trains_an_adapter_in_float32(checkpoints, random_vectors):
    model = load_model(checkpoints["qwen2"], dtype="bfloat16")
    result = train_adapter(model, _pairs(random_vectors), _adapter(), FAST, progress=False)
    assert {parameter.dtype for parameter in result.adapter.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert result.history.val_loss.iloc[-1] < result.history.val_loss.iloc[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_good_weights(tiny, random_vectors, monkeypatch, tmp_path):
    from interp_toolkit.training import loop

    real, calls = loop.losses, []

    def breaking(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(loop, "losses", breaking)
    pairs, adapter = _pairs(random_vectors), _adapter()
    message = r"the loss is nan in batch 6 \(training vectors .*the best weights, of step 4, are in .*best; try a lower"
    with pytest.raises(InterpToolkitError, match=message):
        train_adapter(tiny("qwen2"), pairs, adapter, FAST, folder=tmp_path, progress=False)
    assert adapter.digest == _adapter().digest
    best = Adapter.from_pretrained(tmp_path / "best")
    assert best.metadata["global_step"] == "4"
    assert all(torch.isfinite(parameter).all() for parameter in best.parameters())
    calls.clear()
    with pytest.raises(InterpToolkitError, match="in batch 6 .*; nothing is saved: a run with a folder keeps its best"):
        train_adapter(tiny("qwen2"), pairs, adapter, FAST, progress=False)


def test_the_schedule_and_the_groups_of_the_optimiser():
    factor = make_schedule(total=110, warmup=10)
    assert [round(factor(step), 4) for step in (0, 9, 10, 60, 110)] == [round(1 / 11, 4), round(10 / 11, 4), 1, 0.5, 0]
    settings = TrainConfig(lr=0.01, scale_lr=0.05, matrix_lr=0.003, weight_decay=0.02, matrix_weight_decay=0.1)
    groups = make_optimizer(_adapter(), settings).param_groups
    result = {tuple(group["params"][0].shape): (group["lr"], group["weight_decay"]) for group in groups}
    assert result == {(1,): (0.05, 0.0), (32,): (0.01, 0.02), (32, 8): (0.003, 0.1)}


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
            "one width for model, adapter and vectors, got d_model 32 of the model, 16 of the adapter",
        ),
        (dict(adapter=Adapter.create("identity", 32)), "a 'identity' adapter has nothing to train"),
        (dict(splits="train"), "one side has none"),
    ],
)
def test_runs_that_cannot_start(tiny, random_vectors, change, message):
    pairs = _pairs(random_vectors)
    if "splits" in change:
        pairs = VectorLabelPairs.from_tensors(pairs.vectors, pairs.labels, splits=["train"] * len(pairs))
    with pytest.raises(InterpToolkitError, match=message):
        train_adapter(tiny("qwen2"), pairs, change.get("adapter", _adapter()), FAST, progress=False)
