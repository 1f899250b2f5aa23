"""The user's model is not as it was loaded: hooks, edits, modes and threads of their own."""

import copy
import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import make_sae

from interp_toolkit import Adapter, InterpToolkitError, Sampling, Site, load_model, read_activations, self_explain
from interp_toolkit.cache import JsonCache
from interp_toolkit.chat import prompt_ids
from interp_toolkit.contract import Contract, ModelFacts
from interp_toolkit.errors import ContractError
from interp_toolkit.evaluation import row_losses
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.control_kinds import null_control
from interp_toolkit.models import backend_of, is_plain, model_facts, weights_key
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.results import finished_result, write_result
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.sae import check_sae, store_activations, token_rows
from interp_toolkit.scoring import example_texts
from interp_toolkit.shipped import NAMES, find_adapter

PROMPTS = ["Tell me about rivers.", "Tell me about the history of Poland, and of its rivers, please.", "foxes?"]
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def load(checkpoints):
    """load(architecture, backend): a model of the test's own, which it may change."""
    return lambda architecture="llama", backend="bridge": load_model(
        checkpoints[architecture], backend=backend, dtype="float32"
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


def _adapter(model, prompt):
    adapter = Adapter.create("scalar_affine", 32, init_scale=3.0)
    adapter.contract = Contract.from_facts(model_facts(model), Site.after(2), prompt, None, True)
    return adapter.requires_grad_(False)


def _plain(model, prompt, site=2):
    """The stream at the last token in one plain pass of the model's own."""
    seen = []
    ids = torch.tensor(prompt_ids(model.tokenizer, [prompt]))
    with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.{site}.hook_resid_post", lambda x, hook: seen.append(x))]):
        model(ids)
    return seen[0][0, -1]


def _edit_last(x, hook):
    return torch.cat([x[:, :-1], x[:, -1:] * 3], 1)


def _edit_sixth(x, hook):
    x = x.clone()
    x[:, 5] = x[:, 5].flip(-1) * 4
    return x


def _edit_row(x, hook):
    return x * (1 + torch.arange(x.shape[1])[None, :, None] / 10)


HOOKS = [_edit_last, _edit_sixth, _edit_row]


@pytest.mark.parametrize("edit", HOOKS)
def test_readings_under_a_hook_are_those_of_a_plain_pass_per_prompt(load, backend, edit):
    model = load("llama", backend)
    with model.hooks(fwd_hooks=[(HOOK, edit)]):
        together = read_activations(model, PROMPTS, sites=[2]).vectors
        alone = torch.cat([read_activations(model, prompt, sites=[2]).vectors for prompt in PROMPTS])
        truth = torch.stack([_plain(model, prompt) for prompt in PROMPTS])
    assert torch.allclose(together, truth, atol=1e-5)
    assert torch.allclose(alone, truth, atol=1e-5)


def _silence(model, backend):
    """Attention of block 1 knocked out by replacing `forward`, which is given back."""
    attention = model.blocks[1].attn

    def silent(*arguments, forward=attention.forward, **named):
        out = forward(*arguments, **named)
        return torch.zeros_like(out) if isinstance(out, torch.Tensor) else (torch.zeros_like(out[0]), *out[1:])

    # Past the bridge's own __setattr__, which would put it where not even a plain pass looks.
    attention.__dict__["forward"] = silent
    return silent


def _forwards(model):
    original = getattr(model, "original_model", model)
    return [m.__dict__["forward"] for x in (model, original) for m in x.modules() if "forward" in m.__dict__]


def test_a_replaced_forward_is_seen_and_stays(load, backend, tiny_prompt):
    model = load("llama", backend)
    adapter = _adapter(model, tiny_prompt)
    before = self_explain(PROMPTS[1], model=model, adapter=adapter)[0]
    silent = _silence(model, backend)
    after = self_explain(PROMPTS[1], model=model, adapter=adapter)[0]
    vectors = read_activations(model, PROMPTS, sites=[2]).vectors
    assert silent in _forwards(model)
    assert abs(after.evidence - before.evidence) > 1e-3
    assert torch.allclose(vectors, torch.stack([_plain(model, prompt) for prompt in PROMPTS]), atol=1e-5)


def test_a_replaced_block_forward_outlives_gradient_checkpointing(load, backend, tiny_prompt, random_vectors):
    model = load("llama", backend)
    block = model.blocks[0]
    block.__dict__["forward"] = kept = lambda *a, forward=block.forward, **k: forward(*a, **k)
    run = PromptRun(model, tiny_prompt, recompute=True)
    soft = random_vectors(2).requires_grad_()
    score(run, soft, [[5, 6], [7]]).mean().sum().backward()
    assert block.__dict__["forward"] is kept
    assert soft.grad is not None


@pytest.mark.parametrize("edit", HOOKS[1:])
def test_descriptions_and_scores_under_a_hook_are_those_of_whole_passes(
    load, backend, tiny_prompt, edit, random_vectors
):
    model = load("llama", backend)
    run, soft = PromptRun(model, tiny_prompt), random_vectors(3) * 2
    plain = score(run, soft, [[5, 6, 7], [8], [9, 10]]).log_probs
    ids = [*run.tokens.prefix, *run.tokens.tail]
    slots = [len(run.tokens.prefix) + slot for slot in run.tokens.tail_slots]

    def whole(row, target):
        """Log-probabilities after prompt and target, by the model's own forward pass."""

        def write(x, hook):
            x = x.clone()
            x[:, slots] = soft[row].to(x)
            return x

        hooks = [(str(tiny_prompt.site), write), (HOOK, edit)]
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            return model(torch.tensor([[*ids, *target]]))[0, len(ids) - 1 :].log_softmax(-1)

    with model.hooks(fwd_hooks=[(HOOK, edit)]):
        # The run has been used without the hook: what it kept is of no use now.
        targets = [[5, 6, 7], [8], [9, 10], [11, 12]]
        hooked = score(run, soft, targets, soft_token_index=[0, 1, 2, 0]).log_probs.split([3, 1, 2, 2])
        texts = generate(run, soft, max_new_tokens=4, until="length")
    for target, row, got in zip(targets, (0, 1, 2, 0), hooked):
        expected = whole(row, target[:-1]).gather(1, torch.tensor(target)[:, None])[:, 0]
        assert torch.allclose(got, expected, atol=1e-4)
    for row, (text,) in enumerate(texts):
        written = []
        for token in text.token_ids:
            assert whole(row, written)[-1].argmax() == token
            written.append(token)
    again = score(run, soft, [[5, 6, 7], [8], [9, 10]]).log_probs
    assert torch.allclose(plain, again, atol=1e-6)
    assert not torch.allclose(plain, torch.cat(hooked[:3]), atol=1e-3)


def test_a_past_under_a_hook_is_run_again_with_what_follows(load, backend):
    model = load("llama", backend)
    runner = backend_of(model)
    ids = torch.tensor([[1, 5, 9, 20, 30, 40, 50, 60], [1, 6, 9, 21, 31, 41, 51, 61]])
    with torch.no_grad(), model.hooks(fwd_hooks=[(HOOK, _edit_sixth)]):
        runner.look()
        whole, _ = runner.hidden(ids)
        _, past = runner.hidden(ids[:, :6], keep=True)  # the beginning of each row, no prefix shared
        swapped = torch.tensor([1, 0])
        behind, past = runner.hidden(ids[swapped, 6:7], past.take(swapped), keep=True)
        last, _ = runner.hidden(ids[swapped, 7:], past)
    assert torch.allclose(behind[:, 0], whole[swapped, 6], atol=1e-5)
    assert torch.allclose(last[:, 0], whole[swapped, 7], atol=1e-5)


def test_gradients_under_a_hook_are_the_same_with_and_without_checkpointing(load, backend, tiny_prompt, random_vectors):
    model = load("llama", backend)
    grads = []
    for recompute in (False, True):
        soft = random_vectors(2).requires_grad_()
        with model.hooks(fwd_hooks=[(HOOK, _edit_row)]):
            score(PromptRun(model, tiny_prompt, recompute), soft, [[5, 6], [7]]).mean().sum().backward()
        grads.append(soft.grad)
    assert torch.allclose(*grads, atol=1e-6)
    assert grads[0].abs().sum() > 0


def test_a_hook_on_the_model_as_a_whole_is_refused(load):
    model = load()
    handle = model.original_model.register_forward_pre_hook(lambda module, arguments: None)
    with pytest.raises(InterpToolkitError, match="as a whole has a hook.*take it off, or put it on a block"):
        read_activations(model, PROMPTS, sites=[2])
    handle.remove()
    read_activations(model, PROMPTS, sites=[2])


def test_a_hook_that_calls_the_library_in_a_pass_is_refused_and_nothing_stays(load):
    model = load()
    with (
        model.hooks(fwd_hooks=[(HOOK, lambda x, hook: read_activations(model, "foxes?", sites=[2]))]),
        pytest.raises(InterpToolkitError, match="in the middle of a pass"),
    ):
        read_activations(model, PROMPTS, sites=[2])
    assert not _forwards(model)
    assert torch.allclose(
        read_activations(model, PROMPTS[0], sites=[2]).vectors[0], _plain(model, PROMPTS[0]), atol=1e-5
    )


def test_topic_vectors_are_neither_taken_from_the_cache_nor_kept_under_a_hook(load, backend):
    model = load("llama", backend)
    titles = ["Rivers", "Foxes"]
    plain = topic_vectors(model, titles, Site.after(2))
    with model.hooks(fwd_hooks=[(HOOK, _edit_last)]):
        hooked = topic_vectors(model, titles, Site.after(2))
        topic_vectors(model, ["Poland"], Site.after(2))
    assert not torch.allclose(plain, hooked, atol=1e-2)
    assert torch.equal(topic_vectors(model, titles, Site.after(2)), plain)
    alone = read_activations(model, "Tell me about Poland.", sites=[2]).vectors
    assert torch.allclose(topic_vectors(model, ["Poland"], Site.after(2)), alone, atol=1e-6)


def test_what_is_kept_by_weights_is_refused_under_a_hook(load):
    model = load()
    handle = model.blocks[2].mlp.register_forward_hook(lambda module, arguments, out: None)
    with pytest.raises(
        InterpToolkitError, match="expected the model as it was loaded.*has a hook on blocks.2.mlp; take"
    ):
        weights_key(model)
    handle.remove()
    assert weights_key(model) == weights_key(model)


def _first_matrix(model):
    return next(p for name, p in model.named_parameters() if "mlp" in name and p.ndim == 2)


@torch.no_grad()
def _edit_in_place(model):
    _first_matrix(model)[0, 0] += 1


def _edit_data(model):
    _first_matrix(model).data[-1].mul_(2)


def _replace_data(model):
    weight = _first_matrix(model)
    weight.data = weight.data * 1.01


@torch.no_grad()
def _swap_rows(model):
    weight = _first_matrix(model)
    weight.copy_(weight.flip(0))


def _swap_activation(model):
    mlp = model.blocks[0].mlp
    getattr(mlp, "original_component", mlp).act_fn = torch.nn.Tanh()


@pytest.mark.parametrize("edit", [_edit_in_place, _edit_data, _replace_data, _swap_rows, _swap_activation])
def test_caches_follow_the_weights(load, backend, edit):
    model = load("llama", backend)
    before = topic_vectors(model, ["Rivers"], Site.after(2))
    key = weights_key(model)
    edit(model)
    after = topic_vectors(model, ["Rivers"], Site.after(2))
    assert weights_key(model) != key
    assert torch.allclose(after, read_activations(model, "Tell me about Rivers.", sites=[2]).vectors, atol=1e-5)
    assert not torch.equal(before, after)


def test_what_libraries_hook_to_their_own_parts_is_no_change(load):
    model = load()
    model.original_model(torch.tensor([[1, 5]]), output_hidden_states=True)  # leaves hooks for good
    assert any(module._forward_hooks for module in model.modules())
    assert is_plain(model)


def test_a_prompt_run_follows_the_weights(load, backend, tiny_prompt, random_vectors):
    model = load("llama", backend)
    run = PromptRun(model, tiny_prompt)
    score(run, random_vectors(1), [[5]])
    _replace_data(model)
    now = score(run, random_vectors(1), [[5]]).log_probs
    assert torch.equal(now, score(PromptRun(model, tiny_prompt), random_vectors(1), [[5]]).log_probs)


def test_signs_in_the_blocks_agree_across_classes_and_dtypes(checkpoints, architecture, backend):
    signs = {
        model_facts(load_model(checkpoints[architecture], backend=name, dtype=dtype)).block_signs
        for name in {"bridge", backend}
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert len(signs) == 1
    assert len(signs.pop()) == 4


def _random_blocks(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for block in model.blocks:
            for weight in block.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 0.15)


def _merge(model):
    """As LoRA is merged: a product of low rank on a matrix of each block, through `.data`."""
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "mlp" in name and weight.ndim == 2:
            weight.data += 0.05 * torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1])


@pytest.mark.parametrize("edit", [_random_blocks, _merge])
def test_an_adapter_is_refused_when_the_blocks_have_other_weights(load, backend, tiny_prompt, edit):
    model = load("llama", backend)
    adapter = _adapter(model, tiny_prompt)
    fingerprint = model_facts(model).fingerprint
    self_explain("foxes?", model=model, adapter=adapter, sampling=Sampling(max_new_tokens=2))
    edit(model)
    assert model_facts(model).fingerprint == fingerprint
    with pytest.raises(ContractError, match="blocks of this model have other weights.*fine-tuned.*train an adapter"):
        self_explain("foxes?", model=model, adapter=adapter)


def test_a_contract_without_signs_is_checked_by_the_embedding_as_before(load, tiny_prompt):
    model = load()
    contract = Contract.from_facts(model_facts(model), Site.after(2), tiny_prompt, None, True)
    saved = contract.to_dict()
    assert Contract.from_dict(saved, None).block_signs == model_facts(model).block_signs != ()
    del saved["block_signs"]
    _random_blocks(model)
    Contract.from_dict(saved, None).check_model(model_facts(model))
    with pytest.raises(ContractError):
        contract.check_model(model_facts(model))


def test_facts_are_read_anew_in_compatibility_mode(load, tiny_prompt):
    model = load("gpt2")
    adapter = _adapter(model, tiny_prompt)
    adapter.contract.check_model(model_facts(model))
    model.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ContractError):
        adapter.contract.check_model(model_facts(model))
    vectors = read_activations(model, PROMPTS, sites=[2]).vectors
    assert torch.allclose(vectors, torch.stack([_plain(model, prompt) for prompt in PROMPTS]), atol=1e-4)


def _noisy(model):
    """Training mode, dropout and gradients, as in the middle of somebody's fine-tuning."""
    for module in [*model.modules(), *getattr(model, "original_model", model).modules()]:
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        for name in ("attention_dropout", "dropout"):
            if isinstance(module.__dict__.get(name), float):
                module.__dict__[name] = 0.5
    model.train()
    getattr(model, "original_model", model).train()
    model.requires_grad_(True)
    next(model.parameters()).requires_grad_(False)
    model.blocks[2].eval()


def _modes(model):
    modules = [*model.modules(), *getattr(model, "original_model", model).modules()]
    return [m.training for m in modules], [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_model_in_training_is_read_without_dropout_and_left_as_it_was(load, architecture, backend, tiny_prompt):
    model = load(architecture, backend)
    adapter = _adapter(model, tiny_prompt)
    expected = read_activations(model, PROMPTS, sites=[2]).vectors
    text = self_explain(PROMPTS, model=model, adapter=adapter)
    _noisy(model)
    modes = _modes(model)
    assert torch.equal(read_activations(model, PROMPTS, sites=[2]).vectors, expected)
    again = self_explain(PROMPTS, model=model, adapter=adapter)
    assert [(row.description, row.evidence) for row in again] == [(row.description, row.evidence) for row in text]
    assert _modes(model) == modes
    assert all(p.grad is None for p in model.parameters())


def test_a_deleted_model_is_freed(load, tiny_prompt, backend):
    model = load("llama", backend)
    self_explain("foxes?", model=model, adapter=_adapter(model, tiny_prompt), sampling=Sampling(max_new_tokens=2))
    weight, gone = weakref.ref(next(model.parameters())), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert weight() is None


def test_a_copy_has_a_backend_of_its_own(load):
    model = load()
    first = backend_of(model)
    other = copy.deepcopy(model)
    assert backend_of(other).model is other
    assert backend_of(model) is first


def test_a_compiled_model_is_refused_with_a_hint(load):
    compiled = torch.compile(load(), backend="eager")
    hint = "torch.compile; give the model that was compiled.*_orig_mod"
    for use in (backend_of, load_model, lambda model: self_explain("foxes?", model=model)):
        with pytest.raises(InterpToolkitError, match=hint):
            use(compiled)


def test_two_threads_read_and_explain_as_one(load, backend, tiny_prompt):
    model = load("llama", backend)
    adapter = _adapter(model, tiny_prompt)
    config = getattr(getattr(model, "original_model", None), "config", None)
    implementation = getattr(config, "_attn_implementation", None)
    many = [f"{prompt} {i}" for i in range(2) for prompt in PROMPTS]

    def read(prompt):
        return read_activations(model, [prompt, "foxes?"], sites=[1, 2], positions=[-1, -2]).vectors

    def explain(prompt):
        text = self_explain(
            prompt, model=model, adapter=adapter, sites=2, positions=[-1, -2], sampling=Sampling(max_new_tokens=6)
        )
        return [(row.description, row.evidence) for row in text]

    expected = [read(prompt) for prompt in many], [explain(prompt) for prompt in many]
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(explain, many)
        vectors = pool.map(read, many)
        assert all(torch.equal(x, y) for x, y in zip(vectors, expected[0]))
        assert list(texts) == expected[1]
    assert getattr(config, "_attn_implementation", None) == implementation
    assert not _forwards(model)
    assert not any(m._forward_hooks for m in model.modules())


def test_the_model_is_as_it_was_after_an_exception_in_a_pass(load, backend):
    model = load("llama", backend)
    ids = torch.tensor(prompt_ids(model.tokenizer, PROMPTS[:1]))
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    before = model(ids, attention_mask=mask)
    config = getattr(getattr(model, "original_model", None), "config", None)
    implementation = getattr(config, "_attn_implementation", None)

    def fail(x):
        raise KeyboardInterrupt

    def interrupted(_):
        with pytest.raises(KeyboardInterrupt):
            backend_of(model).hidden(ids, edits={Site.after(1): fail})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupted, range(6)))
    assert getattr(config, "_attn_implementation", None) == implementation
    assert not _forwards(model)
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(model(ids, attention_mask=mask), before)


class _Bench(EvalContext):
    versions, facts = {}, {"dtype": "float32"}

    def __init__(self, model):
        self.model, self._engine = model, None


def _places(model, adapter, tmp_path):
    """Where each kind of evaluation keeps what it does with a model."""
    context = _Bench(model)
    return [
        JsonCache("texts", tmp_path).path(example_texts._keys(model, ["a"], example_texts.GenerationConfig())["a"]),
        JsonCache("descriptions").path(context._descriptions_key(context.key(), adapter, torch.zeros(1, 32), 1, False)),
        JsonCache("losses").path(row_losses._key(context, null_control(adapter, 1), ["a"])),
        JsonCache("grids").path(context.key()),
    ]


def test_evaluations_are_kept_by_the_weights_in_use(load, tiny_prompt, tmp_path):
    model = load()
    adapter = _adapter(model, tiny_prompt)
    before = _places(model, adapter, tmp_path)
    assert _places(load(), adapter, tmp_path) == before
    _edit_data(model)
    assert not set(before) & set(_places(model, adapter, tmp_path))
    model.blocks[1].mlp.register_forward_hook(lambda module, arguments, out: None)
    with pytest.raises(InterpToolkitError, match="expected the model as it was loaded.*blocks.1.mlp"):
        _places(model, adapter, tmp_path)


def test_texts_are_written_anew_after_an_edit_and_not_kept_under_a_hook(load, tmp_path):
    model, writing = load(), example_texts.GenerationConfig(texts=2, prompt="Say {label}", max_new_tokens=4)
    before = example_texts.write_texts(model, {"a": 2}, writing, tmp_path)
    _random_blocks(model)
    after = example_texts.write_texts(model, {"a": 2}, writing, tmp_path)
    assert after != before
    assert after == example_texts.write_texts(model, {"a": 2}, writing)
    with model.hooks(fwd_hooks=[(HOOK, _edit_last)]):
        example_texts.write_texts(model, {"a": 2}, writing)
        with pytest.raises(InterpToolkitError, match="leave out the folder"):
            example_texts.write_texts(model, {"a": 2}, writing, tmp_path)


def test_a_result_of_other_weights_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "result.json"
    write_result(path, dict(settings=dict(n=1, weights="a")))
    assert finished_result(path, dict(n=1, weights="a"))
    assert finished_result(path, dict(n=1, weights="b")) is None
    write_result(path, dict(settings=dict(n=1)))
    assert finished_result(path, dict(n=1, weights="b"))


def test_an_sae_is_refused_when_the_blocks_have_other_weights(load):
    model = load()
    facts = model_facts(model)
    sae = make_sae(model_fingerprint=facts.fingerprint, model_block_signs=list(facts.block_signs))
    check_sae(sae, model)
    _random_blocks(model)
    with pytest.raises(ContractError, match="trained on another model.*on_mismatch"):
        check_sae(sae, model)
    with pytest.warns(UserWarning, match="trained on another model"):
        check_sae(sae, model, on_mismatch="warn")


def test_activations_are_not_stored_under_a_hook(load):
    model = load()
    rows = token_rows(model.tokenizer, ["Tell me about rivers and the history of Poland."])
    store_activations(model, rows, 2)
    with (
        model.hooks(fwd_hooks=[(HOOK, _edit_last)]),
        pytest.raises(InterpToolkitError, match="expected the model as it was loaded.*has a hook on blocks.1"),
    ):
        store_activations(model, rows, 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_adapters_know_the_blocks_of_their_model(name):
    contract = find_adapter(name).contract
    facts = ModelFacts(contract.model_id, "", contract.fingerprint, 576, 30, contract.block_signs)
    contract.check_model(facts)
    rounded = tuple(signs - 3 for signs in facts.block_signs)  # as float16 may
    contract.check_model(dataclasses.replace(facts, block_signs=rounded))
    other = (*facts.block_signs[:-1], facts.block_signs[-1] + 900)
    with pytest.raises(ContractError, match="blocks of this model have other weights"):
        contract.check_model(dataclasses.replace(facts, block_signs=other))
