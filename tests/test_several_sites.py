"""Adapters that read several sites together and make several soft tokens, and their start in closed form."""

import math

import numpy as np
import pytest
import torch

from interp_toolkit import (
    Adapter,
    ContractError,
    InterpToolkitError,
    SoftPrompt,
    TrainConfig,
    VectorLabelPairs,
    read_activations,
    self_explain,
    train_adapter,
)
from interp_toolkit.activations import stack_sites
from interp_toolkit.adapters import truncated
from interp_toolkit.pairs import topic_pairs, topic_vectors
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.sites import SiteStack, parse_place
from interp_toolkit.training.examples import Examples
from interp_toolkit.training.objective import losses
from interp_toolkit.training.recipe import Recipe
from interp_toolkit.training.start import ridge_init

WORDS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over"]
STACK = SiteStack([0, 2])


def _adapter(kind="low_rank", sites=2, tokens=3, **settings):
    rank = dict(rank=5) if kind == "low_rank" else {}
    return Adapter.create(kind, 32, sites=sites, tokens=tokens, init_scale=2.0, **rank, **settings)


@pytest.fixture
def prompt(tiny_tokenizer):
    return SoftPrompt.for_chat(tiny_tokenizer, 'Repeat "{slot}"', '"', tokens=3)


def _pairs(random_vectors, n=48):
    directions = random_vectors(8, 64, seed=5)
    vectors = directions.repeat(n // 8, 1) + 0.1 * random_vectors(n, 64, seed=6)
    splits = ["val" if i >= n - 8 else "train" for i in range(n)]
    return VectorLabelPairs.from_tensors(
        vectors, WORDS * (n // 8), splits=splits, site=STACK, mean=torch.linspace(-1, 1, 64), origin={}
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SiteStack([4, 10]), "blocks.4.hook_resid_post + blocks.10.hook_resid_post"),
        ("hook_embed + blocks.3.hook_resid_mid", "hook_embed + blocks.3.hook_resid_mid"),
        (["blocks.9.hook_resid_post"], "blocks.9.hook_resid_post"),
        (7, "blocks.7.hook_resid_post"),
    ],
)
def test_places_print_as_they_are_read(value, text):
    place = parse_place(value)
    assert str(place) == text
    assert parse_place(text) == parse_place(place) == place
    assert isinstance(place, SiteStack) == (len(place.sites) > 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "at least two sites and none twice, got none"),
        ([3, 3], "none twice, got blocks.3.hook_resid_post"),
        ("blocks.1.hook_resid_post + nowhere", "got 'nowhere'"),
    ],
)
def test_what_is_no_place(value, message):
    with pytest.raises(InterpToolkitError, match=message):
        parse_place(value)


@pytest.mark.parametrize("kind", ["bias_only", "low_rank", "full_rank"])
def test_formula(random_vectors, kind):
    adapter = _adapter(kind)
    with torch.no_grad():
        adapter.bias.copy_(random_vectors(1, 96)[0])
    vectors = random_vectors(4, 64)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(vectors.double().numpy(), 2, 1)]
    x = np.concatenate(unit, 1)
    matrix = {
        "bias_only": lambda: np.zeros((64, 96)),
        "low_rank": lambda: (adapter.U @ adapter.V.T).double().detach().numpy(),
        "full_rank": lambda: adapter.weight.T.double().detach().numpy(),
    }[kind]()
    expected = (x @ matrix + adapter.bias.double().detach().numpy()).reshape(4, 3, 32)
    assert np.allclose(adapter(vectors).detach().numpy(), expected, atol=1e-5)
    assert torch.allclose(adapter(vectors[0]), adapter(vectors)[0], atol=1e-6)
    assert torch.equal(adapter.null().flatten(), adapter.bias)


def test_settings_that_make_no_adapter():
    with pytest.raises(
        InterpToolkitError, match="several sites or soft tokens belong to the kinds .* got kind 'scale'"
    ):
        Adapter.create("scale", 32, sites=2)
    with pytest.raises(InterpToolkitError, match="without identity_start"):
        Adapter.create("full_rank", 32, tokens=2, identity_start=True)
    with pytest.raises(InterpToolkitError, match="sites and tokens of at least 1, got 0 and 1"):
        Adapter.create("full_rank", 32, sites=0)
    with pytest.raises(
        InterpToolkitError, match=r"shape \(n, 64\) or \(64,\), got \(1, 32\); .* d_model 32 at 2 sites"
    ):
        _adapter()(torch.ones(1, 32))


def test_loss_and_gradients_are_those_of_a_plain_implementation(
    tiny, tiny_hf, prompt, random_vectors, backend, architecture
):
    run, hf, adapter = PromptRun(tiny(architecture, backend), prompt), tiny_hf(architecture), _adapter()
    targets, vectors = prompt.targets(run.model.tokenizer, WORDS), random_vectors(8, 64)
    ours = losses(run, adapter, vectors, targets)
    theirs = []
    for tokens, target in zip(adapter(vectors), targets):
        ids = torch.tensor([[*run.tokens.ids, *target]])
        embeddings = hf.get_input_embeddings()(ids).clone()
        for slot, token in zip(run.tokens.slots, tokens, strict=True):
            embeddings[0, slot] = token
        logits = hf(inputs_embeds=embeddings).logits[0, len(run.tokens.ids) - 1 : -1]
        theirs.append(torch.nn.functional.cross_entropy(logits, torch.tensor(target)))
    theirs = torch.stack(theirs)
    assert torch.allclose(ours, theirs, atol=1e-4)
    gradients = []
    for value in (ours, theirs):
        adapter.zero_grad()
        value.mean().backward()
        gradients.append([parameter.grad.clone() for parameter in adapter.parameters()])
    for got, wanted in zip(*gradients, strict=True):
        assert (got - wanted).norm() <= 1e-4 * max(1.0, wanted.norm().item())


def test_slots_take_the_soft_tokens_in_turn(tiny, tiny_tokenizer, random_vectors):
    tokens = random_vectors(4, 32).view(2, 2, 32)
    texts = []
    for question, given in (('"{slot}" "{slot}"', tokens), ('"{slot}" "{slot}"', tokens.flip(1))):
        prompt = SoftPrompt.for_chat(tiny_tokenizer, question, '"', tokens=2)
        run = PromptRun(tiny(), prompt)
        assert len(run.tokens.slots) == 4
        texts.append(score(run, given, prompt.targets(tiny_tokenizer, WORDS[:2])).mean())
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)
    # Rows of one soft token are the same whether it comes with an axis of its own or not.
    run = PromptRun(tiny(), SoftPrompt.for_chat(tiny_tokenizer))
    assert generate(run, tokens[:, 0]) == generate(run, tokens[:, :1])


def test_slots_that_are_not_filled_evenly(tiny, tiny_prompt, random_vectors):
    run = PromptRun(tiny(), tiny_prompt)
    with pytest.raises(InterpToolkitError, match="expected a prompt with 3 slots, or 6 and so on, .* got 2; see SoftP"):
        generate(run, random_vectors(3, 32)[None])


def test_stacked_readings_are_the_single_ones_side_by_side(tiny):
    prompts = ["Tell me about Poland.", "rivers"]
    read = read_activations(tiny(), prompts, STACK.sites, [-3, -1])
    stacked = stack_sites(read, STACK)
    assert stacked.table[["prompt", "position"]].values.tolist() == [
        [row.prompt, row.position] for row in read.table.itertuples() if row.site == "blocks.0.hook_resid_post"
    ]
    for vector, row in zip(stacked.vectors, stacked.table.itertuples()):
        for part, site in zip(vector.split(32), STACK.sites):
            here = (read.table["prompt"] == row.prompt) & (read.table["position"] == row.position)
            (number,) = np.flatnonzero(here & (read.table["site"] == str(site)))
            assert torch.equal(part, read.vectors[number])


def test_topic_vectors_of_several_sites(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    titles = ["Poland", "rivers", "a fox", "history"]
    stack = SiteStack([2, 0])
    both = topic_vectors(tiny(), titles, stack)
    assert torch.equal(both, torch.cat([topic_vectors(tiny(), titles, site) for site in (2, 0)], 1))
    pairs = topic_pairs(tiny(), titles, stack, splits=["train"] * 3 + ["val"])
    assert (pairs.width, str(pairs.site)) == (64, "blocks.2.hook_resid_post + blocks.0.hook_resid_post")
    assert torch.allclose(pairs.split("train").vectors.mean(0), torch.zeros(64), atol=1e-4)
    pairs.save(tmp_path / "pairs")
    assert VectorLabelPairs.load(tmp_path / "pairs").site == pairs.site


@pytest.fixture
def trained(tiny, prompt, random_vectors):
    adapter = _adapter("full_rank")
    config = TrainConfig(epochs=1, batch_size=8, log_samples=0, val_examples=8, ridge_init=0.03)
    return train_adapter(tiny(), _pairs(random_vectors), adapter, config, soft_prompt=prompt, progress=False).adapter


def test_an_adapter_of_several_sites_explains_prompts_and_vectors(tiny, trained, tmp_path, random_vectors):
    trained.save_pretrained(tmp_path / "a")
    adapter = Adapter.from_pretrained(tmp_path / "a")
    assert (adapter.digest, adapter.contract.site, adapter.contract.mean.shape) == (trained.digest, STACK, (64,))
    assert "sites=2, tokens=3" in repr(adapter)
    actual = self_explain(
        ["Tell me about Poland.", "rivers"], model=tiny(), adapter=adapter, positions="all", include_null=True
    )
    assert {row.site for row in actual} == {str(STACK), ""}
    last = [row for row in actual if row.source == "rivers"][-1]
    vector = torch.cat([read_activations(tiny(), "rivers", site).vectors for site in (0, 2)], 1)
    assert torch.equal(read_activations(tiny(), "rivers", STACK).vectors, vector)
    (again,) = self_explain(vector, model=tiny(), adapter=adapter, centered=False)
    assert again.description == last.description
    assert again.evidence == pytest.approx(last.evidence, abs=1e-4)
    for sites in (2, SiteStack([2, 0]), SiteStack([0, 1, 2])):
        with pytest.raises(ContractError, match="read what it was trained on, or use an adapter for these"):
            self_explain("rivers", model=tiny(), adapter=adapter, sites=sites)
    with pytest.warns(DeprecationWarning, match=r"a list for the stack .*SiteStack\(\['blocks.0.hook_resid_post', "):
        assert len(self_explain("rivers", model=tiny(), adapter=adapter, sites=[0, 2])) == 1
    with pytest.raises(InterpToolkitError, match=r"shape \(n, 64\) or \(64,\), got \(2, 32\); .* at blocks.0"):
        self_explain(random_vectors(2), model=tiny(), adapter=adapter)
    with pytest.raises(InterpToolkitError, match="the published format has adapters of one site and one soft token"):
        adapter.save_published(tmp_path / "a.safetensors")


def test_a_file_of_half_the_size(trained, tmp_path):
    for dtype in (torch.float32, torch.float16):
        trained.save_pretrained(tmp_path / str(dtype), dtype)
    sizes = [(tmp_path / str(x) / "adapter_model.safetensors").stat().st_size for x in (torch.float32, torch.float16)]
    assert sizes[1] < 0.6 * sizes[0]
    read = Adapter.from_pretrained(tmp_path / "torch.float16")
    for name, value in trained.state_dict().items():
        assert read.state_dict()[name].dtype == torch.float32
        assert torch.equal(read.state_dict()[name], value.half().float())


def test_a_file_whose_parts_name_different_numbers_of_sites(trained, tmp_path):
    trained.save_pretrained(tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(config.read_text().replace('"sites": 2', '"sites": 1'))
    with pytest.raises(InterpToolkitError, match="contradicts itself: 1 sites in the adapter, blocks.0"):
        Adapter.from_pretrained(tmp_path / "a")


def test_widths_that_do_not_fit(tiny, random_vectors):
    with pytest.raises(InterpToolkitError, match="32 of the adapter for 1 site, and vectors of width 64; make the ada"):
        train_adapter(tiny(), _pairs(random_vectors), Adapter.create("full_rank", 32), progress=False)


@pytest.mark.parametrize("kind", ["full_rank", "low_rank"])
def test_ridge_start_is_the_regression(tiny, prompt, random_vectors, architecture, kind):
    run = PromptRun(tiny(architecture), prompt)
    examples = Examples.from_pairs(_pairs(random_vectors).split("train"), run)
    adapter = _adapter("full_rank") if kind == "full_rank" else Adapter.create(kind, 32, sites=2, tokens=3, rank=64)
    ridge_init(run, adapter, examples, 0.1)
    x = adapter.directions(examples.pairs.vectors).double().numpy()
    # hook_embed is after Gemma's factor.
    factor = math.sqrt(32) if architecture == "gemma2" else 1.0
    rows = run.model.original_model.get_input_embeddings().weight.double() * factor
    wanted = []
    for label in WORDS * 5:
        ids = run.model.tokenizer(label + '"', add_special_tokens=False)["input_ids"]
        wanted.append(rows[[ids[min(i, len(ids) - 1)] for i in range(3)]].flatten().numpy())
    y = np.stack(wanted)
    centred = x - x.mean(0)
    cov = centred.T @ centred / len(x)
    fit = np.linalg.solve(cov + 0.1 * cov.diagonal().mean() * np.eye(64), centred.T @ (y - y.mean(0)) / len(x))
    expected = y.mean(0) + 2.0 * centred @ fit
    got = adapter(examples.pairs.vectors).detach().flatten(1).numpy()
    assert np.allclose(got, expected, atol=1e-3 * np.abs(expected).max())


def test_a_ridge_start_of_low_rank_is_the_best_of_its_rank(tiny, prompt, random_vectors):
    run = PromptRun(tiny(), prompt)
    examples = Examples.from_pairs(_pairs(random_vectors).split("train"), run)
    full, low = _adapter("full_rank"), _adapter("low_rank")
    for adapter in (full, low):
        ridge_init(run, adapter, examples, 0.1)
    vectors = examples.pairs.vectors
    fitted, near = ((f - f.mean(0)) for f in (full(vectors).detach().flatten(1), low(vectors).detach().flatten(1)))
    left = torch.linalg.svdvals(fitted)[5:].square().sum()
    assert (fitted - near).square().sum() == pytest.approx(left.item(), rel=1e-3, abs=1e-6)


def test_a_ridge_start_refuses_what_it_cannot_fit(tiny, prompt, tiny_prompt, random_vectors):
    examples = Examples.from_pairs(_pairs(random_vectors), PromptRun(tiny(), prompt))
    with pytest.raises(InterpToolkitError, match="low_rank and full_rank adapters, got 'bias_only'"):
        ridge_init(PromptRun(tiny(), prompt), _adapter("bias_only"), examples, 0.1)
    with pytest.raises(
        InterpToolkitError, match="writes at blocks.1.hook_resid_pre; leave it out, or write at hook_em"
    ):
        ridge_init(PromptRun(tiny(), prompt.at("blocks.1.hook_resid_pre")), _adapter(), examples, 0.1)
    with pytest.raises(InterpToolkitError, match="ridge_init above 0, got 0"):
        TrainConfig(ridge_init=0.0)


def test_truncation_is_the_nearest_of_its_rank_on_the_vectors(random_vectors):
    full = _adapter("full_rank")
    with torch.no_grad():
        full.bias.copy_(random_vectors(96, 1)[0])
    # Of a spread that differs by direction, so that the singular values of the matrix alone would choose wrongly.
    vectors = random_vectors(200, 64) * torch.linspace(0.1, 3, 64) + 0.5
    low = truncated(full, 7, [vectors[:90], vectors[90:]])
    assert (low.config.kind, low.config.rank) == ("low_rank", 7)
    wanted = (full.directions(vectors) @ full.weight.T + full.bias).detach().double()
    centred = wanted - wanted.mean(0)
    left = torch.linalg.svdvals(centred)[7:].square().sum()
    got = low(vectors).detach().flatten(1).double()
    assert (got - wanted).square().sum() == pytest.approx(left.item(), rel=1e-3)
    assert torch.allclose(got.mean(0), wanted.mean(0), atol=1e-4)


def test_truncation_refuses_what_it_cannot_use(random_vectors):
    with pytest.raises(InterpToolkitError, match="expected a full_rank adapter to truncate, got 'low_rank'"):
        truncated(_adapter("low_rank"), 3, [random_vectors(4, 64)])
    with pytest.raises(InterpToolkitError, match="vectors to be near on, got none"):
        truncated(_adapter("full_rank"), 3, [])


def test_whole_numbers_take_a_quarter_of_the_space(trained, random_vectors, tmp_path):
    sizes = {}
    for dtype in (torch.float32, torch.int8):
        trained.save_pretrained(tmp_path / str(dtype), dtype)
        sizes[dtype] = (tmp_path / str(dtype) / "adapter_model.safetensors").stat().st_size
    read = Adapter.from_pretrained(tmp_path / "torch.int8")
    for name, value in trained.state_dict().items():
        step = value.abs().amax(0) / 127 if value.ndim == 2 else torch.zeros(1)
        assert ((read.state_dict()[name] - value).abs() <= 0.501 * step + 1e-12).all()
    matrices = sum(value.numel() for value in trained.state_dict().values() if value.ndim == 2)
    assert sizes[torch.float32] - sizes[torch.int8] > 2.5 * matrices
    # Once rounded, nothing is lost any more.
    read.save_pretrained(tmp_path / "again", torch.int8)
    assert torch.allclose(
        Adapter.from_pretrained(tmp_path / "again")(random_vectors(5, 64)), read(random_vectors(5, 64))
    )


def test_dtypes_that_files_do_not_know(trained, tmp_path):
    with pytest.raises(InterpToolkitError, match="dtype of float32, float16, bfloat16 or int8, got torch.int64"):
        trained.save_pretrained(tmp_path / "a", torch.int64)
    with (
        pytest.warns(DeprecationWarning, match="Adapter.save is deprecated; use Adapter.save_published"),
        pytest.raises(InterpToolkitError, match="dtype of float32 in a published format, got torch.int8"),
    ):
        trained.save(tmp_path / "a.pt", torch.int8)


def test_recipe_of_several_sites(tmp_path):
    written = tmp_path / "run.yaml"
    written.write_text(
        "output: out\nadapter: {kind: low_rank, rank: 8, tokens: 4}\n"
        "topics: {titles: t.txt, site: [4, 10]}\ntraining: {ridge_init: 0.03}\n"
    )
    recipe = Recipe.read(written)
    assert recipe.topics.place() == SiteStack([4, 10])
    assert recipe.training.ridge_init == 0.03
    written.write_text("output: out\nadapter: {kind: scale}\ntopics: {titles: t.txt, site: [4, 10]}\n")
    with pytest.raises(InterpToolkitError, match="several sites or soft tokens belong to the kinds"):
        Recipe.read(written)
