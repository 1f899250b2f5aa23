"""SAEs in every dtype and with every scaling of their activations, names of their sites, and old folders."""

import json

import pytest
import torch
from conftest import make_sae

from interp_toolkit.errors import FileFormatError
from interp_toolkit.sae import (
    encode_features,
    sae_digest,
    sae_facts,
    sae_quality,
    sae_vectors,
    token_rows,
)
from interp_toolkit.sae import (
    load as load_sae,
)
from interp_toolkit.sae import (
    pairs as sae_pairs,
)
from interp_toolkit.sae.facts import require_site
from interp_toolkit.sites import Site

sae_lens = pytest.importorskip("sae_lens")

ENCODING = ["standard", "topk", "abstopk", "jumprelu", "gated", "matching_pursuit"]
TEXTS = ["the history of Poland, and about rivers", "a quick brown fox jumps over the lazy dog"]


def _vectors(n=40):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ENCODING)
@pytest.mark.parametrize("how", ["to", "half", "cfg"])
def test_an_sae_of_low_precision_encodes_as_its_weights_in_float32(architecture, how):
    dtype = torch.float16 if how == "half" else torch.bfloat16
    sae, rounded = make_sae(architecture), make_sae(architecture)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.to(dtype))
    if how == "half":
        sae.half()  # torch's own method, of which sae-lens learns nothing
    else:
        sae.to(dtype)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    x = _vectors()
    for features in (None, [40, 3, 3, 0]):
        actual = encode_features(sae, x if how == "to" else x.to(dtype), features)
        expected = encode_features(rounded, x if how == "to" else x.to(dtype).float(), features)
        assert actual.dtype == torch.float32
        assert torch.allclose(actual, expected, atol=1e-5)
    assert torch.allclose(sae_vectors(sae).vectors, sae_vectors(rounded).vectors)
    assert sae_digest(sae) == sae_digest(rounded)
    assert all(torch.equal(value, before[name]) and value.dtype == dtype for name, value in sae.state_dict().items())
    assert sae.cfg.dtype == ("float32" if how == "half" else "bfloat16")


def test_the_quality_of_an_sae_does_not_depend_on_its_dtype(tiny):
    rounded = make_sae("standard", model_name=tiny().cfg.model_name)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    low = make_sae("standard", model_name=tiny().cfg.model_name).to(torch.bfloat16)
    rows = token_rows(tiny().tokenizer, TEXTS, context=24)
    tables = [sae_quality(tiny(), sae, rows, on_mismatch="warn") for sae in (low, rounded)]
    assert (tables[0]["value"] - tables[1]["value"]).abs().max() < 1e-6


def _scaled_by_token(architecture, scaling):
    sae = make_sae(architecture)
    return type(sae)(type(sae.cfg).from_dict({**sae.cfg.to_dict(), "normalize_activations": scaling})), sae.state_dict()


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
@pytest.mark.parametrize("scaling", ["layer_norm", "constant_norm_rescale"])
def test_scalings_that_differ_by_token(tiny, architecture, scaling):
    sae, state = _scaled_by_token(architecture, scaling)
    sae.load_state_dict(state)
    x = _vectors() * 3
    if scaling == "layer_norm":
        scale, shift = x.std(-1, keepdim=True), x.mean(-1, keepdim=True)
        given = (x - shift) / (scale + 1e-5)
    else:
        scale, shift = x.norm(dim=-1, keepdim=True) / 32**0.5, torch.zeros(40, 1)
        given = x / scale
    plain = make_sae(architecture)
    acts = encode_features(plain, given)
    assert torch.allclose(encode_features(sae, x), acts, atol=1e-4)
    assert torch.allclose(encode_features(sae, x, [7, 11]), acts[:, [7, 11]], atol=1e-4)
    # Nothing of a token that was encoded is left on the user's SAE.
    assert not {"ln_mu", "ln_std", "x_norm_coeff"} & set(vars(sae))
    assert torch.allclose(sae(x), plain.decode(acts) * scale + shift, atol=1e-3)
    # How far a feature moves the stream depends on the token; where to, does not.
    actual = sae_vectors(sae, [7, 11])
    assert actual.norms.isnan().all()
    assert torch.equal(actual.vectors, sae_vectors(plain, [7, 11]).vectors)
    assert not actual.dead.any()
    with pytest.warns(UserWarning, match="trained on another model"):
        quality = sae_quality(tiny(), sae, token_rows(tiny().tokenizer, TEXTS, context=24), on_mismatch="warn")
    assert quality["value"].notna().all()


@pytest.mark.parametrize("training", [False, True])
def test_the_users_sae_stays_as_it_was(training):
    sae = make_sae("standard", training=training)
    sae.train()
    flags = {name: parameter.requires_grad for name, parameter in sae.named_parameters()}
    before, config = sae_digest(sae), sae.cfg.to_dict()
    loaded = load_sae(sae)
    sae_vectors(sae)
    encode_features(sae, _vectors(), [1, 2])
    sae_pairs(sae, {1: "a", 2: "b", 3: "c"})
    assert sae.training
    assert {name: parameter.requires_grad for name, parameter in sae.named_parameters()} == flags
    assert all(flags.values())
    assert (sae_digest(sae), sae.cfg.to_dict()) == (before, config)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.allclose(loaded.encode(_vectors()), sae.encode(_vectors()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("model.layers.7", Site.after(7)),
        ("model.model.layers.7", Site.after(7)),
        ("model.language_model.layers.7", Site.after(7)),
        ("language_model.model.layers.7", Site.after(7)),
        ("model.language_model.model.layers.7", Site.after(7)),
        ("model.decoder.layers.7", Site.after(7)),
        ("transformer.h.7", Site.after(7)),
        ("gpt_neox.layers.7", Site.after(7)),
        ("layers.7", Site.after(7)),
        ("model.layers.7.output", Site.after(7)),
        ("model.layers.7.hook_out", Site.after(7)),
        ("model.layers.7.input", Site(7, "hook_resid_pre")),
        ("model.layers.7.hook_in", Site(7, "hook_resid_pre")),
        ("blocks.7.hook_in", Site(7, "hook_resid_pre")),
        ("blocks.7.hook_resid_mid", Site(7, "hook_resid_mid")),
        ("model.layers.7.mlp", None),
        ("model.layers.7.self_attn.output", None),
        ("vision_tower.encoder.layers.7", None),
        ("model.vision_tower.vision_model.encoder.layers.7", None),
        ("encoder.layers.7", None),
        ("model.layers.7.hook_z", None),
    ],
)
def test_names_of_blocks(name, site):
    sae = make_sae("standard", hook_name=name)
    assert sae_facts(sae).site == site
    if site is not None:
        assert require_site(sae) == site
        assert len(sae_vectors(sae)) == 48


def _old_folder(folder, **config):
    """A folder as sae-lens 3 wrote it."""
    from safetensors.torch import save_file

    sae = make_sae("standard")
    factor = torch.rand(48, generator=torch.Generator().manual_seed(2)) + 0.5
    save_file({**{k: v.contiguous() for k, v in sae.state_dict().items()}, "scaling_factor": factor},
              folder / "sae_weights.safetensors")  # fmt: skip
    settings = dict(
        architecture="standard", d_in=32, d_sae=48, dtype="torch.float32", device="cpu", activation_fn_str="relu",
        model_name="llama", hook_name="blocks.2.hook_resid_post", hook_layer=2, hook_head_index=None,
        normalize_activations="none", apply_b_dec_to_input=True, context_size=16, prepend_bos=True,
    )  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(settings | config))
    return sae, factor


def test_old_folders_with_a_scaling_of_features(tmp_path):
    sae, factor = _old_folder(tmp_path, finetuning_scaling_factor=True)
    loaded, x = load_sae(tmp_path), _vectors()
    acts = sae.encode(x)
    assert torch.allclose(loaded.encode(x), acts, atol=1e-5)
    assert torch.allclose(loaded(x), sae.decode(acts * factor), atol=1e-5)
    actual, plain = sae_vectors(tmp_path), sae_vectors(sae)
    assert torch.allclose(actual.vectors, plain.vectors, atol=1e-6)
    assert torch.allclose(actual.norms, plain.norms * factor, atol=1e-5)


@pytest.mark.parametrize("config", [{}, {"finetuning_scaling_factor": False}])
def test_old_folders_that_do_not_say_whether_the_scaling_is_used(tmp_path, config):
    _old_folder(tmp_path, **config)
    with pytest.raises(
        FileFormatError, match=r"holds a scaling of features .*does not say that it is in use; put finet"
    ):
        load_sae(tmp_path)
