"""A user's own loss, in place of the mean cross-entropy."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from interp_toolkit import Adapter, InterpToolkitError, Site, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.runtime import PromptRun, Scores
from interp_toolkit.training import Objective, mean_cross_entropy
from interp_toolkit.training.objective import losses

WORDS = ["rivers", "Poland", "a fox", "jumps over the dog"]
SHORT = TrainConfig(max_steps=4, batch_size=8, lr=0.05, eval_every=2, val_examples=8, log_samples=0)


def focal_loss(scores):
    """Tokens that are nearly right count for less (Lin et al., arXiv 1708.02002)."""
    log_probs = scores.log_probs
    return Scores((1 - log_probs.exp()) ** 2 * -log_probs, scores.lengths).mean()


def worst_token(scores):
    return torch.stack([-x.min() for x in scores.log_probs.split(scores.lengths)])


class LabelLikelihood:
    """The label's log-probability as a whole, scaled: an object is as good as a function."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, scores):
        return torch.stack([-self.scale * x.sum() for x in scores.log_probs.split(scores.lengths)])


def _plain_log_probs(hf, run, adapter, vectors, targets):
    """Log-probabilities with nothing shared: whole prompts, Hugging Face's model, gradients by autograd alone."""
    rows = []
    for soft_token, target in zip(adapter(vectors), targets):
        embeddings = hf.get_input_embeddings()(torch.tensor([[*run.tokens.ids, *target]])).clone()
        embeddings[0, list(run.tokens.slots)] = soft_token
        logits = hf(inputs_embeds=embeddings).logits[0, len(run.tokens.ids) - 1 : -1]
        rows.append(logits.log_softmax(-1)[range(len(target)), target])
    return Scores(torch.cat(rows), tuple(map(len, rows)))


def _adapter():
    return Adapter.create("scalar_affine_low_rank", 32, rank=8, init_scale=2.0)


def _gradients(adapter, value):
    adapter.zero_grad()
    value.backward()
    return {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}


@pytest.fixture
def pairs(random_vectors):
    splits = ["train"] * 40 + ["val"] * 8
    return VectorLabelPairs.from_tensors(random_vectors(48), WORDS * 12, splits=splits, site=Site.after(2))


@pytest.mark.parametrize("objective", [focal_loss, worst_token, LabelLikelihood(0.1)])
def test_loss_and_gradients_of_an_own_objective_are_those_of_autograd(
    tiny, tiny_hf, tiny_prompt, random_vectors, objective, architecture
):
    run = PromptRun(tiny(architecture), tiny_prompt)
    targets = tiny_prompt.targets(run.model.tokenizer, WORDS)
    vectors, adapter = random_vectors(4), _adapter()
    ours = losses(run, adapter, vectors, targets, objective=objective)
    theirs = objective(_plain_log_probs(tiny_hf(architecture), run, adapter, vectors, targets))
    assert torch.allclose(ours, theirs, atol=1e-4)
    ours, theirs = _gradients(adapter, ours.mean()), _gradients(adapter, theirs.mean())
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 1e-4 * max(1.0, gradient.norm().item()), name


def test_smoothing_and_the_largest_loss_of_a_token_come_before_the_objective(tiny, tiny_prompt, random_vectors):
    run, seen = PromptRun(tiny("llama"), tiny_prompt), []
    targets = tiny_prompt.targets(run.model.tokenizer, WORDS)

    def looking(scores):
        seen.append(scores)
        return mean_cross_entropy(scores)

    values = losses(run, _adapter(), random_vectors(4), targets, 0.1, 4.0, looking)
    assert torch.equal(values, losses(run, _adapter(), random_vectors(4), targets, 0.1, 4.0))
    assert seen[0].lengths == tuple(map(len, targets))
    assert seen[0].log_probs.min() == -4.0


def test_training_minimises_the_objective_and_validates_by_cross_entropy(tiny, pairs, tmp_path):
    assert isinstance(focal_loss, Objective)
    model = tiny("qwen2")
    config = dataclasses.replace(SHORT, max_steps=20, epochs=10)
    result = train_adapter(model, pairs, _adapter(), config, objective=worst_token, folder=tmp_path, progress=False)
    plain = train_adapter(model, pairs, _adapter(), config, progress=False)
    assert result.history.train_loss.iloc[-1] < result.history.train_loss.iloc[0]
    # The worst token's loss lies above the mean, and the validation losses are of one kind.
    assert (result.history.train_loss > plain.history.train_loss + 0.1).all()
    assert result.history.val_loss.iloc[0] == pytest.approx(plain.history.val_loss.iloc[0], abs=0.5)
    assert result.adapter.digest != plain.adapter.digest
    assert result.adapter.metadata["objective"].endswith("test_extend_objective.worst_token")
    assert "objective" not in plain.adapter.metadata


def test_the_loss_of_the_how_to_page_trains(tiny, pairs):
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"## A loss\n.*?```python\n(.*?)```", page, flags=re.S)
    names = dict(model=tiny("qwen2"), pairs=pairs, adapter=_adapter())
    exec(program, names)
    assert names["result"].adapter.metadata["objective"].endswith("focal_loss")


def test_the_default_is_the_mean_cross_entropy_by_whatever_name(tiny, pairs):
    results = [
        train_adapter(tiny("qwen2"), pairs, _adapter(), SHORT, progress=False, **settings)
        for settings in ({}, dict(objective=lambda scores: -scores.mean()))
    ]
    assert results[0].adapter.digest == results[1].adapter.digest


def test_a_run_does_not_go_on_with_another_objective(tiny, pairs, tmp_path):
    def run(objective):
        return train_adapter(
            tiny("qwen2"), pairs, _adapter(), SHORT, objective=objective, folder=tmp_path, progress=False
        )

    first = run(focal_loss)
    assert run(focal_loss).history.equals(first.history)
    with pytest.raises(
        InterpToolkitError, match=r"another run \(objective: .*focal_loss there, .*LabelLikelihood here"
    ):
        run(LabelLikelihood(1.0))
    with pytest.raises(InterpToolkitError, match=r"another run \(objective: .*focal_loss there, None here"):
        run(mean_cross_entropy)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda scores: -scores.log_probs.mean(), r"one loss per example, shape \(8,\), from .*, got shape \(\)"),
        (lambda scores: 1.0, r"one loss per example, shape \(8,\), from .*, got float"),
        (lambda scores: -scores.mean().detach(), "losses that gradients can flow through from .*compute it from"),
    ],
)
def test_what_is_no_loss_is_refused(tiny, pairs, objective, message):
    with pytest.raises(InterpToolkitError, match=message):
        train_adapter(tiny("qwen2"), pairs, _adapter(), SHORT, objective=objective, progress=False)
