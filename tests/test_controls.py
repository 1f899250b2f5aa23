import json
from functools import partial

import numpy as np
import pytest
import torch
from test_sampling import Remote

from interp_toolkit import Adapter, InterpToolkitError, Site, SoftPrompt
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import controls as measurement
from interp_toolkit.evaluation import row_losses as losses
from interp_toolkit.evaluation import run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.control_kinds import (
    Control,
    describe_controls,
    greedy_descriptions,
    random_directions,
    untrained_control,
)
from interp_toolkit.evaluation.controls import control_losses, control_table, make_controls
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.shipped import default_adapter
from interp_toolkit.sites import SiteStack, parse_place
from interp_toolkit.statistics import adjust_p_values, paired_difference

LABELS = ["Bees", "Poland and rivers", "fox", "a dog", "history", "baseball"]
COLUMNS = ["control", "scale", "best", "loss", "low", "high", "evidence", "evidence_low", "evidence_high"]
COLUMNS += ["difference", "difference_low", "difference_high", "p", "n", "seed"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_adapter(tiny, tiny_prompt):
    """make_adapter(kind, ...): for the tiny Llama, with a bias, at layer 2 or at several sites."""

    def make(kind="scalar_affine", seed=1, prompt=tiny_prompt, site="blocks.2.hook_resid_post", **settings):
        made = Adapter.create(kind, 32, init_scale=3.0, **settings).requires_grad_(False)
        made.bias.copy_(torch.randn(made.bias.shape, generator=torch.Generator().manual_seed(seed)))
        made.contract = Contract.from_facts(model_facts(tiny()), parse_place(site), prompt, None, True)
        return made

    return make


def _losses(model, prompt, soft_tokens, labels):
    """Each label behind its own soft token, one at a time."""
    run = PromptRun(model, prompt)
    targets = prompt.targets(model.tokenizer, labels)
    with torch.no_grad():
        return torch.stack(
            [-score(run, token[None], [own]).log_probs.mean() for token, own in zip(soft_tokens, targets)]
        )


def test_every_row_of_the_table_is_the_loss_under_what_it_is_called(tiny, tiny_prompt, make_adapter, random_vectors):
    model, vectors = tiny(), random_vectors(6)
    adapter, bias_only = make_adapter(), make_adapter("bias_only", seed=2)
    table = control_table(model, adapter, vectors, LABELS, bias_only=bias_only, scales=(2.0, 7.0), seed=3)
    assert table.columns.tolist() == COLUMNS
    assert table.control.tolist() == [
        "own vectors",
        "null vector",
        "shuffled vectors",
        "random directions",
        "bias only",
        "untrained",
        "untrained",
        "random labels",
    ]
    assert (set(table.n), set(table.seed)) == ({6}, {3})
    assert table.scale[5:7].tolist() == [2, 7]
    assert table.scale.notna().sum() == 2

    asked = make_controls(adapter, vectors, LABELS, bias_only=bias_only, scales=(2.0, 7.0), seed=3)
    cycle, others = asked[2].vector_index, asked[7].target_index
    units = vectors / vectors.norm(dim=1, keepdim=True)
    wrong = [LABELS[row] for row in others]
    expected = [
        _losses(model, tiny_prompt, adapter(vectors), LABELS),
        _losses(model, tiny_prompt, adapter.bias.expand(6, -1), LABELS),
        _losses(model, tiny_prompt, adapter(vectors[list(cycle)]), LABELS),
        _losses(model, tiny_prompt, adapter(random_directions(vectors, seed=3)), LABELS),
        _losses(model, tiny_prompt, bias_only.bias.expand(6, -1), LABELS),
        _losses(model, tiny_prompt, 2 * units, LABELS),
        _losses(model, tiny_prompt, 7 * units, LABELS),
        _losses(model, tiny_prompt, adapter(vectors), wrong),
    ]
    assert table.loss.tolist() == pytest.approx([x.mean().item() for x in expected], abs=1e-4)
    nulls = [expected[1]] * 7 + [_losses(model, tiny_prompt, adapter.bias.expand(6, -1), wrong)]
    evidence = [(null - x).mean().item() for null, x in zip(nulls, expected)]
    assert table.evidence.tolist() == pytest.approx(evidence, abs=1e-4)
    assert table.difference.tolist() == pytest.approx([(x - expected[0]).mean().item() for x in expected], abs=1e-4)
    first_is_best = bool(expected[5].mean() < expected[6].mean())
    assert table.best.tolist() == [False] * 5 + [first_is_best, not first_is_best, False]
    raw = [paired_difference(x, expected[0], seed=3).p for x in expected[1:]]
    assert table.p[1:].tolist() == pytest.approx(adjust_p_values(raw), abs=0.02)
    result = control_losses(model, adapter, vectors, LABELS)
    assert (result.matched, result.null) == pytest.approx((table.loss[0], table.loss[1]), abs=1e-4)


def test_what_is_certain_of_the_table(tiny, make_adapter, random_vectors):
    table = control_table(tiny(), make_adapter(), random_vectors(6), LABELS, scales=(2.0,))
    assert ((table.low <= table.loss) & (table.loss <= table.high)).all()
    own, null, rest = table.iloc[0], table.iloc[1], table.iloc[1:]
    assert (own.difference, own.difference_low, own.difference_high) == (0, 0, 0)
    assert np.isnan(own.p)
    assert (null.evidence, null.evidence_low, null.evidence_high) == (0, 0, 0)
    # What the null vector costs more than the own is the evidence of the own.
    assert null.difference == own.evidence
    # Of the 64 choices of signs of six rows at least two are as extreme as what is seen.
    assert (rest.p >= 2 / 64).all()


def test_an_adapter_that_sees_no_vector_tells_no_control_from_the_vectors(tiny, make_adapter, random_vectors):
    table = control_table(tiny(), make_adapter("bias_only"), random_vectors(6), LABELS, scales=()).set_index("control")
    for name in ("null vector", "shuffled vectors", "random directions"):
        assert table.difference[name] == pytest.approx(0, abs=1e-5)
        assert table.evidence[name] == pytest.approx(0, abs=1e-5)
    assert not table.best.any()


@pytest.mark.parametrize("n", range(2, 9))
def test_no_row_keeps_its_own_vector_or_its_own_label(n, make_adapter, random_vectors):
    labels = [LABELS[i % 3 if n > 4 else i] for i in range(n)]
    adapter, vectors = make_adapter(), random_vectors(n)
    for seed in range(20):
        asked = {one.name: one for one in make_controls(adapter, vectors, labels, seed=seed)}
        given = asked["shuffled vectors"].vector_index
        assert sorted(given) == list(range(n))
        assert all(i != row for i, row in enumerate(given))
        faced = asked["random labels"].target_index
        assert all(labels[row] != label for label, row in zip(labels, faced))
    again = {one.name: one for one in make_controls(adapter, vectors, labels, seed=19)}
    assert (again["shuffled vectors"].vector_index, again["random labels"].target_index) == (given, faced)


def test_random_labels_are_drawn_from_all_others(make_adapter, random_vectors):
    labels = ["rare", *["common"] * 99, *["other"] * 100]
    faced = make_controls(make_adapter(), random_vectors(200), labels, scales=())[-1].target_index
    drawn = [labels[row] for row in faced[1:100]]
    assert drawn.count("other") > 90
    assert "common" not in drawn
    assert len(set(faced[100:])) > 50


def test_random_directions_have_the_norm_of_each_site_and_nothing_else(random_vectors):
    vectors = random_vectors(300, 64) * torch.linspace(1, 50, 64)
    drawn = random_directions(vectors, sites=2, seed=4)
    assert torch.allclose(drawn.view(300, 2, 32).norm(dim=2), vectors.view(300, 2, 32).norm(dim=2), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(drawn, vectors)
    assert cosine.mean().abs() < 0.05
    assert not torch.allclose(drawn, random_directions(vectors, sites=2, seed=5))
    assert torch.equal(drawn, random_directions(vectors, sites=2, seed=4))
    assert (random_directions(torch.zeros(2, 8)) == 0).all()


@pytest.mark.slow
def test_descriptions_are_made_once_and_judged_against_the_rows_they_face(
    tiny, tiny_prompt, make_adapter, random_vectors
):
    model, vectors, adapter = tiny(), random_vectors(6), make_adapter()
    run = PromptRun(model, tiny_prompt)
    texts = [row[0].text for row in generate(run, adapter(vectors))]
    (null,) = [row[0].text for row in generate(run, adapter.null()[None])]
    asked = []

    def named(descriptions, rows):
        asked.append((list(descriptions), list(rows)))
        return [text == texts[row] for text, row in zip(descriptions, rows)]

    table = control_table(model, adapter, vectors, LABELS, scales=(), named=named, seed=1).set_index("control")
    assert table.columns.tolist()[-3:] == ["named", "named_low", "named_high"]
    own, nothing, shuffled, strange, labels = asked
    made = make_controls(adapter, vectors, LABELS, scales=(), seed=1)
    assert own == (texts, list(range(6)))
    assert nothing == ([null] * 6, list(range(6)))
    assert shuffled == ([texts[i] for i in made[2].vector_index], list(range(6)))
    assert strange[1] == list(range(6))
    assert labels == (texts, list(made[4].target_index))
    assert (table.named["own vectors"], table.named_high["own vectors"]) == (1, 1)
    # Six of six by Wilson, which is no certainty.
    assert table.named_low["own vectors"] == pytest.approx(0.6097, abs=1e-3)
    numbers = control_table(model, adapter, vectors, LABELS, scales=(), named=lambda texts, rows: [0.25] * 6)
    assert (numbers.named_low == 0.25).all()


def test_vectors_that_are_given_in_other_orders_are_described_once(make_adapter, random_vectors):
    calls = []

    def describe(adapter, vectors):
        calls.append((adapter.kind, len(vectors)))
        return [f"{adapter.kind} {vector.sum():.5f}" for vector in vectors]

    asked = make_controls(make_adapter(), random_vectors(4), LABELS[:4], scales=(1.0, 2.0))
    result = describe_controls(asked, describe)
    # Own vectors and random directions together, nothing alone, and both untrained lengths together.
    assert calls == [("scalar_affine", 8), ("scalar_affine", 1), ("identity", 8)]
    for control, texts in zip(asked, result):
        given = control.vectors[list(control.vector_index)]
        assert texts == [f"{control.adapter.kind} {vector.sum():.5f}" for vector in given]


def test_some_rows_of_a_condition_have_the_losses_that_they_had(tiny, make_adapter, random_vectors):
    model = tiny()
    for control in make_controls(make_adapter(), random_vectors(6), LABELS, scales=(3.0,), seed=2):
        whole, some = control.losses(model, LABELS), control.take([4, 1, 2]).losses(model, LABELS)
        assert some.tolist() == pytest.approx(whole[[4, 1, 2]].tolist(), abs=1e-5)


def test_an_adapter_of_several_sites_and_tokens(tiny, tiny_tokenizer, make_adapter, random_vectors):
    prompt = SoftPrompt.for_chat(tiny_tokenizer, 'Repeat "{slot}"', '"', tokens=3)
    many = dict(prompt=prompt, site=SiteStack([2, 0]), sites=2, tokens=3)
    adapter, bias_only = make_adapter("full_rank", **many), make_adapter("bias_only", **many)
    vectors = random_vectors(6, 64)
    table = control_table(tiny(), adapter, vectors, LABELS, bias_only=bias_only)
    assert "untrained" not in set(table.control)
    assert table.loss[4] == pytest.approx(
        _losses(tiny(), prompt, bias_only.null().expand(6, -1, -1), LABELS).mean().item()
    )
    # The deepest site stands first here; its direction fills every slot.
    one = untrained_control(adapter, vectors, 4.0)
    units = 4 * vectors[:, :32] / vectors[:, :32].norm(dim=1, keepdim=True)
    assert torch.allclose(one.vectors, units)
    assert one.adapter.contract.site == Site.after(2)
    expected = _losses(tiny(), prompt, units[:, None].expand(-1, 3, -1), LABELS)
    assert one.losses(tiny(), LABELS).tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_has_no_table(tiny, tiny_tokenizer, make_adapter, random_vectors):
    model, adapter, vectors = tiny(), make_adapter(), random_vectors(2)
    with pytest.raises(InterpToolkitError, match="at least two different labels, got 'Bees' alone"):
        control_table(model, adapter, vectors, ["Bees", "Bees"])
    with pytest.raises(InterpToolkitError, match="at least two vectors, got 2 vectors and 3 labels"):
        control_table(model, adapter, vectors, LABELS[:3])
    with pytest.raises(InterpToolkitError, match="the adapter has no contract"):
        control_table(model, Adapter.create("scale", 32), vectors, LABELS[:2])
    with pytest.raises(InterpToolkitError, match="kind 'bias_only'.*own soft prompt, got ScalarAffine"):
        control_table(model, adapter, vectors, LABELS[:2], bias_only=adapter)
    other = SoftPrompt.for_chat(tiny_tokenizer, 'Repeat "{slot}"', '"')
    with pytest.raises(InterpToolkitError, match="trained with the adapter's own soft prompt, got BiasOnly"):
        control_table(model, adapter, vectors, LABELS[:2], bias_only=make_adapter("bias_only", prompt=other))
    with pytest.raises(InterpToolkitError, match="the adapter was trained on"):
        control_table(tiny("qwen2"), adapter, vectors, LABELS[:2])


def test_the_shipped_adapter_reads_vectors_and_no_control_does(smollm):
    titles = ["Baseball", "Poland", "Photosynthesis", "Opera", "Bicycle", "Volcano", "Chess", "Tea", "Whale", "Jazz"]
    adapter = default_adapter(model_facts(smollm))
    vectors = adapter.contract.centre(topic_vectors(smollm, titles, adapter.contract.site))
    table = control_table(smollm, adapter, vectors, titles, scales=(5.0,)).set_index("control")
    assert table.evidence_low["own vectors"] > 0.5
    for name in table.index[1:]:
        assert table.difference_low[name] > 0.5
        assert table.p[name] <= 0.05
    assert table.evidence_low["random directions"] < 0.5


class _Letters:
    """An embedder that counts letters."""

    def __call__(self, texts):
        return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()

    cached = __call__


@pytest.fixture
def context(tiny, tmp_path, monkeypatch):
    """A context of few titles on the tiny model."""
    titles = [dict(title=f"{word} {i}", split="train") for i in range(84) for word in LABELS]
    titles += [dict(title=f"{word} of old", split="val") for word in LABELS]
    path = tmp_path / "topics" / "topics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in titles))
    made = EvalContext(path, limit=6, model=tiny())
    made._embedder, made._titles_path = _Letters(), path
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.slow
def test_a_run_is_the_table_and_is_not_repeated(context, make_adapter, tmp_path, monkeypatch):
    adapter, path = make_adapter(), tmp_path / "out.json"
    monkeypatch.setattr(measurement, "make_controls", partial(make_controls, scales=(2.0,)))
    result = run_evaluation("controls", context, adapter, path)
    assert result["failed"] == dict(count=0, rows=[])
    assert {"model", "revision", "dtype", "adapter", "n", "seed", "split"} <= set(result["settings"])
    bias_only = Adapter.from_pretrained(next((tmp_path / "runs" / "bias_only").iterdir()) / "best")
    held = HeldOut.read(context, adapter)
    table = control_table(context.model, adapter, held.vectors, held.titles, bias_only=bias_only, scales=(2.0,))
    rows = result["tables"]["controls"]
    assert [row["control"] for row in rows] == table.control.tolist()
    assert [row["loss"] for row in rows] == pytest.approx(table.loss.tolist(), abs=1e-4)
    assert [row["scale"] for row in rows] == [None if x != x else x for x in table.scale]
    within = [row["value"] for row in result["tables"]["retrieval"] if row["measure"] == "recall@10"]
    assert [row["named"] for row in rows] == within
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    monkeypatch.setattr(measurement, "row_losses", None)
    assert run_evaluation("controls", context, adapter, path) == json.loads(json.dumps(result))


def test_another_engine_measures_the_same(context, make_adapter, tiny, random_vectors, monkeypatch):
    adapter, vectors, engine = make_adapter(), random_vectors(6), Remote(tiny())
    with pytest.raises(InterpToolkitError, match="expected an engine with an attribute tokenizer"):
        control_losses(engine, adapter, vectors, LABELS)
    engine.tokenizer = tiny().tokenizer
    here, there = (control_losses(model, adapter, vectors, LABELS) for model in (tiny(), engine))
    assert there == here
    assert greedy_descriptions(engine, adapter, vectors) == greedy_descriptions(tiny(), adapter, vectors)
    other = EvalContext(context._titles_path, limit=6, model=tiny(), engine=engine)
    calls = len(engine.calls)
    assert other.describe(adapter, vectors, 1).texts == context.describe(adapter, vectors, 1).texts
    assert len(engine.calls) > calls  # what the model itself said is not taken for it
    assert other.facts["engine"] == dict(engine.identity)
    assert "engine" not in context.facts


def test_losses_are_cached_and_a_run_goes_on_from_them(context, make_adapter, random_vectors, monkeypatch):
    monkeypatch.setattr(losses, "_SHARD", 2)
    adapter, vectors = make_adapter(), random_vectors(6)

    def make(vectors, titles):
        return make_controls(adapter, vectors, titles, scales=(3.0,))

    first = losses.row_losses(context, adapter, LABELS, vectors, make)
    assert [x.mean().item() for x in first.losses] == pytest.approx(
        control_table(context.model, adapter, vectors, LABELS, scales=(3.0,)).loss.tolist(), abs=1e-4
    )
    monkeypatch.setattr(Control, "losses", None)
    again = losses.row_losses(context, adapter, LABELS, vectors, make)
    assert all(torch.equal(x, y) for x, y in zip(first.losses, again.losses))


def test_a_bad_row_is_named_and_loses_no_other(context, make_adapter, random_vectors):
    adapter, vectors = make_adapter(), random_vectors(6)
    vectors[2, 5] = float("nan")
    labels = [*LABELS[:3], "fox " * 300, " ", LABELS[5]]

    def make(vectors, titles):
        return make_controls(adapter, vectors, titles, scales=(3.0,))

    measured = losses.row_losses(context, adapter, labels, vectors, make)
    assert measured.titles == ["Bees", "Poland and rivers", "baseball"]
    assert [row["title"] for row in measured.failed] == ["fox", "fox " * 300, " "]
    assert measured.failed[0]["reason"] == "its vector is not finite"
    assert "the soft prompt with the title" in measured.failed[1]["reason"]
    assert "is empty" in measured.failed[2]["reason"]
    table = control_table(context.model, adapter, vectors[[0, 1, 5]], measured.titles, scales=(3.0,))
    assert [x.mean().item() for x in measured.losses] == pytest.approx(table.loss.tolist(), abs=1e-4)
    with pytest.raises(InterpToolkitError, match="none of 3 rows can be scored; the reason for the first: .*finite"):
        losses.row_losses(context, adapter, LABELS[:3], vectors[:3] * float("nan"), make)


@pytest.mark.parametrize("error", [TypeError, InterpToolkitError])
def test_an_exception_while_scoring_is_no_bad_row(context, make_adapter, random_vectors, monkeypatch, error):
    calls, adapter = [], make_adapter()

    def broken(*_):
        calls.append(1)
        raise error("a bug")

    monkeypatch.setattr(Control, "losses", broken)
    with pytest.raises(error, match="a bug"):
        losses.row_losses(
            context, adapter, LABELS, random_vectors(6), lambda *rows: make_controls(adapter, *rows, scales=(3.0,))
        )
    assert len(calls) == 1


def test_a_loss_that_is_not_finite_stops_the_evaluation(context, make_adapter, random_vectors, monkeypatch):
    adapter = make_adapter()
    monkeypatch.setattr(Control, "losses", lambda self, *_: torch.full((len(self.vector_index),), float("nan")))
    with pytest.raises(InterpToolkitError, match="a finite loss for each row, got nan for 'Bees' under 'own vectors'"):
        losses.row_losses(
            context, adapter, LABELS, random_vectors(6), lambda *rows: make_controls(adapter, *rows, scales=(3.0,))
        )


def test_the_old_name_of_the_matched_loss_warns(make_adapter):
    with pytest.warns(DeprecationWarning, match=r"ControlLosses.own is deprecated; use ControlLosses.matched"):
        assert measurement.ControlLosses(1.0, 2.0, 3.0).own == 1.0
