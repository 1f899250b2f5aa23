import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, evaluation
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import (
    best_by_answer,
    best_by_evidence,
    control_losses,
    description_ranks,
    recall_table,
    retrieval_ranks,
)
from interp_toolkit.evaluation.driver import find_evaluation
from interp_toolkit.models import model_facts
from interp_toolkit.runtime import PromptRun, score


def test_ranks_are_those_of_a_sorted_list(random_vectors):
    index, queries = random_vectors(400, seed=1), random_vectors(300, seed=2)
    answers = torch.randint(400, (300,), generator=torch.Generator().manual_seed(3))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], index[None], dim=-1)
    truth = [cosine[i].argsort(descending=True).tolist().index(answers[i]) + 1 for i in range(300)]
    assert retrieval_ranks(queries * 7, index, answers).tolist() == truth


def test_a_thing_finds_itself_and_equal_entries_find_nothing(random_vectors):
    index = random_vectors(50)
    assert retrieval_ranks(index, index, torch.arange(50)).tolist() == [1] * 50
    assert retrieval_ranks(index, torch.ones(50, 32), torch.arange(50)).tolist() == [50] * 50


def test_recall_and_its_interval():
    ranks = torch.tensor([1] * 30 + [7] * 20 + [500] * 50)
    table = recall_table(ranks).set_index("measure")
    assert table.value["recall@1"] == 0.3
    assert table.value["recall@5"] == 0.3
    assert table.value["recall@10"] == table.value["recall@100"] == 0.5
    assert table.value["mrr"] == pytest.approx(0.3 + 0.2 / 7 + 0.5 / 500)
    # The percentile interval of a proportion, against its normal approximation.
    assert table.low["recall@1"] == pytest.approx(0.3 - 1.96 * (0.21 / 100) ** 0.5, abs=0.015)
    assert table.high["recall@1"] == pytest.approx(0.3 + 1.96 * (0.21 / 100) ** 0.5, abs=0.015)
    assert set(table.n) == {100}


def test_an_answer_that_is_no_entry(random_vectors):
    with pytest.raises(InterpToolkitError, match="expected answers between 0 and 4, got 2 to 5"):
        retrieval_ranks(random_vectors(2), random_vectors(5), torch.tensor([2, 5]))


ENTRIES = ["Bees", "Poland", "-", "Opera"]


def _embed_letters(texts):
    """Counts of letters: equal texts are equal, and a text is nearest to itself."""
    return torch.tensor([[text.count(chr(i)) for i in range(128)] for text in texts]).float()


def test_every_description_is_looked_up_and_each_text_embedded_once():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return _embed_letters(texts)

    described = [["Bees", "Opera", " "], ["Poland", "Poland", "Bees"], ["", "Opera", "-"]]
    ranks = description_ranks(described, embed, _embed_letters(ENTRIES), torch.tensor([0, 1, 2]))
    assert asked == ["Bees", "Opera", "-", "Poland"]
    assert (ranks == 1).tolist() == [[True, False, False], [True, True, False], [True, False, True]]
    single = retrieval_ranks(_embed_letters(["Opera"]), _embed_letters(ENTRIES), torch.tensor([0]))
    assert ranks[0, 1] == single[0]


def test_no_descriptions_have_no_ranks():
    assert description_ranks([], _embed_letters, _embed_letters(ENTRIES), torch.zeros(0, dtype=torch.long)).numel() == 0


def test_descriptions_of_other_counts_are_refused():
    index = _embed_letters(ENTRIES)
    with pytest.raises(InterpToolkitError, match="each of 2 vectors, got 2 lists of 1 or 2 descriptions"):
        description_ranks([["a"], ["a", "b"]], _embed_letters, index, torch.tensor([0, 1]))
    with pytest.raises(InterpToolkitError, match="each of 2 vectors, got 1 lists of 1 descriptions"):
        description_ranks([["a"]], _embed_letters, index, torch.tensor([0, 1]))


def test_the_best_of_several_by_answer_and_by_evidence(unchecked):
    nan = float("nan")
    ranks = torch.tensor([[4, 1, 9], [7, 8, 2], [3, 3, 1], [5, 6, 4]])
    evidence = torch.tensor([[0.1, 2.0, 1.0], [nan, -3.0, -4.0], [1.0, 1.0, 0.5], [nan, nan, nan]])
    assert best_by_answer(ranks).tolist() == [1, 2, 1, 4]
    assert best_by_evidence(ranks, evidence).tolist() == [1, 8, 3, 5]
    assert (best_by_evidence(ranks, evidence) >= best_by_answer(ranks)).all()
    with pytest.raises(InterpToolkitError, match=r"got ranks of shape \(4, 3\) and evidence of shape \(3, 4\)"):
        best_by_evidence(ranks, evidence.T)


LABELS = ["Bees", "Poland and rivers", "fox", "a dog", "history"]


def _adapter(model, prompt, kind):
    adapter = Adapter.create(kind, d_model=32, init_scale=3.0)
    adapter.contract = Contract.from_facts(model_facts(model), None, prompt, None, True)
    with torch.no_grad():
        adapter.bias += torch.linspace(-1, 1, 32)
    return adapter


def test_control_losses_are_those_of_own_other_and_no_vector(tiny, tiny_prompt, random_vectors):
    model, vectors = tiny(), random_vectors(5)
    adapter = _adapter(model, tiny_prompt, "scalar_affine")
    result = control_losses(model, adapter, vectors, LABELS)
    run = PromptRun(model, tiny_prompt)
    targets = tiny_prompt.targets(model.tokenizer, LABELS)

    def loss(faced):
        with torch.no_grad():
            each = [-score(run, adapter(faced[i][None]), [targets[i]]).log_probs.mean() for i in range(5)]
        return torch.stack(each).mean().item()

    assert result.matched == pytest.approx(loss(vectors), abs=1e-4)
    assert result.shuffled == pytest.approx(loss(vectors[[3, 4, 0, 1, 2]]), abs=1e-4)
    assert result.null == pytest.approx(loss(torch.zeros(5, 32)), abs=1e-4)


def test_controls_of_an_adapter_that_sees_no_vector_are_equal(tiny, tiny_prompt, random_vectors):
    model = tiny()
    result = control_losses(model, _adapter(model, tiny_prompt, "bias_only"), random_vectors(5), LABELS)
    assert result.matched == pytest.approx(result.shuffled, abs=1e-4)
    assert result.matched == pytest.approx(result.null, abs=1e-4)


def test_what_has_no_controls(tiny, tiny_prompt, random_vectors):
    model = tiny()
    with pytest.raises(InterpToolkitError, match="the adapter has no contract"):
        control_losses(model, Adapter.create("scale", d_model=32), random_vectors(2), ["a", "b"])
    adapter = _adapter(model, tiny_prompt, "scalar_affine")
    with pytest.raises(InterpToolkitError, match="at least two vectors, got 1 vectors and 1 labels"):
        control_losses(model, adapter, random_vectors(1), ["a"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("coverage_accuracy", "accuracy_by_coverage"),
        ("knowledge_gap", "baseline_gap"),
        ("reading_table", "threshold_table"),
        ("round_trip", "reconstruction_table"),
        ("take_out", "project_out"),
    ],
)
def test_old_names_lead_to_the_new_ones_and_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"evaluation.{old} is deprecated; use interp_toolkit.evaluation.{new}"):
        assert getattr(evaluation, old) is getattr(evaluation, new)


def test_every_old_name_leads_somewhere():
    for name in (
        "ControlLosses",
        "EvidenceControls",
        "KnowledgeRanks",
        "knowledge_ranks",
        "random_directions",
        "redact",
    ):
        with pytest.warns(DeprecationWarning, match=f"evaluation.{name} is deprecated"):
            assert callable(getattr(evaluation, name))


def test_old_names_of_evaluations_warn():
    with pytest.warns(DeprecationWarning, match="'abstention' is deprecated; use 'selective_prediction'"):
        assert find_evaluation("abstention") is find_evaluation("selective_prediction")
    with pytest.raises(InterpToolkitError, match="expected an evaluation, one of bias, .*, got 'abstain'"):
        find_evaluation("abstain")


def test_the_face_is_small():
    assert len(evaluation.__all__) <= 25
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
