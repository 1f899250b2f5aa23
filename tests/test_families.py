import copy

import families
import pytest
import torch
from conftest import BACKENDS

from interp_toolkit import InterpToolkitError, load_model, read_activations
from interp_toolkit.models import backend_of
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.sites import Site

_HOOKED_TRANSFORMERS = ["gemma2", "gpt2", "gpt2 scaled by layers", "llama", "llama with biases in attention", "qwen2"]
_CASES = list(families.CASES)
if "hooked_transformer" in BACKENDS:
    _CASES += [f"{case} as hooked_transformer" for case in _HOOKED_TRANSFORMERS]
_QUICK = {"cohere", "granite", "mamba", "opt with a narrow embedding", "phi3 past its short factors"}
_QUICK |= {"llama with biases in attention as hooked_transformer"}
_SITE = "blocks.0.hook_resid_pre"


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def pair(tiny_tokenizer, tmp_path_factory):
    """pair(case): the model in Hugging Face's own class, and a hooked copy; the last one is kept."""
    kept = {}

    def get(case):
        if case not in kept:
            kept.clear()
            name, _, backend = case.partition(" as ")
            truth = families.build(name)
            if backend:
                folder = tmp_path_factory.mktemp("checkpoint")
                truth.save_pretrained(folder)
                model = load_model(folder, backend=backend, dtype="float32", tokenizer=tiny_tokenizer)
            else:
                model = load_model(copy.deepcopy(truth), tokenizer=tiny_tokenizer)
            kept[case] = truth, model
        return kept[case]

    return get


@pytest.fixture(
    scope="module", params=[case if case in _QUICK else pytest.param(case, marks=pytest.mark.slow) for case in _CASES]
)
def case(request):
    return request.param


def _tokens(rows=3, length=17, seed=0):
    return torch.randint(6, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_logits_and_residual_streams_are_those_of_hugging_face(pair, case):
    truth, model = pair(case)
    runner, tokens, streams = backend_of(model), _tokens(), {}
    edits = {Site.after(i): (lambda x, i=i: streams.update({i: x})) for i in range(runner.n_layers)}
    with torch.no_grad():
        logits = runner.logits(runner.hidden(tokens, edits=edits)[0])
        user_logits = model(tokens)
    true_streams, true_logits = families.streams_of(truth, tokens, runner.n_layers)
    assert len(true_streams) == runner.n_layers
    for i, stream in enumerate(true_streams):
        assert relative(streams[i], stream) < 1e-5
    assert relative(logits, true_logits) < 1e-5
    assert relative(user_logits, true_logits) < 1e-5


def test_activations_of_prompts_that_begin_alike_are_those_of_one_pass_each(pair, case):
    truth, model = pair(case)
    prompts = [row[: 9 + 8 * i].tolist() for i, row in enumerate(_tokens(3, 40))]
    for prompt in prompts:
        prompt[:5] = prompts[0][:5]
    vectors = read_activations(model, prompts, sites=[1, 3], positions=[5, -1]).vectors.view(3, 2, 2, -1)
    for ours, prompt in zip(vectors, prompts):
        streams, _ = families.streams_of(truth, torch.tensor([prompt]), model.cfg.n_layers)
        for at_site, stream in zip(ours, (streams[1][0], streams[3][0])):
            assert relative(at_site, stream[[5, -1]]) < 1e-5


def test_a_past_stands_for_its_tokens(pair, case):
    truth, model = pair(case)
    runner, tokens = backend_of(model), _tokens()
    tokens[:, :7] = tokens[0, :7]
    with torch.no_grad():
        past = runner.prefix(tokens[:1, :7])
        middle, grown = runner.hidden(tokens[:, 7:12], past, keep=True)
        end, _ = runner.hidden(tokens[[1, 2], 12:], grown.take(torch.tensor([1, 2])))
        true_logits = truth(tokens).logits
        assert relative(runner.logits(middle), true_logits[:, 7:12]) < 1e-5
        assert relative(runner.logits(end), true_logits[[1, 2], 12:]) < 1e-5


def test_scores_and_their_gradients_are_those_of_hugging_face(pair, case, tiny_prompt, random_vectors):
    truth, model = pair(case)
    run = PromptRun(model, tiny_prompt.at(_SITE))
    targets = [[12, 40, 33, 9], [7], [55, 120, 18]]
    for owners in ([0, 1, 2], [0, 0, 1]):  # of one soft token each, and several of one
        ours, theirs = (random_vectors(max(owners) + 1).requires_grad_() for _ in range(2))
        log_probs = score(run, ours, targets, owners).log_probs
        true_log_probs = []
        for target, owner in zip(targets, owners):
            ids = torch.tensor([[*run.tokens.ids, *target]])
            logits = families.logits_with(truth, ids, theirs[[owner]], run.tokens.slots, model.cfg.n_layers)
            rows = logits[0, len(run.tokens.ids) - 1 : -1].log_softmax(-1)
            true_log_probs.append(rows.gather(1, torch.tensor(target)[:, None])[:, 0])
        true_log_probs = torch.cat(true_log_probs)
        assert (log_probs - true_log_probs).abs().max() < 1e-4
        (grad,), (true_grad,) = (
            torch.autograd.grad(x.sum(), v) for x, v in ((log_probs, ours), (true_log_probs, theirs))
        )
        assert relative(grad, true_grad) < 1e-4


def test_greedy_texts_are_those_of_hugging_face(pair, case, tiny_prompt, random_vectors):
    truth, model = pair(case)
    run, vectors = PromptRun(model, tiny_prompt.at(_SITE)), random_vectors(2)
    generations = generate(run, vectors, max_new_tokens=6, until="length")
    for vector, (generation,) in zip(vectors, generations):
        ids = list(run.tokens.ids)
        with torch.no_grad():
            for _ in range(6):
                logits = families.logits_with(
                    truth, torch.tensor([ids]), vector[None], run.tokens.slots, model.cfg.n_layers
                )
                ids.append(int(logits[0, -1].argmax()))
        assert list(generation.token_ids) == ids[len(run.tokens.ids) :]


def test_soft_tokens_at_the_embedding_are_those_of_hugging_face(pair, case, tiny_prompt, random_vectors):
    truth, model = pair(case)
    runner, embedding = backend_of(model), truth.get_input_embeddings()
    if runner.embedding_weight.shape[1] != runner.d_model:
        with pytest.raises(InterpToolkitError, match=r"take blocks\.0\.hook_resid_pre instead"):
            PromptRun(model, tiny_prompt)
        return
    run, target = PromptRun(model, tiny_prompt), [12, 40, 33, 9]
    ids = torch.tensor([[*run.tokens.ids, *target]])
    seen = []
    with torch.no_grad():
        runner.visit(ids, None, {Site.embedding(): seen.append})
        # The site lies behind the factor by which some families scale their embeddings.
        factor = float(seen[0].norm() / embedding(ids).norm())
        assert torch.allclose(seen[0], factor * embedding(ids), atol=1e-5)
    ours, theirs = (random_vectors(1).requires_grad_() for _ in range(2))
    slots = torch.tensor(run.tokens.slots)
    handle = embedding.register_forward_hook(
        lambda module, inputs, out: out.index_copy(1, slots, (theirs / factor).expand(1, len(slots), -1))
    )
    try:
        logits = truth(ids).logits
    finally:
        handle.remove()
    rows = logits[0, len(run.tokens.ids) - 1 : -1].log_softmax(-1)
    true_log_probs = rows.gather(1, torch.tensor(target)[:, None])[:, 0]
    log_probs = score(run, ours, [target]).log_probs
    assert (log_probs - true_log_probs).abs().max() < 1e-4
    (grad,), (true_grad,) = (torch.autograd.grad(x.sum(), v) for x, v in ((log_probs, ours), (true_log_probs, theirs)))
    assert relative(grad, true_grad) < 1e-4
