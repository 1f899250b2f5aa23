"""What `load_model` accepts, refuses and leaves behind; what it computes is in test_families.py."""

import copy
import gc
import json
import logging
import shutil
import weakref

import families
import pytest
import torch
from conftest import BACKENDS
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from interp_toolkit import InterpToolkitError, load_model, read_activations, topic_pairs
from interp_toolkit.models import as_hooked_model, backend_of, load, model_facts

_TOKENS = torch.arange(20, 32)[None]


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of the tiny Llama's checkpoint, to be harmed."""
    return shutil.copytree(checkpoints["llama"], tmp_path / "llama")


def _edit_weights(folder, edit):
    path = folder / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


# TransformerLens 3 computes Cohere's attention otherwise than Hugging Face; TransformerLens 4 has mended that.
_COHERE_IS_WRONG = "hooked_transformer" in BACKENDS


@pytest.mark.parametrize("model_type", families.REFUSED)
def test_a_family_that_cannot_be_right_is_refused_and_its_model_left_alone(model_type, tiny_tokenizer):
    model = families.build_refused(model_type)
    before, names = model(_TOKENS).logits, [name for name, _ in model.named_modules()]
    if model_type == "cohere" and not _COHERE_IS_WRONG:
        assert torch.allclose(load_model(model, tokenizer=tiny_tokenizer)(_TOKENS), before, atol=1e-5)
        return
    with pytest.raises(InterpToolkitError, match=f"{type(model).__name__}.*{families.REFUSED[model_type]}"):
        load_model(model, tokenizer=tiny_tokenizer)
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(model(_TOKENS).logits, before)


def _boot_wrongly(monkeypatch, module, factor):
    """From now on TransformerLens changes a weight of the model that it wraps."""
    boot = TransformerBridge.boot_transformers

    def boot_and_change(*args, hf_model, **settings):
        bridge = boot(*args, hf_model=hf_model, **settings)
        with torch.no_grad():
            bridge.original_model.get_submodule(module).weight.mul_(factor)
        return bridge

    monkeypatch.setattr(TransformerBridge, "boot_transformers", boot_and_change)


@pytest.mark.parametrize(
    ("dtype", "module", "where"),
    [
        (
            "float32",
            "model.layers.2.mlp.down_proj",
            "differ by .* where rounding explains .*block 2 is computed otherwise",
        ),
        ("bfloat16", "model.layers.0.mlp.down_proj", "block 0 is computed otherwise"),
        (
            "float32",
            "model.norm",
            "the logits differ by .* where rounding explains 0.002.*what follows the last block is done otherwise",
        ),
    ],
)
def test_a_model_that_computes_something_else_is_refused_unless_unchecked(
    checkpoints, monkeypatch, dtype, module, where
):
    _boot_wrongly(monkeypatch, module, 1.5)
    # A factor on all numbers of the norm would leave the logits in proportion.
    _boot_wrongly(monkeypatch, module, torch.linspace(0.5, 2, 32) if module == "model.norm" else 1.5)
    folder = checkpoints["qwen2" if module == "model.norm" else "llama"]
    with pytest.raises(InterpToolkitError, match=f"{where}.*check=False"):
        load_model(folder, dtype=dtype)
    model = load_model(folder, dtype=dtype, check=False)
    assert load_model(model) is model


def test_a_hooked_model_of_the_users_is_checked_once(tiny_tokenizer, checkpoints, monkeypatch):
    def boot(case_or_folder):
        hf_model = families.build(case_or_folder)
        hf_model.config.architectures = [type(hf_model).__name__]
        tokenizer = load._as_given(tiny_tokenizer)
        return TransformerBridge.boot_transformers("tiny", hf_model=hf_model, tokenizer=tokenizer, device="cpu")

    if _COHERE_IS_WRONG:
        wrong = boot("cohere")
        with pytest.raises(InterpToolkitError, match="this TransformerBridge .* differ by .*load it by its name"):
            load_model(wrong)
        assert load_model(wrong, check=False) is wrong
    right, passes = boot("llama"), []
    monkeypatch.setattr(load, "find_difference", lambda *args: passes.append(1))
    assert as_hooked_model(load_model(right)) is right
    assert len(passes) == 1


@pytest.mark.skipif("hooked_transformer" not in BACKENDS, reason="TransformerLens 4 has the bridge only")
def test_settings_that_hooked_transformer_lacks_are_refused(tiny_tokenizer, tmp_path):
    families.build("llama with biases").save_pretrained(tmp_path)
    settings = dict(backend="hooked_transformer", dtype="float32", tokenizer=tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="as HookedTransformer .* differ by .*use backend='bridge'"):
        load_model(tmp_path, **settings)
    assert load_model(tmp_path, check=False, **settings).cfg.n_layers == 4
    families.build("qwen2 with short windows").save_pretrained(tmp_path)
    with pytest.raises(InterpToolkitError, match="no sliding windows for qwen2, got one of 8 tokens"):
        load_model(tmp_path, **settings)


def test_a_model_in_memory_is_wrapped_once_and_freed_with_its_owner(checkpoints, tiny):
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"], dtype=torch.float32).train()
    before = model.eval()(_TOKENS).logits
    model.train()
    bridge = as_hooked_model(model)
    assert model.training
    assert bridge.original_model is model
    assert as_hooked_model(model) is bridge
    assert load_model(model) is bridge
    assert not bridge.training
    assert model_facts(bridge).fingerprint == model_facts(tiny()).fingerprint
    assert model_facts(bridge).model_id == str(checkpoints["llama"])
    assert torch.allclose(model(_TOKENS).logits, before, atol=1e-5)
    assert torch.allclose(backend_of(bridge).logits(backend_of(bridge).hidden(_TOKENS)[0]), before, atol=1e-5)
    gone = weakref.ref(model)
    del model, bridge
    gc.collect()
    assert gone() is None


def test_a_model_in_memory_is_read_like_a_loaded_one(checkpoints, tiny):
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"], dtype=torch.float32)
    prompts = ["Tell me about rivers.", "Tell me about the history of Poland."]
    ours, theirs = (read_activations(m, prompts, [1]).vectors for m in (model, tiny()))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert topic_pairs(model, ["Rivers", "Poland"], 1).vectors.shape == (2, 32)


def test_what_a_model_in_memory_lacks_is_said(checkpoints, tiny_tokenizer):
    model = families.build("llama")
    with pytest.raises(InterpToolkitError, match="does not say where it comes from.*tokenizer=..."):
        load_model(model)
    with pytest.raises(InterpToolkitError, match="expected a model in bfloat16, this one is in torch.float32"):
        load_model(model, dtype="bfloat16", tokenizer=tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="backend are for models that are loaded by name"):
        load_model(model, device="cpu", tokenizer=tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="causal language model, which gives logits, got LlamaModel"):
        load_model(LlamaModel.from_pretrained(checkpoints["llama"]))
    bridge = load_model(model, tokenizer=tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="is hooked and has its tokenizer"):
        load_model(model, tokenizer=copy.deepcopy(tiny_tokenizer))
    with pytest.raises(InterpToolkitError, match="lies inside a TransformerBridge already"):
        load_model(copy.deepcopy(model), tokenizer=tiny_tokenizer)
    assert bridge.tokenizer.chat_template == tiny_tokenizer.chat_template


def test_missing_and_left_over_weights_are_named(folder):
    def drop(weights):
        for name in [name for name in weights if "layers.1." in name]:
            del weights[name]

    def add(weights):
        weights["model.layers.0.mlp.router.weight"] = torch.zeros(2, 2)

    def add_old_buffers(weights):
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)

    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    _edit_weights(folder, add_old_buffers)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")  # it is tied
    assert load_model(folder).cfg.n_layers == 4
    _edit_weights(folder, drop)
    with pytest.raises(
        InterpToolkitError, match=r"lacks weights of LlamaForCausalLM: model.layers.1.input_layer.*\(9 in all\)"
    ):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(whole["model.safetensors"])
    _edit_weights(folder, add)
    with pytest.raises(
        InterpToolkitError, match=r"LlamaForCausalLM has no place for: model.layers.0.mlp.router.weight"
    ):
        load_model(folder)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _spoil_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def _ask_for_quantisation(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))


def _reshape(folder):
    _edit_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(31)}))


def _spoil_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": 3')


@pytest.mark.parametrize("harm", [_cut, _spoil_header, _ask_for_quantisation, _reshape, _spoil_tokenizer])
def test_a_damaged_checkpoint_is_the_librarys_error(folder, harm):
    harm(folder)
    with pytest.raises(
        InterpToolkitError, match="could not load (a causal language model from|the tokenizer of) .*llama"
    ):
        load_model(folder)


def test_what_runs_otherwise_is_logged(tiny_tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        load_model(families.build("cohere"), tokenizer=tiny_tokenizer)
        load_model(families.build("mamba"), tokenizer=tiny_tokenizer)
    mended = "runs Hugging Face's own CohereAttention, where no hook points fire" in caplog.text
    assert mended == _COHERE_IS_WRONG
    assert "MambaForCausalLM does not go on from keys and values alone" in caplog.text


def test_soft_tokens_do_not_go_into_an_embedding_of_another_width(tiny_tokenizer, tiny_prompt):
    from interp_toolkit.runtime import PromptRun

    model = load_model(families.build("opt with a narrow embedding"), tokenizer=tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="hook_embed to be of the stream's width 32, it is of 16"):
        PromptRun(model, tiny_prompt)


def test_a_device_map_puts_the_model_where_it_says(checkpoints, tiny):
    folder = checkpoints["llama"]
    model = load_model(folder, dtype="float32", device_map={"": "cpu"})
    assert torch.equal(model(_TOKENS), tiny()(_TOKENS))
    assert model_facts(model) == model_facts(tiny())
    with pytest.raises(InterpToolkitError, match="expected a device or a device_map, got both"):
        load_model(folder, device="cpu", device_map="auto")
    with pytest.raises(
        InterpToolkitError, match="attn_implementation and backend are for models that are loaded by name"
    ):
        load_model(tiny(), device_map="auto")


def test_other_attention_of_hugging_face_gives_the_same(checkpoints, tiny):
    model = load_model(checkpoints["llama"], dtype="float32", attn_implementation="sdpa")
    assert model.original_model.config._attn_implementation == "sdpa"
    assert (model(_TOKENS) - tiny()(_TOKENS)).abs().max() < 1e-5
    with pytest.raises(InterpToolkitError, match="could not load a causal language model .*attn_implementation"):
        load_model(checkpoints["llama"], attn_implementation="another")


def test_options_of_the_hub_are_passed_on(checkpoints, monkeypatch):
    seen, tokenizers = {}, []
    read, tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained

    def from_pretrained(source, **options):
        seen.update({name: options.pop(name) for name in ("token", "quantization_config", "device_map")})
        return read(source, **options)

    def read_tokenizer(source, **options):
        tokenizers.append((options.pop("token", None), options["revision"]))
        return tokenizer(source, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", read_tokenizer)
    load_model(str(checkpoints["llama"]), dtype="float32", token="secret", revision="v2", quantization_config="some")
    where = {"": torch.device("cuda" if torch.cuda.is_available() else "cpu")}
    assert seen == dict(token="secret", quantization_config="some", device_map=where)
    # TransformerLens would read it anew, without either.
    assert tokenizers == [("secret", "v2")]


@pytest.mark.parametrize("bos", [None, "<|bos:first|>"], ids=["none", "one that no template takes"])
def test_a_tokenizer_that_puts_nothing_in_front_is_read_as_it_is(checkpoints, tiny_tokenizer, tmp_path, bos):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = bos
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["llama"], folder)
    tokenizer.save_pretrained(folder)
    model = load_model(folder, dtype="float32")
    assert model.tokenizer("foxes")["input_ids"] == tiny_tokenizer("foxes", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("collected", [True, False])
def test_garbage_is_left_while_a_model_is_loaded(checkpoints, tmp_path, monkeypatch, collected):
    seen, read = [], load.read_model

    def read_model(*arguments, **options):
        seen.append(gc.isenabled())
        return read(*arguments, **options)

    monkeypatch.setattr(load, "read_model", read_model)
    if not collected:
        gc.disable()
    try:
        load_model(checkpoints["llama"])
        assert gc.isenabled() == collected
        with pytest.raises(InterpToolkitError):
            load_model(tmp_path)
        assert gc.isenabled() == collected
    finally:
        gc.enable()
    assert seen == [False, False]
