import pytest
import torch

from interp_toolkit import InterpToolkitError
from interp_toolkit.evaluation import recall_table, retrieval_ranks


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
