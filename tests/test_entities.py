import json

import pandas as pd
import pytest
import torch

from interp_toolkit import Adapter, ContractError, InterpToolkitError, Sampling, Site, read_activations, self_explain
from interp_toolkit import activations as module
from interp_toolkit.activations import site_means, stack_sites
from interp_toolkit.bridges.entities import extract_entities
from interp_toolkit.bridges.grid import CELLS, Grid, describe_grid
from interp_toolkit.bridges.twohop import continuations
from interp_toolkit.chat import prompt_ids
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.sites import SiteStack

PROMPTS = ["Tell me about rivers", "0 is the history of Poland", "Zebra"]


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    mean = torch.randn(32, generator=torch.Generator().manual_seed(2)) * 0.1
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, mean, True)
    return made


@pytest.mark.parametrize("chat", [False, True])
def test_content_is_the_prompt_without_the_template(tiny, adapter, chat):
    grid = describe_grid(tiny(), PROMPTS, adapter, samples=1, chat=chat)
    for i, own in grid.cells.groupby("prompt"):
        assert "".join(own.token) == PROMPTS[i]
        assert own.from_end.tolist() == list(range(1 - len(own), 1))
    whole = describe_grid(tiny(), PROMPTS, adapter, samples=1, chat=chat, positions="all")
    ids = prompt_ids(tiny().tokenizer, PROMPTS, chat)
    assert whole.cells.groupby("prompt").position.apply(list).tolist() == [list(range(len(row))) for row in ids]
    assert (whole.cells.from_end.max() > 0) == chat
    last = describe_grid(tiny(), PROMPTS, adapter, samples=1, chat=chat, positions=2).cells
    assert last.groupby("prompt").from_end.apply(list).tolist() == [[-1, 0]] * 3


def test_a_grid_is_what_the_steps_by_hand_give(tiny, adapter):
    model, site = tiny(), Site.after(1)
    means = {site: torch.linspace(-1, 1, 32)}
    grid = describe_grid(model, PROMPTS, adapter, sites=[1, 2], samples=2, seed=3, center=means)
    assert tuple(grid.cells.columns) == CELLS
    read = read_activations(model, PROMPTS, [1, 2], "all", chat=False)
    keep = (read.table.position > 0).to_numpy()  # the token that begins the text is not the prompt's
    vectors, table = read.vectors[torch.tensor(keep)], read.table[keep].reset_index(drop=True)
    shallow = torch.tensor((table.site == str(site)).to_numpy())
    vectors[shallow] -= means[site]
    vectors[~shallow] -= adapter.contract.mean
    result = self_explain(
        vectors, model=model, adapter=adapter, sampling=Sampling(n=2, seed=3, max_new_tokens=16)
    ).to_df()
    assert grid.cells.description.tolist() == result.description.tolist()
    assert grid.cells.evidence.tolist() == pytest.approx(result.evidence.tolist(), abs=1e-4, nan_ok=True)
    assert grid.cells["sample"].tolist() == [0, 1] * len(table)
    for name in ("prompt", "site", "position", "token"):
        assert grid.cells[name].tolist() == table[name].repeat(2).tolist()
    assert grid.prompts.response.tolist() == continuations(model, PROMPTS)
    assert grid.prompts.text.tolist() == PROMPTS
    assert grid.failed.empty


def test_means_are_of_tokens_as_far_from_the_end(tiny, monkeypatch):
    monkeypatch.setattr(module, "_FEWEST", 2)
    prompts = ["one two three four five", "Poland and rivers are", "fox"]
    for chat in (False, True):
        means = site_means(tiny(), prompts, [1, 3], chat=chat)
        read = read_activations(tiny(), prompts, 3, "all", chat=chat)
        skipped = 0 if not chat else len(prompt_ids(tiny().tokenizer, ["Q"])[0]) - 1 - _tail(tiny())
        rows = []
        for i in range(3):
            own = read.vectors[torch.tensor((read.table.prompt == i).to_numpy())]
            rows.append(own[skipped or 1 :].flip(0))
        second = sorted(map(len, rows))[1]
        assert means[Site.after(3)].shape == (second, 32)
        for distance in range(second - 1):
            expected = torch.stack([row[distance] for row in rows if len(row) > distance]).mean(0)
            assert torch.allclose(means[Site.after(3)][distance], expected, atol=1e-4)
        rest = torch.cat([row[second - 1 :] for row in rows]).mean(0)
        assert torch.allclose(means[Site.after(3)][-1], rest, atol=1e-4)
    with pytest.raises(InterpToolkitError, match="at least two prompts to take a mean over, got 1"):
        site_means(tiny(), ["a"], 1)


def _tail(model):
    """Tokens that the template writes behind a user's turn."""
    ids = prompt_ids(model.tokenizer, ["Q"])[0]
    return len(ids) - 1 - ids.index(model.tokenizer("Q", add_special_tokens=False)["input_ids"][0])


def test_means_by_distance_are_taken_off_each_prompt(tiny, adapter):
    model, site = tiny(), Site.after(1)
    means = [{site: torch.randn(3, 32, generator=torch.Generator().manual_seed(i))} for i in range(3)]
    grid = describe_grid(model, PROMPTS, adapter, sites=1, samples=1, center=means)
    for i, prompt in enumerate(PROMPTS):
        raw = read_activations(model, [prompt], 1, "all", chat=False).vectors[1:]
        taken = means[i][site][[min(2, len(raw) - 1 - k) for k in range(len(raw))]]
        result = self_explain(raw - taken, model=model, adapter=adapter, sampling=Sampling(max_new_tokens=16))
        assert grid.cells.description[grid.cells.prompt == i].tolist() == [row.description for row in result]
    alone = describe_grid(model, PROMPTS[1:2], adapter, sites=1, samples=1, center=means[1])
    assert alone.cells.description.tolist() == grid.cells.description[grid.cells.prompt == 1].tolist()


def test_an_adapter_of_several_sites_reads_them_together(tiny, tiny_prompt):
    model, stack = tiny(), SiteStack([0, 2])
    adapter = Adapter.create("low_rank", 32, sites=2, rank=4, init_scale=3.0).requires_grad_(False)
    mean = torch.linspace(-1, 1, 64)
    adapter.contract = Contract.from_facts(model_facts(model), stack, tiny_prompt, mean, True)
    read = read_activations(model, PROMPTS, stack.sites, "all", chat=False)
    read = stack_sites(read, stack)
    vectors = read.vectors[torch.tensor((read.table.position > 0).to_numpy())]
    means = {site: torch.full((32,), float(i)) for i, site in enumerate(stack.sites)}
    for given, taken in ((None, mean), (means, torch.cat(list(means.values())))):
        grid = describe_grid(model, PROMPTS, adapter, samples=1, center=given)
        result = self_explain(vectors - taken, model=model, adapter=adapter, sampling=Sampling(max_new_tokens=16))
        assert grid.cells.description.tolist() == [row.description for row in result]
        assert set(grid.cells.site) == {str(stack)}
    with pytest.raises(ContractError, match="or use an adapter for these"):
        describe_grid(model, PROMPTS, adapter, sites=[1])


def test_positions_count_from_the_subject(tiny, adapter):
    prompts = ["The history of Poland is this", "that of Poland", "no subject"]
    grid = describe_grid(tiny(), prompts, adapter, samples=1, subjects=["poland", "Poland", ""])
    for i, behind in ((0, " is this"), (1, "")):
        own = grid.cells[grid.cells.prompt == i]
        assert "".join(own.token[own.from_subject > 0]) == behind
        assert "".join(own.token[own.from_subject <= 0]).endswith("Poland")
    assert grid.cells.from_subject[grid.cells.prompt == 2].isna().all()


def test_a_bad_prompt_does_not_lose_the_rest(tiny, adapter):
    prompts = ["Tell me about rivers", " ", "f", "Tell me about rivers"]
    means = [{Site.after(2): torch.zeros(32)}] * 3 + [{Site.after(2): torch.full((32,), torch.nan)}]
    grid = describe_grid(tiny(), prompts, adapter, samples=1, positions=[-5, -1], center=means, responses=list("abcd"))
    first = len(prompt_ids(tiny().tokenizer, prompts[3:], False)[0]) - 5
    assert dict(zip(grid.failed.prompt, grid.failed.reason)) == {
        1: "the prompt is empty",
        2: "position -5 does not exist: the prompt has 2 tokens",
        3: f"the vector at blocks.2.hook_resid_post, position {first}, is zero or not finite",
    }
    assert grid.failed.text.tolist() == prompts[1:]
    assert set(grid.cells.prompt) == {0}
    alone = describe_grid(tiny(), prompts[:1], adapter, samples=1, positions=[-5, -1], center=means[:1])
    assert grid.cells.description[grid.cells.prompt == 0].tolist() == alone.cells.description.tolist()
    assert grid.prompts.to_dict("records") == [dict(prompt=0, text=prompts[0], response="a")]


@pytest.mark.parametrize(("chat", "longest"), [(False, 10), (True, 40)])
def test_a_chat_answer_is_followed_to_where_it_names_something(tiny, adapter, chat, longest):
    grid = describe_grid(tiny(), PROMPTS[:1], adapter, samples=1, positions=1, chat=chat)
    assert grid.prompts.response.tolist() == continuations(tiny(), PROMPTS[:1], chat=chat, max_new_tokens=longest)


def test_no_prompt_is_left(tiny, adapter):
    grid = describe_grid(tiny(), ["", " "], adapter)
    assert grid.cells.empty
    assert grid.prompts.empty
    assert tuple(grid.cells.columns) == CELLS
    assert extract_entities(grid).empty


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(sites=[1]), r"no mean is known for blocks\.1\.hook_resid_post.*pass center=site_means"),
        (dict(positions="first"), "expected positions 'content', 'all', 'last', a number or a list"),
        (dict(positions=0), "expected a number of tokens of at least 1, got 0"),
        (dict(responses=["a"]), "expected responses for each of 3 prompts, got 1"),
        (dict(subjects=["a"] * 4), "expected subjects for each of 3 prompts, got 4"),
        (dict(center=[{}]), "expected center for each of 3 prompts, got 1"),
        (dict(samples=0), "expected n of at least 1, got 0"),
    ],
)
def test_mistakes_are_named(tiny, adapter, unchecked, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        describe_grid(tiny(), PROMPTS, adapter, **settings)


def test_other_models_and_untrained_adapters_are_refused(tiny, adapter):
    with pytest.raises(ContractError, match="load the adapter's own model"):
        describe_grid(tiny("qwen2"), PROMPTS, adapter)
    with pytest.raises(InterpToolkitError, match="the adapter has no contract"):
        describe_grid(tiny(), PROMPTS, Adapter.create("scale", 32))


def test_grids_are_joined_and_kept(tiny, adapter):
    whole = describe_grid(tiny(), ["", *PROMPTS], adapter, samples=1, subjects=["", "rivers", "", ""])
    parts = [
        describe_grid(tiny(), ["", PROMPTS[0]], adapter, samples=1, subjects=["", "rivers"]),
        describe_grid(tiny(), PROMPTS[1:], adapter, samples=1, subjects=["", ""]),
    ]
    joined = Grid.join([Grid.from_dict(json.loads(json.dumps(part.to_dict()))) for part in parts])
    # Evidence is a difference of float32 log-probabilities of about ln(vocabulary). Other batches round it otherwise,
    # and where it is near nothing that is a large part of it, so the bound has an absolute part.
    for name in ("cells", "prompts", "failed"):
        pd.testing.assert_frame_equal(getattr(joined, name), getattr(whole, name), check_dtype=False, atol=1e-5)
    assert joined.cells.dtypes.equals(whole.cells.dtypes)


# Entities without a gold list.


def _grid(result, prompts):
    """A grid of (prompt, position, description, evidence)."""
    rows = [
        dict(prompt=i, site="s", position=p, from_end=p, from_subject=None, token=f"t{p}", sample=k, description=text)
        | dict(evidence=evidence)
        for k, (i, p, text, evidence) in enumerate(result)
    ]
    frame = pd.DataFrame([(i, *x) for i, x in enumerate(prompts)], columns=["prompt", "text", "response"])
    return Grid(pd.DataFrame(rows), frame, pd.DataFrame(columns=["prompt", "text", "reason"]))


def test_entities_are_ranked_by_evidence_over_cells_less_the_habit():
    result = [
        (0, 0, "Poland", 2.0),
        (0, 0, "Poland's rivers", 3.0),
        (0, 1, "the history of poland", 5.0),
        (0, 1, "Economy of Poland", 1.0),
        (0, 2, "Sweden", 3.5),
        (0, 2, "Opera", 4.5),
        (0, 3, "Warsaw", 9.0),
        (0, 3, "The currency", 9.0),
        (0, 3, "Germany", float("nan")),
        (1, 0, "Opera", 4.0),
    ]
    prompts = [("The currency of the country of Warsaw", "the euro"), ("one", "two"), ("three", "four")]
    actual = extract_entities(_grid(result, prompts)).set_index(["prompt", "entity"])
    # At position 0 the best sample counts once; at position 1 only the one that writes it as a name.
    assert actual.score[0, "Poland"] == 3.0 + 1.0
    assert actual.cells[0, "Poland"] == 2
    assert actual.evidence[0, "Poland"] == 3.0
    assert actual.description[0, "Poland"] == "Poland's rivers"
    assert actual.token[0, "Poland"] == "t0"
    assert actual.score[0, "Opera"] == 4.5 / 2
    assert actual.elsewhere[0, "Opera"] == 0.5
    assert actual.score[1, "Opera"] == 4.0 / 2
    own = actual.loc[0].sort_values("rank")
    assert own["rank"].tolist() == list(range(1, len(own) + 1))
    assert own.score.is_monotonic_decreasing
    # What the prompt says, and a text without evidence, are no finds.
    assert not {"Warsaw", "The", "The currency", "Germany"} & set(own.index)
    assert extract_entities(_grid(result, prompts), limit=1).groupby("prompt").size().tolist() == [1, 1]


def test_what_the_response_says_in_other_words_order_or_accents_is_no_find():
    result = [(0, 0, "República de Polónia", 1.0), (0, 0, "Poland Republic", 1.0), (0, 0, "Republic Square", 1.0)]
    actual = extract_entities(_grid(result, [("x", "the Republic of Poland, Polonia")]))
    assert set(actual.entity) == {"República de Polónia", "República", "Republic Square"}
