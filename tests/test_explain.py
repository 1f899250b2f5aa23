import json
import math
import time
from pathlib import Path

import pytest
import torch

from interp_toolkit import (
    Adapter,
    ContractError,
    InterpToolkitError,
    Sampling,
    Site,
    SoftPrompt,
    load_model,
    read_activations,
    self_explain,
    shipped,
)
from interp_toolkit.contract import Contract
from interp_toolkit.engines import LocalEngine
from interp_toolkit.explanations import COLUMNS, Explanation, Explanations
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.shipped import NAMES, default_adapter, find_adapter
from interp_toolkit.sites import SiteStack

PROMPTS = ["Tell me about rivers.", "Tell me about the history of Poland."]


@pytest.fixture
def adapter(tiny, tiny_prompt):
    """An adapter for the tiny Llama, at layer 2, with a bias."""
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    mean = torch.randn(32, generator=torch.Generator().manual_seed(2)) * 0.1
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, mean, True)
    return made


def test_a_description_is_what_the_steps_by_hand_give(tiny, adapter, backend):
    model = tiny("llama", backend)
    got = self_explain(PROMPTS, model=model, adapter=adapter, sampling=Sampling(max_new_tokens=6))
    read = read_activations(model, PROMPTS, 2).vectors
    soft_tokens = adapter(read - adapter.contract.mean)
    run = PromptRun(model, adapter.contract.soft_prompt)
    rows = generate(run, soft_tokens, max_new_tokens=6)
    assert [e.description for e in got] == [row[0].text for row in rows]
    for i, (e, row) in enumerate(zip(got, rows)):
        given = score(run, soft_tokens[i : i + 1], [row[0].token_ids]).mean().item()
        nothing = score(run, adapter.null()[None], [row[0].token_ids]).mean().item()
        assert e.log_prob == pytest.approx(given, abs=1e-4)
        assert e.evidence == pytest.approx(given - nothing, abs=1e-4)


def test_the_table(tiny, adapter):
    actual = self_explain(
        PROMPTS,
        model=tiny(),
        adapter=adapter,
        positions=[-1, -2],
        sampling=Sampling(n=2, scales=[0.5, 1.0], max_new_tokens=4),
    )
    table = actual.to_df()
    assert tuple(table.columns) == COLUMNS
    assert COLUMNS == (
        "source",
        "site",
        "position",
        "token",
        "sample",
        "description",
        "log_prob",
        "evidence",
        "confidence",
        "above_threshold",
        "scale",
    )
    assert len(table) == len(actual) == 2 * 2 * 2 * 2
    assert table.source.unique().tolist() == PROMPTS
    assert table["sample"].tolist() == [0, 1] * 8
    assert table.scale.tolist() == [0.5, 0.5, 1.0, 1.0] * 4
    assert set(table.site) == {"blocks.2.hook_resid_post"}
    assert isinstance(actual[0], Explanation)
    assert [e.description for e in actual[2:4]] == table.description.tolist()[2:4]


def test_a_grid_over_layers_and_tokens(tiny, adapter):
    settings = dict(
        model=tiny(), adapter=adapter, sites=[1, 2], positions=[-3, -1], sampling=Sampling(max_new_tokens=4)
    )
    with pytest.raises(
        ContractError, match=r"trained on vectors from blocks\.2.*these are from blocks\.1.*on_mismatch='warn'"
    ):
        self_explain(PROMPTS, **{**settings, "sites": [1]})
    with pytest.raises(ContractError, match=r"these are from blocks\.1\.hook_resid_post; read that site.*center="):
        self_explain(PROMPTS, **settings)
    with pytest.warns(UserWarning, match="nothing is subtracted there"):
        table = self_explain(PROMPTS, **settings, on_mismatch="warn").to_df()
    assert table.groupby(["source", "site", "position"], sort=False).ngroups == 8
    own = self_explain(
        PROMPTS, model=tiny(), adapter=adapter, positions=[-3, -1], sampling=Sampling(max_new_tokens=4)
    ).to_df()
    at_two = table[table.site == "blocks.2.hook_resid_post"].reset_index(drop=True)
    assert at_two.description.tolist() == own.description.tolist()
    read = read_activations(tiny(), PROMPTS, 1, [-3, -1]).vectors
    means = {Site.after(1): torch.ones(32)}
    moved = self_explain(PROMPTS, **{**settings, "sites": 1}, center=means)
    given = self_explain(read - 1, model=tiny(), adapter=adapter, sampling=Sampling(max_new_tokens=4))
    assert [e.description for e in moved] == [e.description for e in given]


def test_vectors_are_taken_as_they_are_or_centred(tiny, adapter):
    settings = dict(model=tiny(), adapter=adapter, sampling=Sampling(max_new_tokens=5))
    read = read_activations(tiny(), PROMPTS, 2).vectors
    by_text = self_explain(PROMPTS, **settings)
    by_raw = self_explain(read, **settings, centered=False)
    by_hand = self_explain(read - adapter.contract.mean, **settings)
    assert [e.description for e in by_raw] == [e.description for e in by_text] == [e.description for e in by_hand]
    assert [(e.source, e.site, e.position) for e in by_raw] == [("vector 0", "", -1), ("vector 1", "", -1)]
    one = self_explain(read[0], **settings, centered=False)
    assert [e.description for e in one] == [by_raw[0].description]


def test_no_vectors_make_an_empty_table(tiny, adapter):
    assert len(self_explain(torch.empty(0, 32), model=tiny(), adapter=adapter).to_df()) == 0


def test_the_null_vector_has_no_evidence(tiny, adapter):
    actual = self_explain(
        PROMPTS, model=tiny(), adapter=adapter, include_null=True, sampling=Sampling(n=3, max_new_tokens=6)
    )
    nothing = [e for e in actual if e.source == "null vector"]
    assert len(nothing) == 3
    assert all(abs(e.evidence) < 1e-4 for e in nothing)
    faint = torch.full((32,), 1e-12)  # a vector of no length to speak of counts as nothing, too
    (e,) = self_explain(faint, model=tiny(), adapter=adapter, sampling=Sampling(max_new_tokens=6))
    assert abs(e.evidence) < 0.05


def test_seeds(tiny, adapter):
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    result = [
        [e.description for e in self_explain(vectors, model=tiny(), adapter=adapter, sampling=Sampling(n=6, seed=seed))]
        for seed in (0, 0, 1)
    ]
    assert result[0] == result[1] != result[2]


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (torch.ones(2, 31), {}, r"expected vectors of shape \(n, 32\) or \(32,\), got \(2, 31\)"),
        (torch.ones(2, 2, 32), {}, r"expected vectors of shape \(n, 32\)"),
        (
            torch.eye(3, 32) * torch.tensor([[1.0], [0.0], [1.0]]),
            {},
            "vector 1 is zero and has no direction.*include_null=True",
        ),
        (torch.full((1, 32), math.nan), {}, "vector 0 holds NaN or infinity"),
        ("", {}, "prompt 0 is empty"),
        ([], {}, "expected at least one prompt"),
        (
            "a",
            {"sites": 11, "center": {11: torch.ones(32)}},
            r"blocks\.11\.hook_resid_post does not exist: the model has 4 layers",
        ),
        ("a", {"sites": 11}, r"blocks\.11\.hook_resid_post does not exist: the model has 4 layers"),
        ("a", {"sites": "somewhere"}, "expected a site such as"),
        ("a", {"positions": [99]}, "position 99 does not exist"),
        ("a", {"adapter": "/no/adapter"}, "no adapter at /no/adapter"),
        ("a", {"adapter": Adapter.create("scale", 32)}, "the adapter has no contract"),
        ("a", {"adapter": None}, "no adapter is shipped for .*; pass adapter="),
    ],
)
def test_mistakes_are_named(tiny, adapter, unchecked, inputs, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        self_explain(inputs, **{"model": tiny(), "adapter": adapter, **settings})


def test_an_adapter_for_another_model_is_refused(tiny, adapter):
    with pytest.raises(ContractError, match="the adapter was trained on .*load the adapter's own model, or train"):
        self_explain("a", model=tiny("qwen2"), adapter=adapter)
    with pytest.raises(ContractError, match=r"width 576 .* has d_model 32"):
        self_explain("a", model=tiny(), adapter="smollm2_rank64")


def test_a_file_that_says_less_asks_for_more(tiny, adapter, tmp_path):
    adapter.save_published(tmp_path / "x.safetensors")
    with pytest.raises(InterpToolkitError, match="does not name the site it was trained on; pass sites="):
        self_explain("a", model=tiny(), adapter=str(tmp_path / "x.safetensors"))
    assert (
        len(
            self_explain(
                "a", model=tiny(), adapter=str(tmp_path / "x.safetensors"), sites=1, sampling=Sampling(max_new_tokens=3)
            )
        )
        == 1
    )
    with pytest.raises(InterpToolkitError, match="centered=False asks for the adapter's mean"):
        self_explain(torch.ones(32), model=tiny(), adapter=str(tmp_path / "x.safetensors"), centered=False)


# Faces.

ROWS = [
    Explanation(
        "Tell me about <b>tags</b> & more",
        "blocks.2.hook_resid_post",
        7,
        0,
        "<script>alert(1)</script>",
        -1.0,
        2.5,
        None,
        1.0,
    ),
    Explanation(
        "b" * 200, "blocks.2.hook_resid_post", 9, 0, "[bold]no markup[/bold] São Paulo 東京", -2.0, math.nan, None, 1.0
    ),
]


def test_the_terminal_face_is_readable():
    text = repr(Explanations(ROWS))
    assert text.startswith("2 explanations\n")
    assert "site" not in text.splitlines()[1]
    assert "[bold]no markup[/bold]" in text.replace("\n", " ") or "[bold]no" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(len(line) <= 40 for line in Explanations(ROWS).to_text(40).splitlines())
    assert repr(Explanations([])) == "0 explanations"
    two = [ROWS[0], Explanation(ROWS[0].source, ROWS[0].site, 8, 0, "x", -1.0, 0.0, None, 1.0)]
    assert "position" in repr(Explanations(two))


def test_the_notebook_face_escapes_and_is_quick():
    page = Explanations(ROWS)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    many = Explanations(ROWS * 500)
    start = time.perf_counter()
    many._repr_html_()
    assert time.perf_counter() - start < 5  # no bound on speed, only on a runaway


# The embedded model with the adapters that ship.


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_adapter_is_whole_small_and_for_the_embedded_model(smollm, name):
    adapter = find_adapter(name)
    contract = adapter.contract
    contract.check_model(model_facts(smollm))
    site = SiteStack([4, 10, 16, 23]) if name in ("smollm2_four_layers", "smollm2_any_token") else Site.after(23)
    assert contract.site == site
    assert contract.mean.shape == (576 * len(site.sites),)
    asked = () if name == "smollm2_rank64" else ('Repeat this: "{slot}"', '"')
    assert contract.soft_prompt == SoftPrompt.for_chat(smollm.tokenizer, *asked, tokens=adapter.config.tokens)
    assert contract.threshold is not None
    sizes = dict(
        smollm2_four_layers=4 * 576 * 401,
        smollm2_rank64=2 * 576 * 64 + 577,
        smollm2_scalar_affine=577,
        smollm2_any_token=4 * 576 * 721,
    )
    assert adapter.parameter_count == sizes[name]
    greatest = 2_000_000 if name == "smollm2_any_token" else 1_000_000
    assert sum(path.stat().st_size for path in (Path(shipped.__file__).parent / name).iterdir()) < greatest
    json.dumps(contract.to_dict())


def test_the_default_adapter_reads_topics_and_tells_them_from_nothing(smollm):
    adapter = default_adapter(model_facts(smollm))
    assert adapter.digest == find_adapter(NAMES[0]).digest
    topics = ["baseball", "the French Revolution", "jazz", "volcanoes", "penguins", "chess", "diabetes", "Poland"]
    prompts = [f"Tell me about {topic}." for topic in topics]
    vectors = adapter.contract.centre(read_activations(smollm, prompts, adapter.contract.site).vectors)
    run = PromptRun(smollm, adapter.contract.soft_prompt)
    targets = run.soft_prompt.targets(smollm.tokenizer, [topic.capitalize() for topic in topics])
    with torch.no_grad():
        soft_tokens = adapter(vectors)
        own = score(run, soft_tokens, targets).mean()
        shuffled = score(run, soft_tokens.roll(3, 0), targets).mean()
        nothing = score(run, adapter.null()[None], targets, [0] * len(targets)).mean()
    assert (own > shuffled).sum() >= 7
    assert (own > nothing).all()
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    read = self_explain(vectors, model=smollm, include_null=True, sampling=Sampling(max_new_tokens=8)).to_df()
    random = self_explain(noise, model=smollm, sampling=Sampling(max_new_tokens=8)).to_df()
    assert read.evidence.iloc[:8].median() > random.evidence.median()
    assert abs(read.evidence.iloc[8]) < 1e-3


def test_the_default_is_chosen_by_what_is_asked(smollm, monkeypatch):
    facts = model_facts(smollm)
    assert default_adapter(facts).digest == find_adapter(NAMES[0]).digest
    assert default_adapter(facts, 1).digest == find_adapter(NAMES[0]).digest
    for places in ([4, 10], 23, SiteStack([4, 10, 16, 23])):
        assert default_adapter(facts, 1, places=places).digest == find_adapter(NAMES[0]).digest
    assert default_adapter(facts, 1, places=5).digest == find_adapter("smollm2_rank64").digest  # which wants a mean
    with pytest.raises(ContractError, match=r"trained on vectors from blocks\.23\..*, these are from blocks\.5\."):
        self_explain("Tell me about baseball.", model=smollm, sites=5)
    with pytest.raises(InterpToolkitError, match="no adapter is shipped for .* with vectors of 3 sites; pass adapter="):
        self_explain(torch.ones(2, 3 * 576), model=smollm)
    # Widths that are no multiple of d_model are refused by the adapter of one site.
    with pytest.raises(InterpToolkitError, match=r"expected vectors of shape \(n, 576\) .* got \(2, 100\)"):
        self_explain(torch.ones(2, 100), model=smollm)


def test_both_classes_say_the_same(smollm, backend):
    hooked = load_model("smollm2-135m", backend=backend, dtype="float32")
    prompts = ["Tell me about baseball.", "Tell me about Poland."]
    one, two = (
        self_explain(prompts, model=model, sampling=Sampling(max_new_tokens=8)).to_df() for model in (smollm, hooked)
    )
    assert one.description.tolist() == two.description.tolist()
    assert torch.allclose(torch.tensor(one.evidence), torch.tensor(two.evidence), atol=1e-3)


@pytest.mark.parametrize("samples", [1, 3])
def test_equal_vectors_are_described_once(tiny, adapter, samples, monkeypatch):
    model, counts = tiny(), []
    one, other = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    generate = LocalEngine.generate

    def counting(self, soft_prompt, soft_tokens, **settings):
        counts.append(len(soft_tokens))
        return generate(self, soft_prompt, soft_tokens, **settings)

    monkeypatch.setattr(LocalEngine, "generate", counting)
    settings = dict(model=model, adapter=adapter, sampling=Sampling(n=samples, scales=[0.5, 1.0]))
    table = self_explain(torch.stack([one, other, one, one]), include_null=True, **settings)
    alone = [self_explain(vector[None], **settings) for vector in (one, other)]
    assert counts == [2 * 2 + 1, 2, 2]
    rows = 2 * samples
    described = [row.description for row in table]
    assert len(described) == 4 * rows + samples
    assert (
        described[:rows]
        == described[2 * rows : 3 * rows]
        == described[3 * rows : 4 * rows]
        == [row.description for row in alone[0]]
    )
    assert described[rows : 2 * rows] == [row.description for row in alone[1]]
    assert [row.source for row in table][:: 2 * samples][:4] == [f"vector {i}" for i in range(4)]
