import json

import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Site
from interp_toolkit.chat import prompt_ids, stop_ids
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import prompted_baseline, recall_table, run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.prompted_baseline import (
    BaselineRanks,
    PromptedDescription,
    baseline_gap,
    baseline_ranks,
    plain_answers,
    prompted_descriptions,
    redact,
)
from interp_toolkit.models import model_facts

PROMPTS = ["Tell me about rivers.", "fox", "Tell me about Poland.", "a dog jumps over the lazy fox", "Tell me", "fox"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


def _embed_letters(texts):
    """Counts of letters: equal texts are equal, and a text is nearest to itself."""
    return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()


def test_answers_are_those_of_hugging_faces_own_decoding(tiny, tiny_hf, architecture, backend):
    model, truth = tiny(architecture, backend), tiny_hf(architecture)
    stops = list(stop_ids(model))
    expected = []
    for row in prompt_ids(model.tokenizer, PROMPTS):
        ids = torch.tensor([row])
        out = truth.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=stops
        )
        written = [token for token in out[0, len(row) :].tolist() if token not in stops]
        expected.append(model.tokenizer.decode(written).strip())
    assert plain_answers(model, PROMPTS, max_new_tokens=12) == expected
    assert len(set(expected)) > 2


def test_an_answer_does_not_depend_on_what_else_is_asked(tiny, monkeypatch):
    together = plain_answers(tiny(), PROMPTS, max_new_tokens=8)
    assert together == [plain_answers(tiny(), [prompt], max_new_tokens=8)[0] for prompt in PROMPTS]
    monkeypatch.setattr("interp_toolkit.runtime.answers._ROWS", 1)
    assert plain_answers(tiny(), PROMPTS, max_new_tokens=8) == together
    assert plain_answers(tiny(), []) == []


def test_the_real_model_answers_and_stops(smollm):
    (answer,) = plain_answers(smollm, ["What is the capital of France? Answer in one sentence."], max_new_tokens=40)
    assert "Paris" in answer
    assert answer.endswith(".")
    assert "<|im_end|>" not in answer


@pytest.mark.parametrize(
    ("text", "title", "left"),
    [
        ("Bees are insects, and BEES fly. A beesting hurts.", "Bees", "are insects, and fly. A beesting hurts."),
        ("Mercury (planet) is mercury, the planet.", "Mercury (planet)", "is , the ."),
        ("New\nYork is in New York State", "New York", "is in State"),
        ("C++ is a language; C is another, and C++11 a third", "C++", "is a language; C is another, and C++11 a third"),
        ('"Weird Al" Yankovic sings', '"Weird Al" Yankovic', "sings"),
        ("Sa\u0303o Paulo is large", "S\u00e3o Paulo", "is large"),
        ("US, not Jerusalem", "US", ", not Jerusalem"),
        ("I Can't Get No Satisfaction", "(I Can't Get No) Satisfaction", ""),
        ("a (b) c", "()", "a (b) c"),
    ],
)
def test_a_name_is_taken_out_and_nothing_else(text, title, left):
    assert redact(text, title) == left
    assert redact(left, title) == left


def test_prompted_descriptions_are_answers_without_the_name(tiny, monkeypatch):
    asked = []

    def answers(model, prompts, **settings):
        asked.extend(prompts)
        return ["Bees fly  far", "A country"]

    monkeypatch.setattr("interp_toolkit.evaluation.prompted_baseline.plain_answers", answers)
    result = prompted_descriptions(tiny(), ["Bees", "{title} {x}"], question="What are {title}? {y}")
    assert asked == ["What are Bees? {y}", "What are {title} {x}? {y}"]
    assert result == [PromptedDescription("Bees fly  far", "fly far"), PromptedDescription("A country", "A country")]
    assert [one.names_title for one in result] == [True, False]
    assert not PromptedDescription("Far  off", "Far off").names_title


def test_what_cannot_be_asked(tiny):
    with pytest.raises(InterpToolkitError, match=r"a question with \{title\} in it, got 'What is it\?'"):
        prompted_descriptions(tiny(), ["Bees"], question="What is it?")
    with pytest.raises(InterpToolkitError, match="title 1 is empty; leave it out"):
        prompted_descriptions(tiny(), ["Bees", " "])


def test_a_description_that_finds_its_title_by_the_name_alone_finds_nothing_without_it():
    entries = ["Bees", "Opera", "Poland"]
    prompted = [PromptedDescription(text, redact(text, "Bees")) for text in ("Bees", "Poland")]
    actual = baseline_ranks(
        "m", 7, ["Bees", "Opera"], prompted, _embed_letters, _embed_letters(entries), torch.tensor([0, 2])
    )
    assert actual.adapter.tolist() == [1, actual.adapter[1].item()]
    assert actual.adapter[1] > 1
    assert actual.prompted.tolist() == [3, 1]
    assert (actual.model, actual.parameters) == ("m", 7)


def test_the_gap_is_paired_by_title():
    draw = torch.Generator().manual_seed(0)
    hard = torch.randint(1, 400, (200,), generator=draw)
    worse = BaselineRanks("large", 9, hard, hard + 1)
    equal = BaselineRanks("small", 3, hard, hard)
    table = baseline_gap([equal, worse], at=(1, 10), seed=4)
    assert len(table) == 2 * 3 * 3
    assert list(table.columns) == ["model", "parameters", "source", "measure", "value", "low", "high", "n", "seed"]
    assert table.groupby("model").parameters.first().to_dict() == {"large": 9, "small": 3}
    cell = table.set_index(["model", "source", "measure"]).sort_index()
    assert (cell.loc["small", "gap"][["value", "low", "high"]] == 0).all().all()
    for source, ranks in (("adapter", hard), ("prompted", hard + 1)):
        truth = recall_table(ranks, (1, 10), seed=4).set_index("measure").sort_index()
        assert (cell.loc["large", source].value == truth.value).all()
    gap, own = cell.loc["large", "gap", "mrr"], cell.loc["large", "adapter", "mrr"]
    assert gap.value == pytest.approx(own.value - cell.loc["large", "prompted", "mrr"].value)
    assert 0 < gap.low < gap.value < gap.high
    assert gap.high - gap.low < own.high - own.low  # titles that are hard for one are hard for the other
    assert set(table.n) == {200}
    assert set(table.seed) == {4}


def test_what_has_no_gap():
    with pytest.raises(InterpToolkitError, match="at least one model, got none"):
        baseline_gap([])
    with pytest.raises(InterpToolkitError, match="both kinds of description, got 2 and 1 of m"):
        baseline_gap([BaselineRanks("m", 1, torch.tensor([1, 2]), torch.tensor([1]))])


class _Letters:
    """Stands in for the embedder."""

    def __call__(self, texts):
        return _embed_letters(texts)

    cached = __call__


@pytest.fixture
def context(tiny, tmp_path):
    """A context of few titles on the tiny model."""
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    path = tmp_path / "data" / "topics" / "topics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    made = EvalContext(path, limit=6, model=tiny())
    made._embedder = _Letters()
    return made


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.full((32,), 0.1), True)
    return made


def test_a_run_goes_on_where_it_was_stopped_and_is_not_repeated(context, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(prompted_baseline, "_SHARD", 2)
    asked = []

    def asking(model, titles):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(titles)
        return prompted_descriptions(model, titles, max_new_tokens=4)

    monkeypatch.setattr(prompted_baseline, "prompted_descriptions", asking)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation("prompted_baseline", context, adapter, tmp_path / "out.json")
    done = list(asked)
    assert not (tmp_path / "out.json").exists()
    asked.clear()
    result = run_evaluation("prompted_baseline", context, adapter, tmp_path / "out.json")
    assert len(asked) == 1  # of three shards
    assert sorted(title for shard in done + asked for title in shard) == sorted(context.titles.held_out)
    asked.clear()
    assert run_evaluation("prompted_baseline", context, adapter, tmp_path / "out.json") == json.loads(
        json.dumps(result)
    )
    assert not asked
    assert result["failed"] == dict(count=0, rows=[])
    assert {row["n"] for row in result["tables"]["knowledge"]} == {6}


def test_a_title_that_is_too_long_to_ask_about_does_not_lose_the_rest(context, adapter, tmp_path, monkeypatch):
    bad = context.titles.held_out[3]
    whole = context.describe(adapter, HeldOut.read(context, adapter).vectors, 1).texts
    prompt = prompted_baseline._prompt
    monkeypatch.setattr(
        prompted_baseline,
        "_prompt",
        lambda question, title: prompt(question, title) + (" and so on" * 300 if title == bad else ""),
    )
    result = run_evaluation("prompted_baseline", context, adapter, tmp_path / "out.json")
    assert result["failed"]["count"] == 1
    (row,) = result["failed"]["rows"]
    assert row["title"] == bad
    assert "the question with its answer" in row["reason"]
    assert {row["n"] for row in result["tables"]["knowledge"]} == {5}
    expected = {title: text for title, (text,) in zip(context.titles.held_out, whole)}
    assert {row["title"]: row["adapter"] for row in result["examples"]} == {
        t: x for t, x in expected.items() if t != bad
    }


def test_an_exception_while_asking_is_no_bad_row(context, adapter, tmp_path, monkeypatch):
    calls = []

    def asking(model, titles):
        calls.append(titles)
        raise InterpToolkitError("a bug")

    monkeypatch.setattr(prompted_baseline, "prompted_descriptions", asking)
    with pytest.raises(InterpToolkitError, match="a bug"):
        run_evaluation("prompted_baseline", context, adapter, tmp_path / "out.json")
    assert len(calls) == 1


def test_vectors_that_cannot_be_described_are_counted(context, adapter, monkeypatch):
    vectors = torch.ones(6, 32)
    vectors[1] += torch.nan
    vectors[4] = adapter.contract.mean
    monkeypatch.setattr("interp_toolkit.evaluation.held_out.topic_vectors", lambda *_, **__: vectors)
    held = HeldOut.read(context, adapter)
    assert [row["title"] for row in held.failed] == [context.titles.held_out[1], context.titles.held_out[4]]
    assert held.failed[0]["reason"] == "its vector is zero or not finite"
    assert held.titles == [context.titles.held_out[i] for i in (0, 2, 3, 5)]
    assert held.vectors.shape == (4, 32)


def test_the_scaling_curve_is_made_of_runs(tmp_path, unchecked):
    for name, size in (("a", 90), ("b", 30)):
        ranks = torch.tensor([1, 2])
        rows = baseline_gap([BaselineRanks(name, size, ranks, ranks)]).to_dict("records")
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(settings={}, tables=dict(knowledge=rows))))
    table = prompted_baseline.scaling_table(sorted(tmp_path.glob("*.json")))
    assert table.model.unique().tolist() == ["b", "a"]
    assert table.parameters.is_monotonic_increasing
    with pytest.raises(InterpToolkitError, match="at least one result"):
        prompted_baseline.scaling_table([])
