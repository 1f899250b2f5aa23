"""What is computed on a GPU is what is computed on the processor."""

import pytest
import torch

from interp_toolkit import Adapter, SoftPrompt, TrainConfig, load_model, read_activations, self_explain, train_adapter
from interp_toolkit.pairs import context_pairs, reworded_topic_pairs
from interp_toolkit.runtime import PromptRun, evidence, generate, score
from interp_toolkit.sites import SiteStack

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

TEXTS = ["Tell me about baseball.", "The Eiffel Tower is in Paris.", "Rust is a language."]
LABELS = ["Baseball", "Eiffel Tower", "Rust (programming language)"]
STACK = SiteStack([4, 10, 16, 23])


@pytest.fixture(scope="module")
def models():
    return [load_model(dtype="float32", device=device) for device in ("cpu", "cuda")]


@pytest.fixture(scope="module")
def runs(models):
    return [PromptRun(model, SoftPrompt.for_tokenizer(model.tokenizer)) for model in models]


def test_activations_are_the_same(models):
    on_cpu, on_gpu = (read_activations(model, TEXTS, [4, 23], "all").vectors for model in models)
    assert on_gpu.device.type == "cpu"
    assert torch.allclose(on_cpu, on_gpu, rtol=1e-3, atol=1e-3 * on_cpu.abs().mean())


def test_scores_evidence_gradients_and_texts_are_the_same(models, runs, random_vectors):
    results = []
    for run in runs:
        soft = (5 * random_vectors(3, 576)).to(run.backend.device).requires_grad_()
        targets = run.soft_prompt.targets(run.model.tokenizer, LABELS)
        scores = score(run, soft, targets, smoothing=0.1).mean()
        scores.sum().backward()
        null = torch.zeros(576, device=run.backend.device)
        measured = evidence(run, null, targets, soft.detach())
        texts = [row[0].text for row in generate(run, soft.detach())]
        sampled = [[text.text for text in row] for row in generate(run, soft.detach(), samples=3, temperature=0.7)]
        results.append((scores.detach().cpu(), soft.grad.cpu(), *(x.cpu() for x in measured), texts, sampled))
    (*on_cpu, texts, sampled), (*on_gpu, gpu_texts, gpu_sampled) = results
    for one, other in zip(on_cpu, on_gpu):
        assert torch.allclose(one, other, atol=1e-3 * max(1.0, one.abs().mean().item())), (one, other)
    assert texts == gpu_texts
    assert sampled == gpu_sampled


def test_training_takes_the_same_steps(models):
    histories = []
    for model in models:
        topics = reworded_topic_pairs(model, LABELS * 4, STACK, splits=["train"] * 9 + ["val"] * 3)
        assert len(context_pairs(model, TEXTS, STACK, val_fraction=0.4)) > 5
        adapter = Adapter.create("low_rank", 576, sites=4, tokens=4, rank=8)
        config = TrainConfig(max_steps=6, epochs=50, batch_size=4, lr=0.001, ridge_init=0.03, eval_every=2)
        prompt = SoftPrompt.for_chat(model.tokenizer, 'Repeat this: "{slot}"', '"', tokens=4)
        run = train_adapter(model, topics, adapter, config, soft_prompt=prompt, progress=False)
        described = self_explain(TEXTS, model=model, adapter=run.adapter)
        assert len(described) == 3
        histories.append(torch.tensor([row["val_loss"] for row in run.history.to_dict("records")]))
    assert torch.allclose(*histories, atol=0.02)
