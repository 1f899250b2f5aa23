import json

import numpy as np
import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Site
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import bias, run_evaluation
from interp_toolkit.evaluation.bias import best_scale, bias_share, share_table
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.controls import control_table
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors

LABELS = ["Bees", "Poland and rivers", "fox", "a dog", "history", "baseball"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_adapter(tiny, tiny_prompt):
    """make_adapter(kind): for the tiny Llama, with a bias."""

    def make(kind="scalar_affine", seed=1):
        made = Adapter.create(kind, 32, init_scale=3.0).requires_grad_(False)
        made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(seed)))
        made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, None, True)
        return made

    return make


def _arms(bias, n=400):
    """Losses of rows whose mean improvement is 4 nats, of which ``bias`` is without the vector."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, n)
    noise = rng.normal(0, 0.5, (4, n))
    noise -= noise.mean(1, keepdims=True)
    means = dict(untrained=6.0, trained=2.0) | {"null vector": 6 - bias, "bias only": 6 - bias / 2}
    return {arm: mean + hard + own for (arm, mean), own in zip(means.items(), noise)}


def test_the_share_is_that_which_was_put_in():
    table = share_table("loss", _arms(bias=3.4), 5.0, seed=2).set_index("way")
    assert table.share.tolist() == pytest.approx([0.85, 0.425])
    assert table.untrained.tolist() == pytest.approx([_arms(3.4)["untrained"].mean()] * 2)
    for way, share in (("null vector", 0.85), ("bias only", 0.425)):
        assert table.low[way] < share < table.high[way]
        # Rows are hard or easy under all: a paired interval is not widened by that.
        assert table.high[way] - table.low[way] < 0.05
    assert (set(table.scale), set(table.n), set(table.seed), set(table.measure)) == ({5}, {400}, {2}, {"loss"})


def test_a_share_does_not_ask_whether_more_is_better():
    arms = _arms(bias=1.0)
    table = share_table("loss", arms, 5.0)
    turned = share_table("named", {arm: -x for arm, x in arms.items()}, 5.0)
    assert turned[["share", "low", "high"]].to_numpy() == pytest.approx(table[["share", "low", "high"]].to_numpy())


def test_the_ends_of_the_share():
    arms = _arms(bias=1.0)
    nothing = share_table("loss", arms | {"null vector": arms["untrained"], "bias only": arms["trained"]}, 5.0)
    assert nothing[["share", "low", "high"]].to_numpy().tolist() == [[0, 0, 0], [1, 1, 1]]
    in_vain = share_table("loss", arms | {"trained": arms["untrained"] + np.tile([0.1, -0.1], 200)}, 5.0)
    assert in_vain.low.tolist() == [-np.inf] * 2
    assert in_vain.high.tolist() == [np.inf] * 2


@pytest.mark.slow
def test_shares_are_those_of_the_table_of_controls(tiny, make_adapter, random_vectors):
    model, vectors = tiny(), random_vectors(6)
    adapter, bias_only = make_adapter(), make_adapter("bias_only", seed=2)

    def named(descriptions, rows):
        return [float(len(text) + row) for text, row in zip(descriptions, rows)]

    asked = dict(bias_only=bias_only, named=named)
    table = bias_share(model, adapter, vectors, LABELS, scale=2.0, named_scale=7.0, **asked)
    truth = control_table(model, adapter, vectors, LABELS, scales=(2.0, 7.0), **asked)
    loss = dict(zip(truth.control[:5], truth.loss)) | {"untrained": truth.loss[5]}
    result = dict(zip(truth.control[:5], truth.named)) | {"untrained": truth.named[6]}
    assert table.measure.tolist() == ["loss", "loss", "named", "named"]
    assert table.way.tolist() == ["null vector", "bias only"] * 2
    assert table.scale.tolist() == [2, 2, 7, 7]
    for actual, means in ((table[:2], loss), (table[2:], result)):
        for row in actual.itertuples():
            expected = means["untrained"], means[row.way], means["own vectors"]
            assert (row.untrained, row.bias, row.trained) == pytest.approx(expected, abs=1e-4)
            share = (expected[0] - expected[1]) / (expected[0] - expected[2])
            assert row.share == pytest.approx(share, rel=0.01)
    alone = bias_share(model, adapter, vectors, LABELS, bias_only=bias_only, scale=2.0)
    assert alone.measure.tolist() == ["loss"] * 2


def test_all_that_a_bias_gains_is_the_bias(tiny, make_adapter, random_vectors):
    bias_only = make_adapter("bias_only")
    table = bias_share(tiny(), bias_only, random_vectors(6), LABELS, bias_only=bias_only, scale=2.0)
    assert table.share.tolist() == pytest.approx([1, 1], abs=1e-3)


@pytest.mark.slow
def test_the_best_scale_by_loss_and_by_what_is_named(tiny, make_adapter, random_vectors):
    model, vectors, adapter = tiny(), random_vectors(6), make_adapter()
    scales = (0.5, 4.0, 20.0)

    def named(descriptions, rows):
        return [float(ord(text[:1] or " ")) for text in descriptions]

    table = control_table(model, adapter, vectors, LABELS, scales=scales, named=named).dropna(subset="scale")
    assert best_scale(model, adapter, vectors, LABELS, scales=scales) == table.scale[table.best].item()
    most = best_scale(model, adapter, vectors, LABELS, scales=scales, named=named)
    assert table.set_index("scale").named[most] == table.named.max() > table.named.min()
    with pytest.raises(InterpToolkitError, match="at least one scale, got none"):
        best_scale(model, adapter, vectors, LABELS, scales=())


def test_what_has_no_share(tiny, make_adapter, random_vectors):
    adapter, vectors = make_adapter(), random_vectors(2)
    with pytest.raises(InterpToolkitError, match="kind 'bias_only'.*got ScalarAffine"):
        bias_share(tiny(), adapter, vectors, LABELS[:2], bias_only=adapter, scale=1.0)
    with pytest.raises(InterpToolkitError, match="the adapter was trained on"):
        bias_share(tiny("qwen2"), adapter, vectors, LABELS[:2], bias_only=make_adapter("bias_only"), scale=1.0)


class _Letters:
    """An embedder that counts letters."""

    def __call__(self, texts):
        return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()

    cached = __call__


@pytest.mark.slow
def test_a_run_trains_the_bias_chooses_on_training_titles_and_is_not_repeated(
    tiny, make_adapter, tmp_path, monkeypatch
):
    titles = [dict(title=f"{word} {i}", split="train") for i in range(84) for word in LABELS]
    titles += [dict(title=f"{word} of old", split="val") for word in LABELS]
    path = tmp_path / "topics" / "topics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in titles))
    context = EvalContext(path, limit=6, model=tiny())
    context._embedder = _Letters()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bias, "SCALES", (1.0, 4.0))
    adapter, out = make_adapter(), tmp_path / "out.json"
    result = run_evaluation("bias", context, adapter, out)
    assert result["failed"] == dict(count=0, rows=[])
    assert {"model", "revision", "dtype", "adapter", "n", "seed", "split", "training"} <= set(result["settings"])
    trained = Adapter.from_pretrained(next((tmp_path / "runs" / "bias_only").iterdir()) / "best")
    assert trained.digest == result["bias_only"]["digest"]
    assert trained.contract.soft_prompt == adapter.contract.soft_prompt

    dev = topic_vectors(context.model, context.titles.dev, adapter.contract.site)
    scale = best_scale(context.model, adapter, dev, context.titles.dev, scales=(1.0, 4.0))
    held = HeldOut.read(context, adapter)
    expected = bias_share(context.model, adapter, held.vectors, held.titles, bias_only=trained, scale=scale)
    rows = result["tables"]["bias"]
    assert [row["measure"] for row in rows[::2]] == ["loss", "recall@1", "recall@10", "mrr"]
    assert [row["scale"] for row in rows[:2]] == [scale] * 2
    assert [row["share"] for row in rows[:2]] == pytest.approx(expected.share.tolist(), rel=1e-3)
    assert [row["scale"] for row in result["tables"]["sweep"]] == [1, 4]
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    monkeypatch.setattr(bias, "train_bias_only", None)
    assert run_evaluation("bias", context, adapter, out) == json.loads(json.dumps(result))
