"""SAEs in: every form they come in, directions of length one, and whom they belong to."""

import json
import sys

import pytest
import torch
from conftest import make_sae

from interp_toolkit import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sae import check_sae, encode_features, sae_digest, sae_facts, sae_vectors
from interp_toolkit.sae import load as load_sae
from interp_toolkit.sae.facts import require_site
from interp_toolkit.sites import Site
from interp_toolkit.soft_prompt import SoftPrompt

sae_lens = pytest.importorskip("sae_lens")

INFERENCE = ["standard", "topk", "abstopk", "jumprelu", "gated", "matching_pursuit", "temporal"]
TRAINING = ["standard", "topk", "abstopk", "batchtopk", "jumprelu", "gated", "matryoshka_batchtopk", "matching_pursuit"]


@pytest.mark.parametrize("architecture", INFERENCE)
def test_rows_are_the_directions_in_which_features_write(architecture):
    sae = make_sae(architecture)
    actual = sae_vectors(sae)
    assert actual.vectors.shape == (48, 32)
    assert torch.allclose(actual.vectors.norm(dim=1), torch.ones(48), atol=1e-5)
    if architecture == "temporal":
        return  # its decoding waits for an encoding of a whole sequence
    # What one feature adds to the decoded stream, measured.
    for feature in (0, 7, 47):
        one = torch.zeros(1, 48)
        one[0, feature] = 1.0
        moved = (sae.decode(one) - sae.decode(torch.zeros(1, 48)))[0]
        assert torch.allclose(moved, actual.norms[feature] * actual.vectors[feature], atol=1e-5)


def test_decoder_norm_rescaling_counts_in_units_of_the_row():
    sae = make_sae("topk")
    plain = sae_vectors(sae)
    sae.cfg.rescale_acts_by_decoder_norm = True
    rescaled = sae_vectors(sae)
    assert torch.equal(plain.vectors, rescaled.vectors)
    assert torch.equal(rescaled.norms, torch.ones(48))
    one = torch.eye(48)[3:4]
    moved = (sae.decode(one) - sae.decode(torch.zeros(1, 48)))[0]
    assert torch.allclose(moved, rescaled.vectors[3], atol=1e-5)


def test_folding_and_input_bias_turn_no_direction():
    sae = make_sae("jumprelu")
    before = sae_vectors(sae).vectors
    sae.fold_activation_norm_scaling_factor(3.0)
    assert torch.allclose(sae_vectors(sae).vectors, before, atol=1e-6)
    sae.cfg.apply_b_dec_to_input = False
    assert torch.allclose(sae_vectors(sae).vectors, before, atol=1e-6)


@pytest.mark.parametrize("architecture", TRAINING)
@pytest.mark.parametrize("as_inference", [False, True])
def test_every_form_loads_from_a_folder(architecture, as_inference, tmp_path):
    sae = make_sae(architecture, training=True)
    (sae.save_inference_model if as_inference else sae.save_model)(tmp_path)
    loaded = load_sae(tmp_path)
    assert not isinstance(loaded, sae_lens.TrainingSAE)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    rows = sae.W_dec.detach()
    assert torch.allclose(sae_vectors(tmp_path).vectors, rows / rows.norm(dim=1, keepdim=True), atol=1e-4)
    if as_inference:
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(loaded.decode(loaded.encode(x)), load_sae(sae)(x), atol=1e-4)


def test_what_a_checkpoint_says_of_its_activations_is_folded(tmp_path):
    sae = make_sae("standard", training=True)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    scaled = sae(x * 2.5) / 2.5
    sae.cfg.normalize_activations = "expected_average_only_in"
    sae.save_model(tmp_path)
    with pytest.raises(InterpToolkitError, match=r"its files do not say with what numbers; fold them first"):
        require_site(load_sae(tmp_path))
    with pytest.raises(InterpToolkitError, match="fold them first"):
        encode_features(load_sae(tmp_path), x)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 2.5, "has_whitening": False}))
    loaded = load_sae(tmp_path)
    assert require_site(loaded) == Site.after(2)
    assert torch.allclose(loaded(x), scaled, atol=1e-4)


def test_dead_features_are_marked(tmp_path):
    sae = make_sae("standard")
    with torch.no_grad():
        sae.W_dec[5] = 0
        sae.W_dec[6] = float("nan")
    actual = sae_vectors(sae, [4, 5, 6])
    assert actual.dead.tolist() == [False, True, True]
    assert actual.index == (4, 5, 6)
    assert torch.equal(actual.vectors[1:], torch.zeros(2, 32))
    assert actual.norms[1:].tolist() == [0, 0]
    firing = torch.ones(48)
    firing[4] = 0
    assert sae_vectors(sae, [4, 7], activation_rates=firing).dead.tolist() == [True, False]
    with pytest.raises(InterpToolkitError, match="one number for each of the SAE's 48 features"):
        sae_vectors(sae, activation_rates=torch.ones(3))


def test_a_folder_tells_which_features_fired(tmp_path):
    from safetensors.torch import save_file

    make_sae("standard").save_model(tmp_path)
    rates = torch.full((48,), 1e-3)
    rates[9] = 0
    save_file({"sparsity": torch.log10(rates + 1e-10)}, tmp_path / "sparsity.safetensors")
    assert sae_vectors(tmp_path).dead.nonzero().flatten().tolist() == [9]
    (tmp_path / "sparsity.safetensors").write_bytes(b"x")
    with pytest.raises(FileFormatError, match="activation rates .* are damaged"):
        sae_vectors(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(d_sae=48_000_000_000),
            r"cfg\.json is damaged: it says .*48000000000.* and W_dec .* has the shape \[48, 32\]",
        ),
        (dict(d_sae="48"), r"cfg\.json: expected a whole number above 0 for d_sae, got '48'"),
        (dict(metadata=[1]), r"expected an object with the settings of an SAE in .*cfg\.json"),
        (dict(architecture=[1]), "is damaged or of an unknown kind"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(tmp_path, config, message):
    make_sae("standard").save_model(tmp_path)
    described = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(described | config))
    with pytest.raises(FileFormatError, match=message):
        load_sae(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    make_sae("standard").save_model(tmp_path)
    state = load_file(tmp_path / "sae_weights.safetensors")
    state["W_dec"][3] = torch.nan  # a dead feature
    save_file(state, tmp_path / "sae_weights.safetensors")
    assert sae_vectors(tmp_path).dead.nonzero().flatten().tolist() == [3]
    state["W_enc"][3, 4] = torch.inf
    save_file(state, tmp_path / "sae_weights.safetensors")
    with pytest.raises(FileFormatError, match="is damaged: W_enc holds NaN or infinity"):
        load_sae(tmp_path)


def test_features_that_do_not_exist():
    sae = make_sae()
    for wrong in (48, -1):
        with pytest.raises(InterpToolkitError, match=f"feature {wrong} does not exist: the SAE has 48 features"):
            sae_vectors(sae, [0, wrong])


def test_rows_of_another_space_are_refused():
    for place in ("blocks.2.attn.hook_z", "blocks.2.mlp.hook_post"):
        with pytest.raises(InterpToolkitError, match=f"directions at {place}, not of the residual stream"):
            sae_vectors(make_sae("standard", hook_name=place))
    for place in ("blocks.2.hook_mlp_out", "blocks.2.hook_attn_out"):
        assert len(sae_vectors(make_sae("standard", hook_name=place))) == 48
        assert require_site(make_sae("standard", hook_name=place)) == Site.parse(place)
    with pytest.raises(InterpToolkitError, match="only its decoder rows can be used here"):
        require_site(make_sae("standard", hook_name="blocks.2.hook_z"))
    whitened = make_sae("standard")
    whitened.cfg.normalize_activations = "covariance_whitening"
    with pytest.raises(InterpToolkitError, match="in a whitened space"):
        sae_vectors(whitened)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("model.layers.9", Site.after(9)),
        ("blocks.3.hook_resid_pre", Site(3, "hook_resid_pre")),
        ("blocks.3.hook_out", Site.after(3)),
    ],
)
def test_names_of_sites(name, site):
    assert sae_facts(make_sae(hook_name=name)).site == site


def test_the_sae_belongs_to_the_model(tiny, backend, unchecked):
    model = tiny("llama", backend)
    own = model_facts(model)
    facts = check_sae(make_sae(model_name=own.model_id, model_fingerprint=own.fingerprint), model)
    assert (facts.width, facts.features, facts.site) == (32, 48, Site.after(2))
    assert facts.fingerprint == own.fingerprint
    check_sae(make_sae(model_name=f"org/{own.model_id.rsplit('/', 1)[-1]}"), model)
    for wrong in (dict(model_name="gemma-2-2b"), dict(model_name=own.model_id, model_fingerprint="0" * 16)):
        with pytest.raises(ContractError, match='trained on another model than .* pass on_mismatch="warn"'):
            check_sae(make_sae(**wrong), model)
        with pytest.warns(UserWarning, match="trained on another model than"):
            assert check_sae(make_sae(**wrong), model, on_mismatch="warn").width == 32
        with pytest.warns(DeprecationWarning, match=r"check_sae\(any_model=...\) is deprecated; use on_mismatch="):
            with pytest.warns(UserWarning, match="trained on another model than"):
                check_sae(make_sae(**wrong), model, any_model=True)
    with pytest.raises(InterpToolkitError, match="expected 'error' or 'warn' for on_mismatch, got 'ignore'"):
        check_sae(make_sae(), model, on_mismatch="ignore")
    with pytest.raises(ContractError, match="decoder rows of width 16, the model .* has d_model 32"):
        check_sae(make_sae(width=16), model, on_mismatch="warn")
    deep = make_sae(model_name=own.model_id, hook_name="blocks.9.hook_resid_post")
    with pytest.raises(ContractError, match=r"reads blocks\.9\.hook_resid_post, and the model has 4 layers"):
        check_sae(deep, model, on_mismatch="warn")


def test_the_sae_belongs_to_the_adapter(tiny, tiny_tokenizer):
    facts = model_facts(tiny())
    adapter = Adapter.create("scalar_affine", 32)
    sae = make_sae(model_name=facts.model_id)
    check_sae(sae, adapter=adapter)
    adapter.contract = Contract.from_facts(facts, Site.after(2), SoftPrompt.for_chat(tiny_tokenizer), None, True)
    check_sae(sae, tiny(), adapter)
    other = make_sae(model_name=facts.model_id, hook_name="blocks.1.hook_resid_post")
    with pytest.raises(ContractError, match=r"trained on vectors from blocks\.2.*these are from blocks\.1"):
        check_sae(other, adapter=adapter)
    with pytest.warns(UserWarning, match=r"trained on vectors from blocks\.2.*these are from blocks\.1"):
        check_sae(other, adapter=adapter, on_mismatch="warn")
    with pytest.warns(DeprecationWarning, match="any_") as caught, pytest.warns(UserWarning, match="these are from"):
        check_sae(other, adapter=adapter, any_model=False, any_site=True)
    assert [name in str(w.message) for name, w in zip(("any_model", "any_site"), caught)] == [True, True]
    with pytest.raises(ContractError, match="another model than the adapter"):
        check_sae(make_sae(model_name="gemma-2-2b"), adapter=adapter)
    with pytest.raises(ContractError, match="the adapter takes vectors of width 64 \\(2 sites side by side\\)"):
        check_sae(sae, adapter=Adapter.create("low_rank", 32, rank=2, sites=2))


def test_digests_name_weights():
    one, same, other = make_sae(), make_sae(), make_sae(seed=1)
    assert sae_digest(one) == sae_digest(same) != sae_digest(other)
    same.cfg.k = 7
    assert sae_digest(one) != sae_digest(same)


def test_what_cannot_be_loaded(tmp_path, unchecked):
    with pytest.raises(FileFormatError, match=r"expected a folder with cfg\.json"):
        load_sae(tmp_path)
    make_sae().save_model(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="damaged or of an unknown kind"):
        load_sae(tmp_path)
    with pytest.raises(InterpToolkitError, match="releases that sae-lens knows, got 'no-such-release'"):
        load_sae("no-such-release")
    with pytest.raises(InterpToolkitError, match=r"got None; it has 'blocks\.0\.hook_resid_pre'"):
        load_sae("gpt2-small-res-jb")
    with pytest.raises(InterpToolkitError, match="expected an SAE of sae-lens, a folder or a release, got Tensor"):
        load_sae(torch.zeros(3, 3))


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(InterpToolkitError, match=r"pip install 'interp-toolkit\[sae\]'"):
        load_sae("folder")


@pytest.mark.parametrize("architecture", [x for x in INFERENCE if x != "temporal"])
def test_asked_features_are_those_of_the_whole(architecture):
    sae = make_sae(architecture)
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    whole = sae.encode(x)
    assert (whole != 0).any()
    assert torch.allclose(encode_features(sae, x), whole, atol=1e-5)
    asked = [40, 3, 3, 0]
    assert torch.allclose(encode_features(sae, x, asked), whole[:, asked], atol=1e-5)


def test_a_temporal_sae_takes_no_single_tokens():
    with pytest.raises(InterpToolkitError, match="encodes whole sequences at once"):
        encode_features(make_sae("temporal"), torch.zeros(2, 32), [1])
