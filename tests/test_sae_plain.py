"""SAEs that are read without sae-lens: the same numbers as by it, and a clear error for what takes it."""

import importlib.util
import json

import pytest
import torch
from conftest import make_sae
from safetensors.torch import load_file, save_file

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.sae import encode_features, feature_activations, load, sae_digest, sae_facts, sae_vectors
from interp_toolkit.sae.plain import PlainSAE, read_plain_sae

if importlib.util.find_spec("sae_lens"):
    pytest.importorskip("sae_lens")  # here, since it warns when it is imported

FORMS = ["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"]


def test_a_folder_is_read_where_sae_lens_is_not(tmp_path, random_vectors):
    """In the environment with TransformerLens 4 this is the real thing."""
    shapes = dict(W_enc=(32, 48), W_dec=(48, 32), b_dec=(32,), b_enc=(48,), threshold=(48,))
    state = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) for name, shape in shapes.items()
    }
    state["threshold"].abs_()
    save_file(state, tmp_path / "sae_weights.safetensors")
    described = dict(architecture="jumprelu", d_in=32, d_sae=48, dtype="float32", apply_b_dec_to_input=True)
    described["metadata"] = dict(hook_name="blocks.2.hook_resid_post", sae_lens_version="6.20.0")
    (tmp_path / "cfg.json").write_text(json.dumps(described))
    sae, x = load(tmp_path), random_vectors(40)
    before = (x - state["b_dec"]) @ state["W_enc"] + state["b_enc"]
    expected = torch.where(before > state["threshold"], before.clamp_min(0), 0)
    assert torch.allclose(encode_features(sae, x), expected, atol=1e-4)
    assert torch.allclose(encode_features(sae, x, [7, 3]), expected[:, [7, 3]], atol=1e-4)
    assert torch.allclose(sae_vectors(sae).vectors, torch.nn.functional.normalize(state["W_dec"], dim=1))
    assert sae_facts(sae).hook_name == "blocks.2.hook_resid_post"
    if importlib.util.find_spec("sae_lens") is None:
        assert isinstance(sae, PlainSAE)


def _folder(tmp_path, architecture, training=False, **settings):
    sae = make_sae(architecture, training=training or "batchtopk" in architecture, model_fingerprint="abc")
    for name, value in settings.items():
        setattr(sae.cfg, name, value)
    if "topk_threshold" in sae.state_dict():
        sae.topk_threshold.fill_(0.4)
    sae.save_model(tmp_path / "sae")
    return tmp_path / "sae"


def _same(plain, lens, x):
    assert torch.allclose(plain.encode(x), lens.encode(x), atol=1e-6)
    assert (plain.encode(x) > 0).any(0).sum() > 5
    acts = lens.encode(x)
    assert torch.allclose(plain(x), lens.decode(acts), atol=1e-5)
    assert sae_facts(plain) == sae_facts(lens)
    assert sae_digest(plain) == sae_digest(lens)
    one, other = sae_vectors(plain), sae_vectors(lens)
    assert torch.equal(one.vectors, other.vectors)
    assert torch.equal(one.norms.nan_to_num(-1), other.norms.nan_to_num(-1))
    for features in (None, [3, 40, 0]):
        assert torch.allclose(encode_features(plain, x, features), encode_features(lens, x, features), atol=1e-6)


@pytest.mark.parametrize("architecture", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scaling", ["none", "constant_norm_rescale", "layer_norm"])
def test_every_form_has_the_numbers_of_sae_lens(tmp_path, architecture, bias, scaling, random_vectors):
    folder = _folder(tmp_path, architecture, apply_b_dec_to_input=bias, normalize_activations=scaling)
    _same(read_plain_sae(folder), load(folder), random_vectors(40))


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_features_may_be_chosen_in_units_of_decoder_rows(tmp_path, architecture, random_vectors):
    folder = _folder(tmp_path, architecture, rescale_acts_by_decoder_norm=True)
    _same(read_plain_sae(folder), load(folder), random_vectors(40))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk"])
def test_a_checkpoint_of_training_is_folded(tmp_path, architecture, random_vectors):
    folder = _folder(tmp_path, architecture, training=True, normalize_activations="expected_average_only_in")
    (folder / "activation_scaler.json").write_text(json.dumps(dict(scaling_factor=2.5)))
    _same(read_plain_sae(folder), load(folder), random_vectors(40))


def test_old_configs_and_scalings_of_features(tmp_path, random_vectors):
    folder = _folder(tmp_path, "standard")
    old = json.loads((folder / "cfg.json").read_text())
    old |= old.pop("metadata")
    for name in ("sae_lens_version", "sae_lens_training_version", "architecture", "normalize_activations"):
        old.pop(name, None)
    old |= dict(hook_point=old.pop("hook_name"), activation_fn_str="relu", normalize_activations=False)
    state = load_file(folder / "sae_weights.safetensors")
    save_file({**state, "scaling_factor": torch.linspace(0.5, 2, 48)}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({**old, "finetuning_scaling_factor": True}))
    plain, lens, x = read_plain_sae(folder), load(folder), random_vectors(40)
    assert torch.allclose(plain.encode(x), lens.encode(x), atol=1e-6)
    assert torch.allclose(plain(x), lens.decode(lens.encode(x)), atol=1e-5)
    assert sae_facts(plain).hook_name == sae_facts(lens).hook_name == "blocks.2.hook_resid_post"
    (folder / "cfg.json").write_text(json.dumps(old))
    with pytest.raises(FileFormatError, match="does not say that it is in use"):
        read_plain_sae(folder)
    top_k = old | dict(activation_fn_str="topk", activation_fn_kwargs=dict(k=5), finetuning_scaling_factor=True)
    (folder / "cfg.json").write_text(json.dumps(top_k))
    assert (read_plain_sae(folder).encode(x) > 0).sum(1).max() <= 5
    assert torch.allclose(read_plain_sae(folder).encode(x), load(folder).encode(x), atol=1e-6)


@pytest.fixture
def without(monkeypatch):
    """Without sae-lens."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "sae_lens" else find(name))


def test_without_sae_lens_a_folder_is_read_and_used(tmp_path, without, tiny, monkeypatch):
    folder = _folder(tmp_path, "jumprelu", metadata=make_sae("jumprelu", model_name=tiny().cfg.model_name).cfg.metadata)
    sae = load(folder)
    assert isinstance(sae, PlainSAE)
    assert load(sae) is not sae
    rows = [[1, 5, 9, 7], [1, 8]]
    (first, second) = feature_activations(tiny(), sae, rows, [7, 11], on_mismatch="warn")
    assert (first.shape, second.shape) == ((4, 2), (2, 2))
    assert len(sae_vectors(folder)) == 48


def test_without_sae_lens_what_takes_it_is_said(tmp_path, without, monkeypatch):
    from interp_toolkit.sae import loading

    folder = _folder(tmp_path, "standard")
    config = json.loads((folder / "cfg.json").read_text())
    for change, message in (
        (dict(architecture="temporal"), "standard, topk, jumprelu, gated or batchtopk, got 'temporal'; for others"),
        (dict(normalize_activations="some"), "scaled by one of none, .*, got 'some'"),
        (dict(reshape_activations="hook_z"), "reshape_activations 'hook_z'"),
        (dict(architecture="gated"), "damaged or of an unknown kind"),
        (dict(d_in=31), "it says"),
    ):
        (folder / "cfg.json").write_text(json.dumps(config | change))
        with pytest.raises(FileFormatError, match=message):
            load(folder)
    (folder / "sae_weights.safetensors").write_bytes(b"no")
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match="is damaged"):
        load(folder)
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"which has no sae_weights\.safetensors"):
        load(folder)
    real = importlib.import_module

    def missing(name, *rest):
        if name == "sae_lens":
            raise ModuleNotFoundError("No module named 'sae_lens'")
        return real(name, *rest)

    monkeypatch.setattr(loading.importlib, "import_module", missing)
    with pytest.raises(InterpToolkitError, match="this takes sae-lens.*without it SAEs are read of folders"):
        load("gemma-scope", "layer_3")
