import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Site
from interp_toolkit.activations import site_means
from interp_toolkit.adapters import untrained_adapter
from interp_toolkit.bridges.decoding import decode_rates, layer_position_table
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.names import Entity
from interp_toolkit.bridges.naming import find_bridge_entities, name_bridges
from interp_toolkit.bridges.twohop import balanced_sample, read_twohop
from interp_toolkit.cli.evaluate import question_files
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError
from interp_toolkit.evaluation import bridge_questions as questions
from interp_toolkit.evaluation import bridge_tables as tables
from interp_toolkit.evaluation import bridges as measurement
from interp_toolkit.evaluation import run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.models import model_facts
from interp_toolkit.shipped import find_adapter
from interp_toolkit.sites import SiteStack

COUNTRIES = ["Poland", "Oman", "Chad", "Peru"]


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.full((32,), 0.1), True)
    return made


def _found(result, bridges, texts=None, responses=None):
    """Results of made-up descriptions: for each prompt {(site, from_end): [descriptions]}."""
    rows = [
        dict(prompt=i, site=site, position=9 + end, from_end=end, from_subject=None, token="t", sample=k)
        | dict(description=text, evidence=1.0)
        for i, cells in enumerate(result)
        for (site, end), samples in cells.items()
        for k, text in enumerate(samples)
    ]
    n = len(bridges)
    frame = pd.DataFrame(dict(prompt=range(n), text=texts or ["?"] * n, response=responses or [""] * n))
    failed = pd.DataFrame(columns=["prompt", "text", "reason"])
    bridges = [bridge if isinstance(bridge, Entity) else Entity(bridge, kind="country") for bridge in bridges]
    return name_bridges(Grid(pd.DataFrame(rows), frame, failed), bridges)


def _value(table, measure, what):
    (row,) = table[(table.measure == measure) & (table.what == what)].to_dict("records")
    return row


def test_what_is_named_and_what_is_hidden():
    result = [{("a", 0): ["the rivers of Polska", "none"]}, {("a", 0): ["Romance", "x"]}, {("a", 0): ["Chad", "x"]}]
    bridges = [Entity("Poland", ("Polska",)), Entity("Oman"), Entity("Chad")]
    actual = _found(result, bridges, ["the capital Warsaw", "x", "Chad's capital"], ["zloty", "Oman, I think", ""])
    assert actual.cells.named.tolist() == [True, False, False, False, True, False]
    assert actual.prompts.hit.tolist() == [True, False, True]
    assert actual.prompts.in_prompt.tolist() == [False, False, True]
    assert actual.prompts.in_response.tolist() == [False, True, False]
    assert actual.prompts.hidden.tolist() == [True, False, False]
    assert actual.prompts.bridge.tolist() == ["Poland", "Oman", "Chad"]


def test_strangers_are_other_bridges_of_the_kind_that_nobody_has_said():
    bridges = [
        Entity("Guinea", kind="country"),
        Entity("Papua New Guinea", kind="country"),
        Entity("Peru", kind="country"),
        Entity("Nissan", kind="company"),
        Entity("Peru", kind="country"),
    ]
    result = [{("a", 0): ["x"]}] * 5
    actual = _found(result, bridges, responses=["", "", "", "", "Papua New Guinea"])
    names = [entity.name for entity in actual.entities]
    strangers = [{names[j] for j in row.nonzero()[0]} for row in actual.strangers]
    # Guinea is in Papua New Guinea's name; the company is alone.
    assert strangers == [{"Peru"}, {"Peru"}, {"Guinea", "Papua New Guinea"}, set(), set()]


def test_rates_and_chance_by_hand():
    result = [
        {("a", 0): ["Poland", "Oman"], ("b", 0): ["x", "x"]},
        {("a", 0): ["Poland", "x"], ("b", 0): ["Chad", "Peru"]},
        {("a", 0): ["x", "x"], ("b", 0): ["x", "Chad"]},
        {("a", 0): ["Poland", "Oman"], ("b", 0): ["Chad", "x"]},
    ]
    table = decode_rates({"trained": _found(result, COUNTRIES)})
    assert set(table.seed) == {0}
    assert set(table.n) == set(table.clusters) == {4}
    rate = _value(table, "any cell", "trained")
    assert rate["value"] == 2 / 4
    assert rate["low"] < 2 / 4 < rate["high"]
    assert _value(table, "any cell", "trained by chance")["value"] == pytest.approx(np.mean([1 / 3, 3 / 3, 0, 3 / 3]))
    ratio = _value(table, "any cell", "trained / chance")
    assert ratio["value"] == pytest.approx(0.5 / np.mean([1 / 3, 1, 0, 1]))


def test_a_habit_of_the_commonest_bridge_gains_in_chance_as_in_the_rate():
    # Six prompts of Poland, two of Oman, two of Chad; "Poland" is said of all of them.
    bridges = ["Poland"] * 6 + ["Oman"] * 2 + ["Chad"] * 2
    table = decode_rates({"trained": _found([{("a", 0): ["Poland"]}] * 10, bridges)})
    for measure in ("any cell", "best site"):
        assert _value(table, measure, "trained")["value"] == pytest.approx(6 / 10)
        # Of the eight other prompts that Oman's and Chad's have, six are Poland's.
        assert _value(table, measure, "trained by chance")["value"] == pytest.approx(4 / 10 * 6 / 8)


@pytest.mark.parametrize("seed", range(3))
def test_guesses_decode_no_more_than_chance(seed):
    rng = np.random.default_rng(seed)
    places = [("a", 0), ("a", -1), ("b", 0), ("b", -1)]
    bridges = COUNTRIES * 60
    result = [{place: rng.choice([*COUNTRIES, "x", "y"], 2).tolist() for place in places} for _ in bridges]
    table = decode_rates({"trained": _found(result, bridges)}, seed=seed)
    for measure in ("any cell", "best site"):
        ratio = _value(table, measure, "trained / chance")
        assert ratio["value"] == pytest.approx(1, abs=0.25)
        assert ratio["clusters"] == 4


def test_the_best_site_is_that_of_other_prompts():
    # Each prompt is named at a site of its own: what is best for others names none of it.
    result = [{(site, 0): ["Poland" if k == i else "x"] for k, site in enumerate("abcd")} for i in range(4)]
    result = [
        {place: [text.replace("Poland", COUNTRIES[i]) for text in texts] for place, texts in cells.items()}
        for i, cells in enumerate(result)
    ]
    table = decode_rates({"trained": _found(result, COUNTRIES)}, folds=4)
    assert _value(table, "any cell", "trained")["value"] == 1
    assert _value(table, "best site", "trained")["value"] == 0
    # And where one site names all, it is found.
    same = [{("a", 0): ["x"], ("b", 0): [name], ("b", -1): ["x"]} for name in COUNTRIES]
    table = decode_rates({"trained": _found(same, COUNTRIES)}, folds=2)
    assert _value(table, "best site", "trained")["value"] == 1
    # Prompts of one bridge are no other prompts to each other.
    twice = [{("a", 0): ["Poland"], ("b", 0): ["x"]}] * 3 + [{("a", 0): ["x"], ("b", 0): ["Oman"]}]
    table = decode_rates({"trained": _found(twice, ["Poland"] * 3 + ["Oman"])}, folds=2)
    assert _value(table, "best site", "trained")["value"] == 0


def test_adapters_are_compared_over_the_same_hidden_bridges():
    place = ("a", 0)
    trained = _found([{place: [name]} for name in COUNTRIES], COUNTRIES, responses=["", "", "", "Peru"])
    result = [{place: ["Poland"]}, {place: ["x"]}, {place: ["x"]}, {place: ["Peru"]}]
    untrained = _found(result, COUNTRIES, responses=["", "", "", "Peru"])
    table = decode_rates({"trained": trained, "untrained": untrained})
    assert set(table.n) == {3}
    assert _value(table, "any cell", "trained")["value"] == 1
    assert _value(table, "any cell", "untrained")["value"] == pytest.approx(1 / 3)
    assert _value(table, "any cell", "trained / untrained")["value"] == pytest.approx(3)
    difference = _value(table, "any cell", "trained - untrained")
    assert difference["value"] == pytest.approx(2 / 3)
    assert difference["low"] <= 2 / 3 <= difference["high"]
    text = decode_rates({"trained": trained, "untrained": untrained}, count_answered=True)
    assert set(text.n) == {4}


def test_the_layer_by_position_table_by_hand():
    result = [
        {("b", 0): ["x", "Poland"], ("b", -1): ["x", "x"], ("a", 0): ["Oman", "Chad"]},
        {("b", 0): ["Oman", "Oman"], ("a", 0): ["x", "Poland"]},
        {("b", 0): ["x", "x"], ("b", -1): ["Chad", "x"], ("a", 0): ["x", "x"]},
        {("b", 0): ["Peru", "x"], ("a", 0): ["x", "x"]},
    ]
    actual = _found(result, COUNTRIES, responses=["", "", "", "Peru"])
    table = layer_position_table(actual)
    assert list(zip(table.site, table.position)) == [("b", -1), ("b", 0), ("a", 0)]
    assert table.value.tolist() == pytest.approx([1 / 2, 2 / 3, 0])
    assert table.n.tolist() == [2, 3, 3]
    assert table.chance.tolist() == pytest.approx([0, 0, (2 / 2 + 1 / 2 + 0) / 3])
    assert (table.low <= table.value).all()
    assert (table.value <= table.high).all()
    assert layer_position_table(actual, count_answered=True).n.tolist() == [2, 4, 4]
    with pytest.raises(InterpToolkitError, match="pass subjects"):
        layer_position_table(actual, "from_subject")
    with pytest.raises(InterpToolkitError, match="expected prompts with hidden bridges, got none"):
        layer_position_table(_found(result, COUNTRIES, texts=COUNTRIES))


def test_what_has_no_rate():
    result = [{("a", 0): ["Poland"]}] * 2
    with pytest.raises(InterpToolkitError, match="at least two names, got 2 prompts of 1"):
        decode_rates({"trained": _found(result, ["Poland"] * 2)})
    with pytest.raises(InterpToolkitError, match="at least two names, got 0 prompts of 0"):
        decode_rates({})
    with pytest.raises(InterpToolkitError, match="at least 2 folds, so that there are other prompts for each, got 1"):
        decode_rates({"trained": _found(result, ["Poland", "Oman"])}, folds=1)
    # Without others of its kind a bridge has a rate and no chance level.
    alone = [Entity("Poland", kind="country"), Entity("Nissan", kind="company")]
    assert set(decode_rates({"trained": _found(result, alone)}).what) == {"trained"}


def test_bridges_are_looked_for_in_the_grid(tiny, adapter):
    prompts = ["Tell me about rivers", "", "the history of Poland"]
    bridges = [Entity("Oman"), Entity("Chad"), Entity("Poland")]
    actual = find_bridge_entities(
        tiny(), prompts, bridges, adapter, samples=1, positions=3, subjects=["", "", "Poland"]
    )
    grid = describe_grid(tiny(), prompts, adapter, samples=1, positions=3, subjects=["", "", "Poland"])
    assert actual.cells.drop(columns="named").equals(grid.cells)
    assert actual.prompts.bridge.tolist() == ["Oman", "Poland"]
    assert actual.prompts.in_prompt.tolist() == [False, True]
    assert actual.failed.reason.tolist() == ["the prompt is empty"]
    with pytest.raises(InterpToolkitError, match="a bridge for each of 3 prompts, got 2"):
        find_bridge_entities(tiny(), prompts, bridges[:2], adapter)
    with pytest.raises(InterpToolkitError, match="a bridge for each of 3 prompts, got 2"):
        name_bridges(grid, bridges[:2])


def test_a_bridge_is_an_entity(unchecked):
    prompts = pd.DataFrame(dict(prompt=[0], text=["?"], response=[""]))
    grid = Grid(pd.DataFrame(), prompts, pd.DataFrame(columns=["prompt", "text", "reason"]))
    with pytest.raises(
        InterpToolkitError, match=r"expected an Entity for each bridge, got 'Oman'; pass Entity\('Oman'"
    ):
        name_bridges(grid, ["Oman"])


def test_the_untrained_direction(tiny, adapter, tiny_prompt, random_vectors):
    made = untrained_adapter(adapter, 7.0)
    x = random_vectors(3)
    assert torch.allclose(made(x), 7 * x / x.norm(dim=1, keepdim=True), atol=1e-5)
    assert torch.equal(made.contract.mean, adapter.contract.mean)
    assert (made.contract.site, made.contract.soft_prompt) == (Site.after(2), tiny_prompt)
    stacked = Adapter.create("low_rank", 32, sites=2, rank=4)
    stack = SiteStack([2, 0])
    stacked.contract = Contract.from_facts(model_facts(tiny()), stack, tiny_prompt, torch.zeros(64), True)
    alone = untrained_adapter(stacked, 7.0).contract
    assert (alone.site, alone.mean) == (Site.after(2), None)


def test_the_shipped_adapter_reads_a_country_that_only_its_city_names(smollm):
    form = "The city of {} is in the country of"
    others = ["Lima", "Oslo", "Lisbon", "Vienna", "Dublin", "Ottawa", "Hanoi", "Kabul", "Nairobi", "Havana"]
    means = site_means(smollm, [form.format(city) for city in others], 25)
    known = dict(Madrid="Spain", Cairo="Egypt")
    bridges = [Entity(country, kind="country") for country in known.values()]
    prompts = [form.format(city) for city in known]
    actual = find_bridge_entities(
        smollm, prompts, bridges, find_adapter("smollm2_rank64"), sites=25, positions=1, samples=1, center=means
    )
    assert actual.prompts.hit.any()
    assert not actual.prompts.in_prompt.any()
    assert actual.hits(np.ones(len(actual.cells), dtype=bool))[1].tolist() == [0, 0]


# The run.


def _composed(i, country, city):
    return dict(
        type=f"capital->country->{'currency' if i % 2 else 'language'}",
        e1=city,
        e2=country,
        e3="that",
        e2_aliases=[],
        e3_aliases=[],
        hop1_prompt=f"{city} is of",
        hop2_prompt=f"The history of {country} is the",
        twohop_prompt=f"The {i} history of {city} is the",
    )


def _mquake(i, country, city):
    return dict(
        bridge=country,
        answer="that",
        hop1_phrase=f"the country of {city}",
        hop2_cloze=f"The history of {country} is",
        twohop_cloze=f"The {i} history of the country of {city} is",
    )


@pytest.fixture
def context(tiny, tmp_path, monkeypatch):
    """A context of few questions on the tiny model."""
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    folder = tmp_path / "data"
    (folder / "topics").mkdir(parents=True)
    (folder / "twohop").mkdir()
    (folder / "topics" / "topics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [(f"{name} {i}", f"city{name[:2]}{i}") for i in range(4) for name in COUNTRIES]
    for file, make in (("composed_twohop", _composed), ("mquake_2hop_creme", _mquake)):
        text = "\n".join(json.dumps(make(i, *pair)) for i, pair in enumerate(names))
        (folder / "twohop" / f"{file}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return EvalContext(folder / "topics" / "topics.jsonl", limit=4, model=tiny(), questions=question_files(folder))


def _verdicts(context, rows):
    """As if the model knew every other question, and no first hop of the rest."""
    known = [i % 2 == 0 for i in range(len(rows))]
    result = dict(
        hop1=known, hop2=True, twohop=True, hop1_answer="so", hop2_answer="that", twohop_answer="that", reason=""
    )
    verdict = ["kept" if x else "shortcut" for x in known]
    of = dict(
        id=[row.id for row in rows],
        type=[row.type for row in rows],
        question=[row.twohop for row in rows],
        bridge=[row.bridge.name for row in rows],
        answer="that",
    )
    return pd.DataFrame(of | result | dict(verdict=verdict))


@pytest.mark.slow
def test_a_run_measures_every_group_and_is_not_repeated(context, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "filter_questions", _verdicts)
    result = run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(result))
    rates = pd.DataFrame(result["tables"]["any cell"])
    kinds = ("two-hop kept", "two-hop shortcut", "one-hop right")
    names = {f"{data} {kind}" for data in ("composed", "mquake") for kind in kinds} | {"composed two-hop chat kept"}
    assert set(rates.group) == names
    of_each = {f"{name}{what}" for name in ("trained", "untrained") for what in ("", " by chance", " / chance")}
    assert set(rates.what) == of_each | {"trained / untrained", "trained - untrained"}
    assert {"group", "what", "value", "low", "high", "n", "seed"} == set(rates)
    for name in ("hops", "groups", "scales", "any cell", "best site", "extracted", "layers"):
        assert all({"n", "seed"} <= set(row) for row in result["tables"][name])
    assert {row["group"] for row in result["tables"]["groups"]} == set(rates.group)
    assert all(row["counted"] <= row["n"] - row["in_prompt"] for row in result["tables"]["groups"])
    assert result["cells"]["from_end"]
    assert {row["group"].split()[0] for row in result["cells"]["from_subject"]} == {"composed"}
    assert len(result["shortcuts"]) == 4
    assert result["failed"] == dict(count=0, rows=[])
    assert "the response may name it" in result["note"]
    monkeypatch.setattr(measurement, "filter_questions", None)
    assert run_evaluation("bridges", context, adapter, tmp_path / "out.json") == json.loads(json.dumps(result))


def test_prompts_that_settings_are_chosen_on_are_of_no_table(context, adapter, tmp_path, monkeypatch):
    context.limit = 16
    scope = measurement.Scope.from_context(context)
    scope = replace(scope, tuned=3, prompts=dict(kept=0, shortcut=0, right=8), scales=(2.0,), positions=1)
    monkeypatch.setattr(measurement.Scope, "from_context", lambda context: scope)
    monkeypatch.setattr(measurement, "filter_questions", _verdicts)
    result = run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    assert [row["n"] for row in result["tables"]["scales"]] == [3]
    read = {row["group"]: row["n"] for row in result["tables"]["groups"]}
    # Of eight whose first hop is known, three are set apart where the scale is chosen.
    assert read == {"composed one-hop right": 5, "mquake one-hop right": 8}


def test_questions_with_hidden_bridges_come_first(context):
    rows = read_twohop(context.questions[0].path)[:6]
    verdicts = _verdicts(context, rows).assign(verdict="kept")
    verdicts.loc[[0, 3], "twohop_answer"] = ["Polish, as it is", "the Peruvian"]
    assert [rows[0].bridge.name, rows[3].bridge.name] == ["Poland 0", "Peru 0"]
    (kept, *_), _ = questions.make_groups("composed", rows, rows, verdicts, dict(kept=5, shortcut=9, right=9), 0, False)
    assert [row.id for row in kept.rows] == [1, 2, 4, 5, 0]
    assert kept.answers == ("that",) * 4 + ("Polish, as it is",)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(context, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "_FILTERED", 2)
    made, filtered = [], []
    whole = questions.describe_grid

    def describing(*arguments, **settings):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments)
        return whole(*arguments, **settings)

    def answering(model, rows):
        filtered.append(rows)
        return _verdicts(None, rows)

    monkeypatch.setattr(questions, "describe_grid", describing)
    monkeypatch.setattr(questions, "answers_hops", answering)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    assert len(filtered) == 4
    assert not (tmp_path / "out.json").exists()
    monkeypatch.setattr(questions, "describe_grid", lambda *a, **s: made.append(a) or whole(*a, **s))
    done = len(made)
    result = run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    assert len(filtered) == 4  # nothing is filtered again
    again = {(tuple(prompts), made_by.digest) for _, prompts, made_by in made[done:]}
    assert len(again) == len(made) - done
    assert not again & {(tuple(prompts), made_by.digest) for _, prompts, made_by in made[:done]}
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "other"))
    assert run_evaluation("bridges", context, adapter, tmp_path / "again.json") == result


def test_shards_are_made_anew_by_other_code(context, adapter, tmp_path, monkeypatch):
    rows = read_twohop(context.questions[0].path)[:2]
    filtered = []
    answers = questions.answers_hops
    monkeypatch.setattr(questions, "answers_hops", lambda *arguments: filtered.append(1) or answers(*arguments))
    for changed in ("", "", "names.py", "twohop.py", "grid.py"):
        monkeypatch.setattr(
            "interp_toolkit.evaluation.context.sha256_of", lambda path, changed=changed: f"{path.name == changed}"
        )
        questions.filter_questions(context, rows)
    # Names and two-hop questions decide what is right, grids do not.
    assert len(filtered) == 3


def test_rows_that_fail_are_told_and_lose_no_others(context, adapter, tmp_path):
    path = context.questions[0].path
    asked = balanced_sample(read_twohop(path), 5, measurement.SEED)
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    rows[asked[1].id]["hop2_prompt"] = " "
    rows[asked[4].id]["hop1_prompt"] = ""  # of no group, and so among those that means are taken over
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    result = run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    failed = dict(data="composed", step="filter", text=asked[1].twohop, reason="the cloze of hop2 is empty")
    assert result["failed"] == dict(count=1, rows=[failed])
    assert {row["n"] for row in result["tables"]["hops"] if row["data"] == "composed"} == {3}


def test_prompts_that_could_not_be_read_are_told_with_their_adapter():
    actual = _found([{("a", 0): ["x"]}], ["Oman"])
    lost = replace(actual, failed=pd.DataFrame([(1, "a b", "too short")], columns=["prompt", "text", "reason"]))
    group = questions.Group("mquake", "one-hop", "plain", "right", (), (), ())
    verdicts = pd.DataFrame(dict(data=["mquake"], verdict="kept", question="q", reason=""))
    result = tables.failures(verdicts, [(group, dict(trained=actual, untrained=lost))])
    assert result == [dict(data="mquake", step="untrained", text="a b", reason="too short")]


@pytest.mark.slow
def test_an_adapter_of_several_sites_has_one_site_and_as_many_descriptions(
    context, tiny, tiny_prompt, tmp_path, monkeypatch
):
    monkeypatch.setattr(measurement, "filter_questions", _verdicts)
    stack = SiteStack([0, 2])
    adapter = Adapter.create("low_rank", 32, sites=2, rank=4, init_scale=3.0).requires_grad_(False)
    adapter.contract = Contract.from_facts(model_facts(tiny()), stack, tiny_prompt, torch.zeros(64), True)
    asked = {}

    def naming(grid, bridges):
        counts = grid.cells.groupby(["prompt", "position"]).size()
        asked.setdefault(tuple(dict.fromkeys(grid.cells["site"])), set()).update(counts)
        return name_bridges(grid, bridges)

    monkeypatch.setattr(measurement, "name_bridges", naming)
    run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    singles = tuple(map(str, stack.sites))
    assert asked[str(stack),] == asked[singles] == {2}


def test_data_that_is_not_there_is_named(context, adapter, tmp_path):
    context.questions[1].path.unlink()
    with pytest.raises(FileFormatError, match=r"there is no file .*mquake_2hop_creme.*MQuAKE"):
        run_evaluation("bridges", context, adapter, tmp_path / "out.json")
    with pytest.raises(InterpToolkitError, match="the adapter has no contract"):
        run_evaluation("bridges", context, Adapter.create("scale", 32), tmp_path / "out.json")


def test_questions_are_needed(context, adapter, tmp_path):
    context.questions = context.questions[1:]
    with pytest.raises(InterpToolkitError, match="one of them with tuned=True, got 1 files, 0 of them with it"):
        run_evaluation("bridges", context, adapter, tmp_path / "out.json")


def test_old_names_of_arguments_warn():
    shown = [{("a", 0): ["Poland"]}, {("a", 0): ["Oman"]}]
    result = _found(shown, COUNTRIES[:2])
    with pytest.warns(DeprecationWarning, match="found=...\\) is deprecated; use results="):
        assert len(decode_rates(found={"trained": result}))
    with pytest.warns(DeprecationWarning, match="said=...\\) is deprecated; use count_answered="):
        assert layer_position_table(result, said=True).n.tolist() == [2]
