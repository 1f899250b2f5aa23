"""Which examples a run is validated on, and what it logs of its learning rates."""

import dataclasses
import json
import math
from collections import Counter

import pytest
import torch

from interp_toolkit import Adapter, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.pairs.pairs import VectorLabelPairs as Pairs
from interp_toolkit.runtime import PromptRun
from interp_toolkit.training import loop
from interp_toolkit.training.examples import Examples, draw_validation

SHORT = TrainConfig(epochs=2, batch_size=8, lr=0.05, eval_every=2, val_examples=12, log_samples=3, warmup_steps=2)


def _source(word, train, val, seed, labels=1):
    count = train + val
    vectors = torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))
    texts = [[f"{word} {i} {k}" for k in range(labels)] for i in range(count)]
    return Pairs.from_tensors(vectors, texts, splits=["train"] * train + ["val"] * val)


def _sources_of(pairs, numbers):
    return Counter(pairs.source_of[row] for row in (pairs.examples[i][0] for i in numbers))


@pytest.fixture
def mixture():
    """Three quarters of the training examples and few validation examples are of the first, a quarter of the second."""
    return VectorLabelPairs.concat([_source("river", 30, 40, 0), _source("fox", 10, 400, 1)], [0.75, 0.25])


def test_a_mixture_is_validated_on_its_sources_in_the_shares_of_its_training(mixture):
    sides = mixture.split("val"), mixture.split("train")
    for count, expected in ((12, {0: 9, 1: 3}), (40, {0: 30, 1: 10}), (100, {0: 40, 1: 60}), (2, {0: 1, 1: 1})):
        numbers = draw_validation(*sides, count, seed=0)
        assert _sources_of(sides[0], numbers) == expected
        assert len(set(numbers)) == count
        assert numbers == draw_validation(*sides, count, seed=0)
    assert draw_validation(*sides, 40, seed=0) != draw_validation(*sides, 40, seed=1)
    assert sorted(draw_validation(*sides, 1000, seed=0)) == list(range(440))
    # The first ones, which are described as the run goes on, are of each source.
    assert _sources_of(sides[0], draw_validation(*sides, 40, seed=0)[:4]) == {0: 2, 1: 2}


def test_one_source_is_drawn_from_all_over_and_kept_in_order_where_all_of_it_is_used():
    pairs = _source("river", 10, 1000, 0)
    sides = pairs.split("val"), pairs.split("train")
    assert draw_validation(*sides, 1000, seed=0) == list(range(1000))
    numbers = draw_validation(*sides, 100, seed=0)
    assert 400 < sum(numbers) / 100 < 600


def test_a_source_without_training_examples_is_validated_last():
    pairs = VectorLabelPairs.concat([_source("river", 30, 6, 0), _source("fox", 30, 6, 1)], [0.5, 0.5])
    alone = pairs.take([i for i, of in enumerate(pairs.source_of) if of == 0 or pairs.splits[i] == "val"])
    assert _sources_of(alone.split("val"), draw_validation(alone.split("val"), alone.split("train"), 8, 0)) == {
        0: 6,
        1: 2,
    }


def test_drawn_examples_have_their_own_vectors_and_labels(tiny, tiny_prompt):
    pairs = VectorLabelPairs.concat(
        [_source("river", 9, 9, 0, labels=3), _source("fox", 9, 9, 1, labels=3)], [0.5, 0.5]
    )
    side, run = pairs.split("val"), PromptRun(tiny(), tiny_prompt)
    numbers = [40, 3, 3 + 1, 17]
    some, every = Examples.from_pairs(side, run, numbers), Examples.from_pairs(side, run)
    assert list(some.targets) == [every.targets[i] for i in numbers]
    assert torch.equal(some.vectors(range(4), torch.device("cpu")), every.vectors(numbers, torch.device("cpu")))
    assert some.pairs.labels == tuple(side.labels[row] for row in (13, 1, 5))
    assert len(every) == 54


def test_a_run_validates_on_every_source(tiny, mixture, tmp_path, monkeypatch):
    seen = []
    real = loop.validation_losses
    monkeypatch.setattr(loop, "validation_losses", lambda *x: seen.append(x[3]) or real(*x))
    adapter = Adapter.create("scalar_affine", 32)
    train_adapter(tiny(), mixture, adapter, SHORT, folder=tmp_path, progress=False)
    texts = [tiny().tokenizer.decode(target) for target in seen[0]]
    assert Counter(text.split()[0] for text in texts) == {"river": 9, "fox": 3}
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (first, *_) = [row for row in events if row["event"] == "validation"]
    assert [shown["label"].split()[0] for shown in first["descriptions"]] == ["river", "fox", "river"]


def test_each_learning_rate_is_logged_as_the_step_took_it(tiny, mixture, tmp_path, monkeypatch):
    taken = []
    real = torch.optim.AdamW.step

    def stepping(self, *arguments, **settings):
        taken.append([group["lr"] for group in self.param_groups])
        return real(self, *arguments, **settings)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)
    config = dataclasses.replace(SHORT, scale_lr=0.2, matrix_lr=0.003, frozen=("V",), log_samples=0)
    adapter = Adapter.create("scalar_affine_low_rank", 32, rank=4)
    train_adapter(tiny(), mixture, adapter, config, folder=tmp_path, progress=False)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [row for row in events if row["event"] == "step"]
    names = [name for name, _ in adapter.named_parameters() if name != "V"]
    assert [[row[f"lr_{name}"] for name in names] for row in steps] == taken
    assert not any("lr_V" in row for row in steps)
    # ``lr`` is what the setting of that name has come to.
    assert [row["lr"] for row in steps] == [row["lr_bias"] for row in steps]
    assert steps[0]["lr"] == pytest.approx(0.05 / 3)
    assert steps[2]["lr_log_scale"] == pytest.approx(0.2)
    assert all(math.isfinite(row["lr"]) and row["lr"] > 0 for row in steps)
