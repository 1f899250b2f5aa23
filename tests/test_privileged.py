"""Explainers that see no vector, beside the adapter's descriptions."""

import json

import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

from interp_toolkit import Adapter, InterpToolkitError, Site, read_activations
from interp_toolkit.chat import prompt_ids
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import privileged, run_evaluation
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.models import model_facts
from interp_toolkit.pairs.topics import PROMPT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


class _Numbers:
    """Embeds texts by the numbers in them, one coordinate each."""

    def __call__(self, texts):
        words = [set(text.replace(",", " ").split()) for text in texts]
        return torch.tensor([[float(str(i) in row) for i in range(600)] + [0.001] for row in words])

    cached = __call__


@pytest.fixture
def context(tiny, tmp_path):
    rows = [dict(title=f"topic {i}", split="train" if i < 502 else "val") for i in range(508)]
    path = tmp_path / "topics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made = EvalContext(path, limit=6, model=tiny(), progress=False)
    made._embedder = _Numbers()
    return made


@pytest.fixture
def adapter(tiny, tiny_prompt):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.contract = Contract.from_facts(model_facts(tiny()), Site.after(2), tiny_prompt, torch.full((32,), 0.1), True)
    return made


def test_the_lens_reads_the_last_layer_as_the_model_does(tiny, tiny_hf, architecture, backend):
    model = tiny(architecture, backend)
    (ids,) = prompt_ids(model.tokenizer, ["Tell me about the history of Poland."])
    with torch.no_grad():
        logits = tiny_hf(architecture)(torch.tensor([ids])).logits[0]
    expected = [[model.tokenizer.decode([i]).strip() for i in row] for row in logits.topk(3).indices.tolist()]
    assert privileged.logit_lens(model, read_activations(model, [ids], 3, "all").vectors, tokens=3) == expected
    with pytest.raises(InterpToolkitError, match=r"shape \(n, 32\), got \(2, 64\); of a stack take the vectors of one"):
        privileged.logit_lens(model, torch.ones(2, 64))


def test_a_jacobian_lens_reads_as_that_of_transformer_lens_does(tiny):
    model = tiny("llama", "bridge")
    texts = ["Tell me about the history of Poland and of its many rivers, please, and about its kings."] * 2
    lens = JacobianLens.fit(model, texts, corpus="x", source_layers=[2], skip_first_positions=4, show_progress=False)
    (ids,) = prompt_ids(model.tokenizer, ["Tell me about Poland."], False)
    read = read_activations(model, [ids], 2, "all").vectors
    with torch.no_grad():
        logits = lens.readout(model, torch.tensor([ids]), layers=[2], return_full_logits=True).lens_logits[2]
    expected = [[model.tokenizer.decode([i]).strip() for i in row] for row in logits.topk(3).indices.tolist()]
    assert privileged.logit_lens(model, read, 3, jacobian=lens.jacobians[2]) == expected
    assert privileged.logit_lens(model, read, 3, jacobian=torch.eye(32)) == privileged.logit_lens(model, read, 3)
    assert privileged.logit_lens(model, read, 3) != expected
    with pytest.raises(InterpToolkitError, match=r"expected a Jacobian of shape \(32, 32\), got \(31, 32\); take"):
        privileged.logit_lens(model, read, jacobian=torch.ones(31, 32))


def test_a_jacobian_lens_is_measured_where_there_is_one(context, adapter, tmp_path):
    context.jacobian_lens = JacobianLens({1: torch.eye(32)}, n_prompts=1, d_model=32)
    with pytest.raises(InterpToolkitError, match="fitted after block 2, for blocks.2.hook_resid_post, got one for blo"):
        run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    context.jacobian_lens = JacobianLens({2: torch.eye(32)}, n_prompts=1, d_model=32)
    result = run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    assert {row["explainer"] for row in result["tables"]["explainers"]} >= {"logit lens", "Jacobian lens"}
    # The Jacobian of nothing but the stream itself is the logit lens.
    for row in result["examples"]:
        assert row["Jacobian lens"] == row["logit lens"]
    other = JacobianLens({2: 2 * torch.eye(32)}, n_prompts=1, d_model=32)
    assert result["settings"]["jacobian_lens"]
    context.jacobian_lens = other
    again = run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    assert again["settings"]["jacobian_lens"] != result["settings"]["jacobian_lens"]


def test_shares_and_differences_are_those_of_the_texts(context, adapter, tmp_path, monkeypatch):
    titles = context.titles.held_out
    tails, calls = [], []
    read = privileged.read_activations

    def reading(model, prompts, *args, **settings):
        tails.append(prompts)
        return read(model, prompts, *args, **settings)

    def describing(self, adapter, vectors):
        calls.append(len(vectors))
        # First the titles' vectors, then the mean direction, then the vectors at the end of the tail.
        return {1: [*titles[:4], "x", "y"], 2: ["topic 7"], 3: titles[3:] + titles[:3]}[len(calls)]

    def answering(model, questions, **settings):
        return [f"It is {question.split('about ')[1].split('.')[0]}" for question in questions]

    monkeypatch.setattr(privileged, "read_activations", reading)
    monkeypatch.setattr(EvalContext, "describe_greedily", describing)
    monkeypatch.setattr(privileged, "plain_answers", answering)
    monkeypatch.setattr(
        privileged, "logit_lens", lambda model, vectors, jacobian=None: [["no", "thing"]] * len(vectors)
    )
    result = run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    assert calls == [6, 1, 6]
    rates = {(row["explainer"], row["within"]): row["value"] for row in result["tables"]["explainers"]}
    assert rates[privileged.ADAPTER, 1] == pytest.approx(4 / 6)
    assert rates[privileged.TEXT_ONLY, 1] == 1
    assert rates[privileged.LENS, 1] == rates[privileged.MEAN, 1] == 0
    less = {(row["adapter_less"], row["within"]): row["value"] for row in result["tables"]["differences"]}
    assert less[privileged.TEXT_ONLY, 1] == pytest.approx(-2 / 6)
    assert less[privileged.LENS, 1] == pytest.approx(4 / 6)
    # The descriptions of the tail name the title three beginnings on.
    tail = {(row["what"], row["within"]): row["value"] for row in result["tables"]["tail"]}
    assert (tail["own beginning", 1], tail["another beginning", 1]) == (0, 1)
    assert tail["own beginning - another beginning", 1] == -1
    assert result["failed"] == dict(count=0, rows=[])
    assert result["examples"][0]["text alone"] == f"It is {titles[0]}"
    # All prompts of the tail begin with their topic's, and end in the same tokens.
    ids = prompt_ids(context.model.tokenizer, tails[-1])
    end = len(prompt_ids(context.model.tokenizer, [privileged.TAIL], False)[0]) - 1
    assert len({tuple(row[-end:]) for row in ids}) == 1
    assert all(prompt.startswith(PROMPT.format(title=title)) for prompt, title in zip(tails[-1], titles))


def test_it_runs_whole_on_a_tiny_model_and_takes_its_file(context, adapter, tmp_path):
    result = run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    again = run_evaluation("privileged", context, adapter, tmp_path / "out.json")
    assert json.loads(json.dumps(result)) == again
    assert {row["n"] for name in ("explainers", "differences", "tail") for row in result["tables"][name]} == {6}
