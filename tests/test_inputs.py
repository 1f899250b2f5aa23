"""What people pass: columns, arrays, generators, activations, numpy's numbers; and arguments that would do nothing."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_toolkit import (
    Activations,
    Adapter,
    ContractError,
    Explanations,
    InterpToolkitError,
    Sampling,
    Site,
    SoftPrompt,
    read_activations,
    self_explain,
)
from interp_toolkit.activations import site_means
from interp_toolkit.bridges import describe_grid, find_bridge_entities
from interp_toolkit.bridges.names import Entity
from interp_toolkit.chat import prompt_ids
from interp_toolkit.contract import Contract, EvidenceThreshold
from interp_toolkit.evaluation.selective_prediction import EvidenceControls
from interp_toolkit.explanations import Explanation
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import Topics
from interp_toolkit.runtime.answers import plain_answers
from interp_toolkit.sae.passages import TokenRows
from interp_toolkit.sites import SiteStack

PROMPTS = ["Tell me about rivers.", "Tell me about Poland.", "foxes?"]


@pytest.fixture
def adapter(tiny, tiny_prompt):
    """At layer 2, with a mean and a threshold that all descriptions reach."""
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    adapter.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.ones(32) / 10, True)
    adapter.contract = replace(contract, threshold=EvidenceThreshold(-99.0, 0.05, 40, 0))
    return adapter


@pytest.fixture
def explain(tiny, adapter):
    """explain(inputs, ...): descriptions of three tokens by the adapter."""

    def explain(inputs, **settings):
        fields = {name: settings.pop(name) for name in Sampling.__dataclass_fields__ if name in settings}
        sampling = Sampling(**{"max_new_tokens": 3, **fields})
        return self_explain(inputs, **{"model": tiny(), "adapter": adapter, "sampling": sampling, **settings})

    return explain


def _texts(explanations):
    return [(row.source, row.description) for row in explanations]


# Prompts.


def test_prompts_of_every_kind_of_column_go_by_position(explain):
    expected = _texts(explain(PROMPTS))
    column = pd.Series(PROMPTS, index=[7, 0, 3])
    frame = pd.DataFrame({"text": ["", *PROMPTS], "keep": [False, True, True, True]})
    for inputs in (
        column,
        column.sample(frac=1, random_state=0).loc[[7, 0, 3]],
        frame[frame.keep]["text"],
        pd.Index(PROMPTS),
        np.array(PROMPTS),
        np.array(PROMPTS, dtype=object),
        tuple(PROMPTS),
        (prompt for prompt in PROMPTS),
        dict.fromkeys(PROMPTS),
    ):
        if isinstance(inputs, dict):
            inputs = inputs.keys()
        assert _texts(explain(inputs)) == expected


def test_ids_of_every_kind(tiny, explain):
    (ids,) = prompt_ids(tiny().tokenizer, PROMPTS[:1])
    expected = [row.description for row in explain(PROMPTS[:1])]
    for inputs in (
        ids,
        [ids],
        np.array(ids),
        torch.tensor(ids),
        torch.tensor([ids]),
        [torch.tensor(ids)],
        [np.array(ids)],
    ):
        assert [row.description for row in explain(inputs)] == expected
    with pytest.raises(InterpToolkitError, match=r"shape \(2, \d+\); padding would be read as text"):
        explain(torch.tensor([ids, ids]))


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_a_missing_prompt_is_named(tiny, adapter, explain, unchecked, missing):
    for inputs in (["a", missing], pd.Series(["a", missing], dtype=object, index=[5, 6])):
        with pytest.raises(
            InterpToolkitError, match=r"prompt 1 is missing \(.*\); expected some text, or leave it out"
        ):
            explain(inputs)
    grid = describe_grid(tiny(), ["rivers", missing], adapter, samples=1)
    assert grid.failed.reason.tolist() == [f"the prompt is missing ({missing!r})"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (pd.DataFrame({"text": ["a"]}), "got DataFrame; pass a column of the data frame"),
        ({"role": "user", "content": "a"}, "a list of messages, .* got dict; pass a list of them"),
        (b"a", "got bytes"),
        (3, "got int"),
        (None, "got NoneType"),
        (pd.Series([1, 2]), "expected a text or another prompt in each row of the column, got 1"),
        ([0.5, 0.25], "prompt 0 is empty or of an unknown kind"),
        ([[3, -4]], "prompt 0 is empty or of an unknown kind"),
        (["rivers", [3, 99_999]], r"prompt 1 holds token id 99999, and the model's embedding has \d+ rows"),
        ([[True, False]], "prompt 0 is empty or of an unknown kind"),
        ([], "expected at least one prompt, got none"),
        (pd.Series([], dtype=object), "expected at least one prompt, got none"),
        (iter(()), "expected at least one prompt, got none"),
        (np.array([], dtype=object), "expected at least one prompt, got none"),
        (np.array([True, False]), "expected real numbers in the array, got bool"),
        (torch.zeros(2, 32, dtype=torch.complex64), "expected real numbers in the array, got complex64"),
        (np.zeros((2, 32), dtype=complex), "expected real numbers in the array, got complex128"),
    ],
)
def test_what_is_no_prompt_is_refused_in_a_sentence(explain, unchecked, inputs, message):
    with pytest.raises(InterpToolkitError, match=message):
        explain(inputs)


def test_columns_in_evaluations_go_by_position(tiny, adapter):
    means = site_means(tiny(), pd.Series(PROMPTS, index=[4, 2, 0]), np.array([1]))
    assert torch.equal(means[Site.after(1)], site_means(tiny(), PROMPTS, 1)[Site.after(1)])
    column = pd.Series(["rivers run", "Poland", ""], index=[2, 0, 1])
    settings = dict(sites=np.array([1]), center={1: means[Site.after(1)]}, samples=1)
    grid = describe_grid(
        tiny(), column, adapter, responses=pd.Series(["x", "y", "z"], index=[1, 2, 0]), subjects=column, **settings
    )
    assert grid.prompts.to_dict("list") == {"prompt": [0, 1], "text": ["rivers run", "Poland"], "response": ["x", "y"]}
    actual = find_bridge_entities(
        tiny(), column, pd.Series([Entity("a"), Entity("b"), Entity("c")], index=[2, 1, 0]), adapter, **settings
    )
    assert actual.prompts.bridge.tolist() == ["a", "b"]
    assert len(plain_answers(tiny(), "rivers", max_new_tokens=2)) == 1  # one prompt, not one per letter


# Vectors.


def test_vectors_of_every_kind(explain, random_vectors):
    vectors = random_vectors(3)
    expected = _texts(explain(vectors))
    array = vectors.numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    for inputs in (
        array,
        frozen,
        array.astype(np.float64),
        list(vectors),
        list(array),
        tuple(vectors),
        (row for row in vectors),
        pd.Series(list(array), index=[3, 1, 2]),
        np.array(list(array), dtype=object),
        [row[None] for row in vectors],  # as read_activations gives them prompt by prompt
        vectors.double(),
        vectors.clone().requires_grad_(),
    ):
        assert _texts(explain(inputs)) == expected
    assert _texts(explain(array[0])) == expected[:1]
    assert len(explain(np.zeros((0, 32)))) == 0
    for inputs, message in (
        ([vectors[0], vectors[1, :5]], r"got Tensor of shape \(32,\) first and Tensor of shape \(5,\) for vector 1"),
        ([vectors[0], "rivers"], r"first and str for vector 1"),
        ([vectors[None]] * 2, r"expected vectors of one width, got Tensor of shape \(1, 3, 32\) first"),
        (array[:, :5], r"expected vectors of shape \(n, 32\) or \(32,\), got \(3, 5\)"),
        (torch.tensor(1.0), r"expected vectors of shape .* got \(\)"),
        ([array[0], array[1] * np.nan], "vector 1 holds NaN or infinity"),
    ):
        with pytest.raises(InterpToolkitError, match=message):
            explain(inputs)


def test_activations_keep_where_they_were_read_and_are_centred(tiny, adapter, explain):
    read = read_activations(tiny(), PROMPTS, 2, [-1, -2])
    by_prompts, by_activations = explain(PROMPTS, positions=[-1, -2]), explain(read)
    columns = ["site", "position", "description"]
    assert by_activations.to_df()[columns].equals(by_prompts.to_df()[columns])
    assert [row.source for row in by_activations] == [f"prompt {i}" for i in (0, 0, 1, 1, 2, 2)]
    last = read.table["position"] == read.table.groupby("prompt")["position"].transform("max")
    some = Activations(read.vectors[torch.tensor(last.to_numpy())], read.table[last])
    assert [row.description for row in explain(some)] == [row.description for row in explain(PROMPTS)]
    titled = Activations(some.vectors, some.table.assign(source=PROMPTS))
    assert _texts(explain(titled)) == _texts(explain(PROMPTS))

    other = read_activations(tiny(), PROMPTS, [1, 2])
    with pytest.raises(ContractError, match=r"trained on vectors from blocks\.2.*these are from blocks\.1"):
        explain(other)
    means = {1: np.ones(32)}
    assert (
        explain(other, center=means)
        .to_df()[columns]
        .equals(explain(PROMPTS, sites=[1, 2], center=means).to_df()[columns])
    )
    with pytest.warns(UserWarning, match="nothing is subtracted there"):
        assert len(explain(other, on_mismatch="warn")) == 6
    with pytest.raises(InterpToolkitError, match="3 vectors and 2 rows; choose the same rows of both"):
        explain(Activations(some.vectors, some.table[:2]))
    with pytest.raises(InterpToolkitError, match="without 'site'; see read_activations"):
        explain(Activations(some.vectors, some.table.drop(columns="site")))
    with pytest.raises(InterpToolkitError, match=r"activations of shape \(n, 32\), got \(3, 5\)"):
        explain(Activations(some.vectors[:, :5], some.table))
    with pytest.raises(ContractError, match="trained on vectors from"):
        explain(read_activations(tiny(), PROMPTS, SiteStack([1, 2])))


# Sites, positions, numbers.


def test_numpy_numbers_are_numbers(tiny, explain):
    read = read_activations(tiny(), PROMPTS, np.int64(2), positions=np.int64(-1))
    for sites in (np.array([2]), [np.int64(2)], range(2, 3), (2,), np.array(2)):
        assert torch.equal(read_activations(tiny(), PROMPTS, sites).vectors, read.vectors)
    assert Site.parse(np.int64(3)) == Site.after(3)
    assert type(Site.parse(np.int64(3)).layer) is int
    assert SiteStack(np.array([0, 2])) == SiteStack([0, 2])
    settings = dict(n=2, seed=1, scales=[0.5, 1.0])
    numbers = dict(n=np.int64(2), seed=np.int64(1), scales=np.array([0.5, 1.0]), max_new_tokens=np.int64(3))
    for places in (dict(sites=np.int64(2)), dict(sites=[np.int32(2)]), dict(positions=np.int64(-1))):
        assert _texts(explain(PROMPTS, **numbers, **places)) == _texts(explain(PROMPTS, **settings))
    assert [row.scale for row in explain(PROMPTS[0], scales=2.0)] == [2.0]


def test_positions_of_every_kind(tiny):
    prompt = PROMPTS[0]
    every = read_activations(tiny(), prompt, 1, "all")
    n = len(every)
    mask = np.zeros(n, dtype=bool)
    mask[[1, n - 1]] = True
    for positions, expected in (
        (-1, [n - 1]),
        (0, [0]),
        (slice(-3, None), [n - 3, n - 2, n - 1]),
        (slice(None, None, 2), list(range(0, n, 2))),
        (range(1, 3), [1, 2]),
        ((2, -1), [2, n - 1]),
        (np.array([3, 1]), [3, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        (mask, [1, n - 1]),
        (mask.tolist(), [1, n - 1]),
        (torch.from_numpy(mask), [1, n - 1]),
    ):
        read = read_activations(tiny(), prompt, 1, positions)
        assert read.table["position"].tolist() == expected
        assert torch.allclose(read.vectors, every.vectors[expected], atol=1e-5)
    # A slice is cut for each prompt as Python cuts it.
    read = read_activations(tiny(), PROMPTS, 1, slice(-2, None))
    lengths = [len(row) for row in prompt_ids(tiny().tokenizer, PROMPTS)]
    assert read.table["position"].tolist() == [length - k for length in lengths for k in (2, 1)]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([], "expected at least one position, got none"),
        (np.array([], dtype=int), "expected at least one position, got none"),
        (slice(900, None), r"the positions choose none of the \d+ tokens of prompt 0"),
        ([True, False], r"a mask with a value for each of the \d+ tokens of prompt 0 .*, got 2 values"),
        ([True, 2], r"expected positions 'all', 'content', 'last' or a list of numbers .* got \[True, 2\]"),
        ([0.5], r"expected positions 'all', 'content', 'last' or a list of numbers .* got \[0.5\]"),
        ([[0], [1]], r"expected positions 'all', 'content', 'last' or a list of numbers .* got \[\[0\], \[1\]\]"),
        (None, "expected positions 'all', 'content', 'last' or a list of numbers .* got None"),
        ({0: 1}, r"expected positions 'all', 'content', 'last' or a list of numbers .* got \{0: 1\}"),
        (True, "expected positions 'all', 'content', 'last' or a list of numbers .* got True"),
        (slice("a", None), "expected a slice of whole numbers"),
        (slice(None, None, 0), "expected a slice of whole numbers"),
    ],
)
def test_positions_that_are_none_are_refused(tiny, adapter, explain, unchecked, positions, message):
    with pytest.raises(InterpToolkitError, match=message):
        explain(PROMPTS[0], positions=positions)
    if "prompt 0" not in message and "slice" not in message and positions is not True:
        with pytest.raises(InterpToolkitError, match=message):
            describe_grid(tiny(), PROMPTS[:1], adapter, positions=positions)


def test_positions_of_a_grid(tiny, adapter):
    grid = describe_grid(tiny(), PROMPTS[:1], adapter, samples=1, positions=slice(-2, None), responses=["x"])
    assert grid.cells["from_end"].tolist() == [-1, 0]
    same = describe_grid(tiny(), PROMPTS[:1], adapter, samples=1, positions=np.int64(2), responses=["x"])
    assert same.cells.equals(grid.cells)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(seed=-1), "expected seed of at least 0, got -1"),
        (dict(seed=0.5), "expected a whole number for seed, got 0.5"),
        (dict(n=2.5), "expected a whole number for n, got 2.5"),
        (dict(scales="x"), r"expected at least one scale, each a finite number, got \['x'\]"),
        (dict(temperature="0.5"), "expected a temperature of at least 0, got '0.5'"),
        (dict(adapter=3), "expected an Adapter, a path, a hub id or a name, got int"),
        (dict(scales=[float("nan")]), r"expected at least one scale, each a finite number, got \[nan\]"),
        (dict(temperature=float("nan")), "expected a temperature of at least 0, got nan"),
        (dict(top_p=0.5), "top_p would have no effect: at temperature 0"),
        (dict(centered=False), "centered would have no effect: what is read from prompts is raw"),
        (dict(on_mismatch="warn"), r"on_mismatch \(--any-layer\) would have no effect: no sites"),
        (dict(sites=True), "expected a site such as"),
        (dict(sites=[]), "expected at least one site, got none"),
        (dict(sites=1.0), "expected a site such as .* got 1.0"),
    ],
)
def test_settings_that_would_do_nothing_or_harm(explain, unchecked, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        explain(PROMPTS, **settings)


def test_arguments_about_reading_are_refused_with_vectors(tiny, explain, random_vectors):
    read = read_activations(tiny(), PROMPTS, 2)
    at = [dict(sites=2), dict(positions=[-1]), dict(positions="all")]
    for inputs, more, why in (
        (
            random_vectors(2),
            [dict(center={2: torch.ones(32)}), dict(on_mismatch="warn")],
            "vectors are taken as they are",
        ),
        (read, [dict(centered=False)], "activations are raw"),
    ):
        for settings in at + more:
            with pytest.raises(InterpToolkitError, match=f"{next(iter(settings))} would have no effect: {why}"):
                explain(inputs, **settings)


# Means.


def test_means_by_layer_name_or_site(tiny, explain):
    mean = torch.ones(32)
    by_hand = explain(read_activations(tiny(), PROMPTS, 1).vectors - 1)
    for key in (1, np.int64(1), "blocks.1.hook_resid_post", Site.after(1)):
        for value in (mean, mean.numpy(), mean.double()):
            actual = explain(PROMPTS, sites=1, center={key: value})
            assert [row.description for row in actual] == [row.description for row in by_hand]
    # At the adapter's own site, a mean that is given is taken instead.
    own = explain(PROMPTS, center={2: mean})
    by_hand = explain(read_activations(tiny(), PROMPTS, 2).vectors - 1)
    assert [row.description for row in own] == [row.description for row in by_hand]


@pytest.mark.parametrize(
    ("means", "message"),
    [
        ({1: torch.ones(31)}, r"expected a mean of shape \(32,\) for blocks\.1\.hook_resid_post, got \(31,\)"),
        (
            {1: torch.ones(4, 32)},
            r"for blocks\.1\.hook_resid_post, got \(4, 32\); of a mean per distance take .mean\(0\)",
        ),
        ({1: torch.full((32,), torch.nan)}, r"the mean for blocks\.1\.hook_resid_post holds NaN"),
        (
            {3: torch.ones(32)},
            r"a mean is given for blocks\.3\.hook_resid_post, which is not read; the sites are blocks\.1",
        ),
        ({1: torch.ones(32), Site.after(1): torch.ones(32)}, r"two means are given for blocks\.1\.hook_resid_post"),
        ({"somewhere": torch.ones(32)}, "expected a site such as"),
        ({1: "x"}, r"expected a tensor or an array as the mean for blocks\.1\.hook_resid_post, got str"),
        (torch.ones(32), r"expected means by site, such as \{19: mean\}, got Tensor of shape \(32,\)"),
    ],
)
def test_means_that_do_not_fit(tiny, adapter, explain, unchecked, means, message):
    with pytest.raises(InterpToolkitError, match=message):
        explain(PROMPTS, sites=1, center=means)
    if isinstance(means, dict) and "per distance" not in message and "NaN" not in message:  # a grid takes these
        with pytest.raises(InterpToolkitError, match=message.replace(r"\(32,\)", r"\(32,\) or \(distances, 32\)")):
            describe_grid(tiny(), PROMPTS, adapter, sites=1, samples=1, center=means)


def test_a_grid_over_sites_needs_their_means(tiny, adapter, explain):
    with pytest.raises(ContractError, match=r"these are from blocks\.0\.hook_resid_post, blocks\.1\.hook_resid_post; "):
        explain(PROMPTS, sites=[0, 1, 2])
    with pytest.raises(ContractError, match=r"these are from blocks\.0\.hook_resid_post; .*on_mismatch='warn'"):
        explain(PROMPTS, sites=[0, 1, 2], center={1: torch.ones(32)})
    with pytest.warns(UserWarning, match=r"on vectors from blocks\.2.*from blocks\.0\.hook_resid_post, without"):
        actual = explain(PROMPTS, sites=[0, 1, 2], center={1: torch.ones(32)}, on_mismatch="warn").to_df()
    for layer, settings in ((0, {}), (1, dict(center={1: torch.ones(32)})), (2, {})):
        with pytest.warns(UserWarning, match="subtracted") if layer == 0 else nullcontext():
            alone = explain(PROMPTS, sites=layer, **({"on_mismatch": "warn"} if layer == 0 else settings))
        here = actual[actual.site == str(Site.after(layer))]
        assert here.description.tolist() == [row.description for row in alone]


def test_means_of_a_stack_are_those_of_its_sites(tiny, tiny_prompt):
    stack = SiteStack([0, 2])
    adapter = Adapter.create("full_rank", 32, sites=2).requires_grad_(False)
    adapter.contract = Contract.from_facts(model_facts(tiny()), stack, tiny_prompt, torch.zeros(64), True)
    settings = dict(model=tiny(), adapter=adapter, sampling=Sampling(max_new_tokens=3))
    moved = self_explain(PROMPTS, center={0: torch.ones(32), 2: torch.ones(32)}, **settings)
    vectors = read_activations(tiny(), PROMPTS, stack)
    by_hand = self_explain(vectors.vectors - 1, **settings)
    assert [row.description for row in moved] == [row.description for row in by_hand]
    assert [row.description for row in self_explain(vectors, **settings)] == [
        row.description for row in self_explain(PROMPTS, **settings)
    ]
    with pytest.raises(InterpToolkitError, match=r"a mean for each site of blocks.0.* \+ blocks.2.*, got one for"):
        self_explain(PROMPTS, center={0: torch.ones(32)}, **settings)


# Verdicts.


def _verdicts(explanations):
    return {row.above_threshold for row in explanations}


def test_a_verdict_is_given_only_where_the_threshold_is_calibrated(tiny, adapter, explain, random_vectors):
    longest = dict(max_new_tokens=EvidenceThreshold.MAX_NEW_TOKENS)
    vectors, mean = random_vectors(3), torch.ones(32)
    raw = read_activations(tiny(), PROMPTS, 2)
    for inputs, settings in ((PROMPTS, {}), (vectors, {}), (raw.vectors, dict(centered=False)), (raw, {})):
        assert _verdicts(explain(inputs, **longest, **settings)) == {True}
    other_prompt = SoftPrompt.for_chat(tiny().tokenizer, 'Repeat this: "{slot}"', '"')
    for settings in (
        dict(n=6),
        dict(n=6, temperature=0.1),
        dict(temperature=0.7),
        dict(scales=[2.0]),
        dict(adapter=adapter.with_soft_prompt(other_prompt)),
        dict(max_new_tokens=3),
        dict(max_new_tokens=48),
    ):
        for inputs in (PROMPTS[:1], vectors[:1], Activations(raw.vectors[:1], raw.table[:1])):
            assert _verdicts(explain(inputs, **{**longest, **settings})) == {None}
    for settings in (dict(sites=1, center={1: mean}), dict(center={2: mean})):
        assert _verdicts(explain(PROMPTS[:1], **longest, **settings)) == {None}
    with pytest.warns(UserWarning, match="nothing is subtracted"):
        assert _verdicts(explain(PROMPTS[:1], sites=1, on_mismatch="warn", **longest)) == {None}
    # Each row by itself.
    swept = explain(PROMPTS[:1], include_null=True, scales=[0.5, 1.0], **longest)
    assert [row.above_threshold for row in swept] == [None, True, True]
    with pytest.warns(UserWarning, match="nothing is subtracted"):
        grid = explain(PROMPTS[:1], sites=[1, 2], on_mismatch="warn", **longest)
    assert [row.above_threshold for row in grid] == [None, True]


def test_vectors_that_still_hold_the_mean_have_no_verdict(tiny, adapter, random_vectors):
    mean = torch.full((32,), 10.0)
    adapter.contract = replace(adapter.contract, mean=mean)
    vectors = random_vectors(4) - random_vectors(4).mean(1, keepdim=True)
    settings = dict(model=tiny(), adapter=adapter)
    assert _verdicts(self_explain(vectors, **settings)) == {True}
    assert _verdicts(self_explain(vectors + mean, **settings)) == {None}
    assert _verdicts(self_explain(vectors + mean, centered=False, **settings)) == {True}


# Shown.


def test_what_is_long_is_shown_short():
    rows = [
        Explanation(f"prompt {i}", "blocks.2.hook_resid_post", 7, 0, f"description {i}", -1.0, 2.5, None, 1.0)
        for i in range(3000)
    ]
    shown = repr(Explanations(rows))
    assert len(shown) < 2000
    for i in range(3000):
        assert (f"description {i} " in shown) == (i < 5 or i >= 2995)
    assert "2,990 more: see to_df() or to_text()" in shown
    assert len(Explanations(rows)._repr_html_()) < 30_000
    assert len(Explanations(rows).to_text().splitlines()) == 3001
    assert repr(Explanations(rows[:60])).count("\n") == 61  # all of them
    assert "more" not in repr(Explanations(rows[:60]))
    long = Explanations([replace(rows[0], source="word " * 20_000)] * 100)
    assert max(len(repr(long)), len(long._repr_html_())) < 60_000


def test_result_objects_are_shown_short():
    many = torch.zeros(3000)
    for shown, size in (
        (Activations(torch.zeros(3000, 32), pd.DataFrame({"prompt": range(3000)})), "float32 [3000, 32]"),
        (EvidenceControls(many, many, many, ("x",) * 3000), "(3,000)"),
        (TokenRows(((1, 2, 3),) * 3000, tuple(range(3000))), "(3,000)"),
        (Topics(["x"] * 3000, [("x",)] * 3000, None), "(3,000)"),
        (Contract("m", 576, Site.after(2), None, mean=torch.zeros(576)), "mean=float32 [576]"),
    ):
        assert len(repr(shown)) < 1000
        assert size in repr(shown)
        assert repr(shown).startswith(f"{type(shown).__name__}(")
