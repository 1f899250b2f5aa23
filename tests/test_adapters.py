import json
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp_toolkit import Adapter, ContractError, FileFormatError, InterpToolkitError, Site, SoftPrompt, shipped
from interp_toolkit.adapters import AdapterConfig, read_mean_vectors, untrained_adapter, write_mean_vectors
from interp_toolkit.adapters.kinds import KINDS
from interp_toolkit.contract import Contract, ModelFacts
from interp_toolkit.shipped import NAMES, find_adapter, find_stored
from interp_toolkit.sites import SiteStack

D, R = 12, 3
COUNTS = {
    "identity": 0,
    "scale": 1,
    "bias_only": D,
    "scalar_affine": D + 1,
    "low_rank": 2 * D * R + D,
    "scalar_affine_low_rank": 2 * D * R + D + 1,
    "full_rank": D * D + D,
}
LLAMA = SoftPrompt.preset("llama-3.1")
FACTS = ModelFacts("org/some-model", "abc", "0123456789abcdef", D, 30)


def _settings(kind):
    return {"rank": R} if "low_rank" in kind else {}


def _trained(kind, seed=0):
    """An adapter with every parameter away from its start, and a contract."""
    adapter = Adapter.create(kind, D, **_settings(kind)).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    adapter.contract = Contract.from_facts(FACTS, Site.after(19), LLAMA, torch.randn(D, generator=generator), True)
    adapter.metadata = {"best_val_loss": "1.25", "note": "kept"}
    return adapter


def _by_hand(adapter, x):
    """The formulas of the table, vector by vector and in float64."""
    p = {name: value.double() for name, value in adapter.state_dict().items()}
    x = x.double()
    unit = x / (x.norm() + 1e-8)
    s = math.exp(p["log_scale"]) if "log_scale" in p else None
    match adapter.config.kind:
        case "identity":
            return x
        case "scale":
            return s * unit
        case "bias_only":
            return p["bias"]
        case "scalar_affine":
            return s * unit + p["bias"]
        case "low_rank":
            return p["V"] @ (p["U"].T @ unit) + p["bias"]
        case "scalar_affine_low_rank":
            return s * unit + p["V"] @ (p["U"].T @ unit) + p["bias"]
        case "full_rank":
            return p["weight"] @ unit + p["bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_formula_count_and_docstring(kind, random_vectors):
    adapter, x = _trained(kind), random_vectors(5, D) * 40
    expected = torch.stack([_by_hand(adapter, row) for row in x])
    assert torch.allclose(adapter(x).double(), expected, atol=1e-5)
    assert torch.allclose(adapter(x[0]), adapter(x)[0])
    assert adapter.parameter_count == COUNTS[kind]
    assert "f(x) =" in type(adapter).__doc__
    assert "parameter" in type(adapter).__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_the_null_vector_leaves_the_bias(kind):
    adapter = _trained(kind)
    bias = adapter.bias if hasattr(adapter, "bias") else torch.zeros(D)
    assert torch.allclose(adapter.null(), bias, atol=1e-6)


def test_starts():
    wide = 256
    assert Adapter.create("scale", wide, init_scale=5.0).log_scale.item() == pytest.approx(math.log(5))
    affine = Adapter.create("scalar_affine", wide)
    assert affine.bias.abs().max() == 0
    low = Adapter.create("low_rank", wide, rank=64, init_scale=5.0, low_rank_factor=0.01)
    for matrix in (low.U, low.V):
        assert matrix.std().item() == pytest.approx(5 * 0.01 / 8, rel=0.03)
    full = Adapter.create("full_rank", wide, init_scale=3.0)
    assert full.weight.std().item() == pytest.approx(3 / 16, rel=0.03)
    eye = Adapter.create("full_rank", wide, init_scale=3.0, identity_start=True)
    assert torch.equal(eye.weight, 3 * torch.eye(wide))


def test_the_start_depends_on_the_seed_alone():
    torch.manual_seed(1)
    one = Adapter.create("low_rank", D, rank=R, seed=7)
    state = torch.get_rng_state()
    two = Adapter.create("low_rank", D, rank=R, seed=7)
    assert torch.equal(one.U, two.U)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one.U, Adapter.create("low_rank", D, rank=R, seed=8).U)


def test_normalisation_forgets_length_and_a_scale_does_not(random_vectors):
    adapter, x = _trained("scalar_affine"), random_vectors(4, D)
    assert torch.allclose(adapter(x * 100), adapter(x), atol=1e-5)
    assert torch.allclose(adapter(x, scale=2.0) - adapter.bias, 2 * (adapter(x) - adapter.bias), atol=1e-5)
    plain = Adapter.create("scale", D, normalize=False, init_scale=2.0)
    assert torch.allclose(plain(x), 2 * x)


@pytest.mark.parametrize("bad", ["width", "nan", "shape"])
def test_vectors_that_do_not_fit_are_refused(bad, unchecked):
    adapter = _trained("scalar_affine")
    vectors = {"width": torch.ones(2, 7), "shape": torch.ones(2, 2, D), "nan": torch.ones(3, D)}[bad]
    if bad == "nan":
        vectors[2, 4] = math.nan
    message = "vector 2 holds NaN" if bad == "nan" else rf"expected vectors of shape \(n, {D}\) or \({D},\), got"
    with pytest.raises(InterpToolkitError, match=message):
        adapter(vectors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="affine", d_model=4), "expected an adapter kind of identity, scale, .*got 'affine'"),
        (dict(kind="low_rank", d_model=4), "a rank belongs to the kinds low_rank and scalar_affine_low_rank"),
        (dict(kind="scale", d_model=4, rank=2), "a rank belongs to"),
        (dict(kind="low_rank", d_model=4, rank=9), "rank between 1 and 4, the smaller width, got 9"),
        (dict(kind="scale", d_model=4, init_scale=-1.0), "init_scale above 0"),
        (dict(kind="scale", d_model=0), "d_model of at least 1"),
        (dict(kind="scale", d_model=4, colour="red"), "unknown key 'colour' in the adapter settings; expected some of"),
    ],
)
def test_settings_that_make_no_adapter(arguments, message):
    with pytest.raises(InterpToolkitError, match=message):
        Adapter.create(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_the_whole_adapter(tmp_path, kind, random_vectors):
    adapter, x = _trained(kind), random_vectors(3, D)
    adapter.save_pretrained(tmp_path / "a")
    again = Adapter.from_pretrained(tmp_path / "a")
    assert torch.equal(again(x), adapter(x))
    assert again.config == adapter.config
    assert again.metadata == adapter.metadata
    assert again.contract.to_dict() == adapter.contract.to_dict()
    assert torch.equal(again.contract.mean, adapter.contract.mean)
    assert again.digest == adapter.digest
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert sorted(os.listdir(tmp_path)) == ["a"]
    adapter.save_pretrained(tmp_path / "a")  # over itself


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    adapter = _trained("scalar_affine")
    adapter.save_pretrained(tmp_path / "a")
    before = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr("interp_toolkit.adapters.files.json.dumps", lambda *a, **k: 1 / 0)
    changed = _trained("scalar_affine", seed=1)
    with pytest.raises(ZeroDivisionError):
        changed.save_pretrained(tmp_path / "a")
    with pytest.raises(ZeroDivisionError):
        changed.save_pretrained(tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == before


def test_saving_refuses_what_would_be_lost(tmp_path):
    with pytest.raises(InterpToolkitError, match="saved with its contract, and this one has none"):
        Adapter.create("scale", D).save_pretrained(tmp_path / "a")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InterpToolkitError, match="exists and is not an adapter folder"):
        _trained("scale").save_pretrained(tmp_path / "thesis")


def _break(folder, how):
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    described = json.loads(config.read_text())
    match how:
        case "no config":
            config.unlink()
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-9])
        case "cut config":
            config.write_text(config.read_text()[:40])
        case "other format":
            config.write_text(json.dumps({**described, "format": "lora"}))
        case "list":
            config.write_text("[]")
        case "contract without its mean":
            save_file({k: v for k, v in load_file(weights).items() if k != "contract.mean"}, weights)
        case "contract not whole":
            described["contract"].pop("site")
            config.write_text(json.dumps(described))
        case "unknown setting":
            described["adapter"]["colour"] = "red"
            config.write_text(json.dumps(described))
        case "another shape":
            save_file({**load_file(weights), "bias": torch.zeros(D + 1)}, weights)
        case "nan":
            save_file({**load_file(weights), "bias": torch.full((D,), math.nan)}, weights)
        case "two widths":
            described["contract"]["d_model"] = 13
            described["contract"]["centring"] = "none"
            config.write_text(json.dumps(described))
            save_file({k: v for k, v in load_file(weights).items() if k != "contract.mean"}, weights)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "is no adapter folder: it has no adapter_config.json"),
        ("no weights", "adapter_model.safetensors is missing; the adapter is not whole"),
        ("cut weights", "adapter_model.safetensors is damaged"),
        ("cut config", "adapter_config.json is damaged"),
        ("other format", "expected format 'interp_toolkit_adapter', version 1.*got.*'lora'"),
        ("list", "expected format 'interp_toolkit_adapter'"),
        ("contract without its mean", "says centring 'mean', but the mean vector is missing"),
        ("contract not whole", r"the contract is not whole: missing \['site'\]"),
        ("unknown setting", "unknown key 'colour' in the adapter settings"),
        ("another shape", r"expected tensors .*got .*\(13,\)"),
        ("nan", "holds NaN or infinity in bias; the file is damaged"),
        ("two widths", "d_model 12 in the adapter, 13 in the contract"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, how, message):
    _trained("scalar_affine").save_pretrained(tmp_path / "a")
    _break(tmp_path / "a", how)
    for read in (Adapter.from_pretrained, find_stored):
        with pytest.raises(FileFormatError, match=message):
            read(str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_not_as_it_was_written_is_refused(tmp_path, name):
    adapter = _trained("scalar_affine")
    adapter.save_pretrained(tmp_path / "a")
    whole = (tmp_path / "a" / name).read_bytes()
    # A bit in the last number of the weights, and a digit of init_scale: both would be read as other numbers.
    at = whole.index(b"5.0") if name.endswith("json") else len(whole) - 2
    (tmp_path / "a" / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for read in (Adapter.from_pretrained, find_stored):
        with pytest.raises(FileFormatError, match=f"{name} is damaged: its SHA-256 is not the one"):
            read(str(tmp_path / "a"))


def test_a_folder_of_0_1_has_no_digests_and_an_edited_one_needs_none(tmp_path):
    adapter = _trained("scalar_affine")
    adapter.save_pretrained(tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    described = json.loads(config.read_text())
    described["metadata"]["note"] = "edited"
    config.write_text(json.dumps(described))
    with pytest.raises(FileFormatError, match="if it was edited on purpose, take the key 'sha256' out"):
        Adapter.from_pretrained(tmp_path / "a")
    digests = described.pop("sha256")
    config.write_text(json.dumps(described))
    save_file(load_file(tmp_path / "a" / "adapter_model.safetensors"), tmp_path / "a" / "adapter_model.safetensors")
    assert Adapter.from_pretrained(tmp_path / "a").metadata["note"] == "edited"
    config.write_text(json.dumps({**described, "sha256": digests["weights"]}))
    with pytest.raises(FileFormatError, match="expected the digests of config and weights, got"):
        Adapter.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_adapters_have_digests(name):
    """Where a config was changed on purpose, `interp_toolkit.adapters.files.write_config` writes them anew."""
    folder = Path(shipped.__file__).parent / name
    described = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(described["sha256"]) == {"config", "weights"}
    assert Adapter.from_pretrained(folder).digest == shipped.find_adapter(name).digest


def test_weights_are_read_with_the_config_beside_them(tmp_path):
    adapter = Adapter.create("scale", D, normalize=False, init_scale=2.0)
    adapter.contract = Contract.from_facts(FACTS, Site.after(19), LLAMA, None, False)
    adapter.save_pretrained(tmp_path / "a")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        again = Adapter.from_pretrained(tmp_path / "a" / name)
        assert not again.config.normalize
        assert again.contract.site == Site.after(19)
    for name in ("adapter_model.safetensors", "renamed.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / "a" / "adapter_model.safetensors").read_bytes())
        with pytest.raises(FileFormatError, match=f"{name} holds the weights of an adapter folder.*expected .*json be"):
            Adapter.from_pretrained(tmp_path / name)
    # Weights that 0.1 wrote say nothing of themselves.
    save_file(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")
    save_file({"bias": torch.ones(D), "contract.mean": torch.ones(D)}, tmp_path / "renamed.safetensors")
    for name in ("adapter_model.safetensors", "renamed.safetensors"):
        with pytest.raises(FileFormatError, match="holds the weights of an adapter folder"):
            Adapter.from_pretrained(tmp_path / name)
    # A published adapter may have any name.
    tensors, header = _published("scalar_affine")
    save_file(tensors, tmp_path / "adapter_model.safetensors", header)
    assert Adapter.from_pretrained(tmp_path / "adapter_model.safetensors").config.kind == "scalar_affine"


def test_the_config_of_weights_on_the_hub_is_fetched_with_them(tmp_path, monkeypatch):
    import huggingface_hub

    adapter, asked = _trained("scalar_affine"), []
    adapter.save_pretrained(tmp_path / "sub" / "a")

    def snapshot(repo, revision, allow_patterns):
        asked.append((repo, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert Adapter.from_pretrained("org/repo/sub/a/adapter_model.safetensors").contract.site == adapter.contract.site
    names = ["sub/a/adapter_config.json", "sub/a/adapter_model.safetensors"]
    assert asked == [("org/repo", names)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(d_model=10**15), "expected d_model times sites or tokens of at most"),
        (dict(d_model=10**6, kind="full_rank"), r"expected tensors .*1000000, 1000000.* got"),
    ],
)
def test_no_memory_is_taken_for_what_a_config_claims(tmp_path, config, message):
    _trained("scalar_affine").save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    described = json.loads(file.read_text())
    described["adapter"] |= config
    described["contract"] |= dict(d_model=described["adapter"]["d_model"], centring="none")
    file.write_text(json.dumps(described))
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    weights.pop("contract.mean")
    save_file(weights, tmp_path / "a" / "adapter_model.safetensors")
    with pytest.raises(FileFormatError, match=message):
        Adapter.from_pretrained(tmp_path / "a")


@pytest.mark.parametrize("path", ["/no/such/adapter", "./nothing", "plain-name"])
def test_a_missing_adapter_is_named(path):
    with pytest.raises(FileFormatError, match=f"no adapter at {path}"):
        Adapter.from_pretrained(path)


def test_a_hub_id_without_a_network_is_named():
    with pytest.raises(FileFormatError, match="no adapter at org/some-adapter: no such folder here, and the hub "):
        Adapter.from_pretrained("org/some-adapter")


def test_a_hub_id_is_fetched(tmp_path, monkeypatch):
    """What the hub's client gives is read like any folder or file; here it gives what lies on this disk."""
    import huggingface_hub

    adapter = _trained("scalar_affine")
    adapter.save_pretrained(tmp_path / "a")
    adapter.save_published(tmp_path / "b.safetensors")
    asked = []

    def snapshot(repo, revision, allow_patterns):
        asked.append((repo, revision))
        return str(tmp_path / "a")

    def download(repo, name, revision):
        asked.append((repo, name))
        return str(tmp_path / "b.safetensors")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Adapter.from_pretrained("org/repo", revision="v1").digest == adapter.digest
    assert Adapter.from_pretrained("org/repo/sub/b.safetensors").digest == adapter.digest
    assert asked == [("org/repo", "v1"), ("org/repo", "sub/b.safetensors")]


# The published formats: files written here with safetensors and torch alone, as their authors' tools write them.

PUBLISHED = {
    "scale_only": ("scale", {"log_scale": (1,)}),
    "scalar_affine": ("scalar_affine", {"log_scale": (1,), "bias": (D,)}),
    "full_rank": ("full_rank", {"weight": (D, D), "bias": (D,)}),
    "low_rank_only": ("low_rank", {"U": (D, R), "V": (D, R), "bias": (D,)}),
    "scalar_affine_plus_low_rank": (
        "scalar_affine_low_rank",
        {"log_scale": (1,), "U": (D, R), "V": (D, R), "bias": (D,)},
    ),
}


def _published_config(kind):
    return {
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "dtype": "auto"},
        "projection": {
            "type": kind,
            "normalize_input": True,
            "init_scale": 5.0,
            "low_rank_rank": R,
            "bottleneck_dim": None,
        },
        "soft_prompt": {"template": LLAMA.template, "reserved_token": LLAMA.marker},
        "training": {"learning_rate": 0.01, "an unknown key": [1, 2]},
    }


def _published(kind):
    tensors = {name: torch.randn(shape) for name, shape in PUBLISHED[kind][1].items()}
    header = {
        "format": "selfie_adapter_v1",
        "description": "trained adapter",
        "projection_type": kind,
        "model_dim": str(D),
        "model_name": "meta-llama/Llama-3.1-8B-Instruct",
        "normalize_input": "true",
        "init_scale": "5.0",
        "global_step": "2951",
        "best_val_loss": "1.36624",
        "wandb_run_name": "an-unknown-key",
        "config_json": json.dumps(_published_config(kind)),
    }
    return tensors, header


def test_a_file_within_a_folder_or_a_repository_is_named_apart(tmp_path, monkeypatch):
    import huggingface_hub

    adapter = _trained("scalar_affine")
    adapter.save_published(tmp_path / "b.safetensors")
    assert Adapter.from_pretrained(tmp_path, "b.safetensors").digest == adapter.digest
    with pytest.raises(FileFormatError, match=r"no adapter at .*c\.safetensors: the folder holds no such file"):
        Adapter.from_pretrained(tmp_path, filename="c.safetensors")
    calls = []

    def download(repo, name, revision):
        calls.append((repo, name, revision))
        return str(tmp_path / "b.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Adapter.from_pretrained("org/repo", "sub/b.safetensors", revision="v1").digest == adapter.digest
    assert calls == [("org/repo", "sub/b.safetensors", "v1")]


def test_paths_of_the_other_format_are_refused(tmp_path):
    with pytest.raises(InterpToolkitError, match=r"expected a folder to save to, got .*; save_published writes such"):
        _trained("scale").save_pretrained(tmp_path / "a.safetensors")
    with pytest.raises(InterpToolkitError, match=r"a path that ends in \.safetensors or \.pt, got "):
        _trained("scale").save_published(tmp_path / "a")


def test_the_old_names_of_load_and_save_go_on_working(tmp_path):
    adapter = _trained("scalar_affine")
    with pytest.warns(DeprecationWarning, match="Adapter.save is deprecated; use Adapter.save_pretrained"):
        adapter.save(tmp_path / "a", torch.float16)
    with pytest.warns(DeprecationWarning, match="Adapter.save is deprecated; use Adapter.save_published"):
        adapter.save(tmp_path / "a.pt")
    for name in ("a", "a.pt"):
        with pytest.warns(DeprecationWarning, match="Adapter.load is deprecated; use Adapter.from_pretrained"):
            again = Adapter.load(tmp_path / name, revision=None)
        assert torch.allclose(again.bias, adapter.bias, atol=1e-3)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_safetensors_load(tmp_path, kind, random_vectors):
    tensors, header = _published(kind)
    save_file(tensors, tmp_path / "x.safetensors", header)
    adapter, x = Adapter.from_pretrained(tmp_path / "x.safetensors"), random_vectors(3, D)
    ours = PUBLISHED[kind][0]
    assert adapter.config == AdapterConfig(ours, D, rank=R if "low_rank" in ours else None)
    assert torch.allclose(adapter(x).double(), torch.stack([_by_hand(adapter, row) for row in x]), atol=1e-5)
    for name, value in tensors.items():
        assert torch.equal(adapter.state_dict()[name], value)
    assert adapter.metadata["wandb_run_name"] == "an-unknown-key"
    assert json.loads(adapter.metadata["config_json"])["training"]["an unknown key"] == [1, 2]
    contract = adapter.contract
    assert (contract.model_id, contract.d_model) == ("meta-llama/Llama-3.1-8B-Instruct", D)
    assert contract.soft_prompt == LLAMA
    assert contract.site is None


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("keep", ["no config_json", "no header but the width", "no header at all"])
def test_what_a_header_lacks_is_tolerated(tmp_path, kind, keep):
    tensors, header = _published(kind)
    if keep == "no config_json":
        header.pop("config_json")
    else:
        header = {"model_dim": str(D)} if keep == "no header but the width" else None
    save_file(tensors, tmp_path / "x.safetensors", header)
    if kind == "scale_only" and header is None:
        with pytest.raises(FileFormatError, match="does not say its width"):
            Adapter.from_pretrained(tmp_path / "x.safetensors")
        return
    adapter = Adapter.from_pretrained(tmp_path / "x.safetensors")
    assert adapter.config.kind == PUBLISHED[kind][0]
    assert adapter.config.d_model == D
    assert adapter.contract.soft_prompt is None


def test_projection_settings_come_from_the_nested_config_first(tmp_path):
    tensors, header = _published("scalar_affine")
    config = _published_config("scalar_affine")
    config["projection"]["normalize_input"] = False
    save_file(tensors, tmp_path / "x.safetensors", {**header, "config_json": json.dumps(config)})
    assert not Adapter.from_pretrained(tmp_path / "x.safetensors").config.normalize


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_published_format_is_written_and_read_back(tmp_path, kind, random_vectors):
    adapter, x = _trained(PUBLISHED[kind][0]), random_vectors(3, D)
    adapter.save_published(tmp_path / "x.safetensors")
    assert set(load_file(tmp_path / "x.safetensors")) == set(PUBLISHED[kind][1])
    again = Adapter.from_pretrained(tmp_path / "x.safetensors")
    assert torch.equal(again(x), adapter(x))
    assert again.contract.soft_prompt == adapter.contract.soft_prompt
    assert again.metadata["note"] == "kept"
    assert again.metadata["projection_type"] == kind


@pytest.mark.parametrize("kind", PUBLISHED)
def test_trainer_checkpoints_are_written_and_read_back(tmp_path, kind):
    adapter = _trained(PUBLISHED[kind][0])
    adapter.save_published(tmp_path / "x.pt")
    checkpoint = torch.load(tmp_path / "x.pt", weights_only=True)
    assert set(checkpoint["projection_state"]) == set(PUBLISHED[kind][1])
    assert checkpoint["config"]["projection"]["type"] == kind
    again = Adapter.from_pretrained(tmp_path / "x.pt")
    assert again.digest == adapter.digest
    assert again.contract.soft_prompt == adapter.contract.soft_prompt
    assert again.contract.model_id == adapter.contract.model_id


@pytest.mark.parametrize("kind", ["identity", "bias_only"])
def test_what_the_published_format_cannot_say_is_refused(tmp_path, kind):
    with pytest.raises(InterpToolkitError, match=f"the published format has no '{kind}' adapter"):
        _trained(kind).save_published(tmp_path / "x.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", PUBLISHED)
def test_trainer_checkpoints_load(tmp_path, kind):
    tensors, _ = _published(kind)
    checkpoint = {
        "global_step": 2000,
        "projection_state": tensors,
        "optimizer_state": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.01}]},
        "config": _published_config(kind),
        "best_val_loss": 1.5,
        "model_dim": D,
        "checkpoint_format_version": 1,
    }
    torch.save(checkpoint, tmp_path / "x.pt")
    adapter = Adapter.from_pretrained(tmp_path / "x.pt")
    assert adapter.config.kind == PUBLISHED[kind][0]
    assert all(torch.equal(adapter.state_dict()[name], value) for name, value in tensors.items())
    assert adapter.metadata["global_step"] == "2000"
    assert adapter.contract.soft_prompt == LLAMA


class _Trap:
    def __reduce__(self):
        return (os.mkdir, ("trap-sprung",))


def test_no_pickled_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"projection_state": _Trap()}, "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(_Trap()))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(FileFormatError, match=r"pickled objects .* never run|damaged"):
            Adapter.from_pretrained(tmp_path / name)
    assert not (tmp_path / "trap-sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.safetensors", b"not a header", "is damaged"),
        ("x.pt", b"", "damaged"),
        ("x.pt", b"PK\x03\x04 cut off", "damaged"),
        ("x.bin", b"", "expected an adapter folder, a .safetensors file or a .pt file"),
    ],
)
def test_damaged_published_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        Adapter.from_pretrained(tmp_path / name)


def test_published_files_of_another_kind_are_refused(tmp_path):
    tensors, header = _published("scalar_affine")
    save_file(tensors, tmp_path / "a.safetensors", {**header, "format": "lora_v2"})
    with pytest.raises(FileFormatError, match="expected format 'selfie_adapter_v1'.*got 'lora_v2'"):
        Adapter.from_pretrained(tmp_path / "a.safetensors")
    save_file({"q": torch.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match="expected a projection type of scale_only"):
        Adapter.from_pretrained(tmp_path / "b.safetensors")
    save_file(tensors, tmp_path / "c.safetensors", {**header, "config_json": "{"})
    with pytest.raises(FileFormatError, match="config_json in the header is damaged"):
        Adapter.from_pretrained(tmp_path / "c.safetensors")
    torch.save({"weights": 1}, tmp_path / "d.pt")
    with pytest.raises(FileFormatError, match="expected a checkpoint with 'projection_state'"):
        Adapter.from_pretrained(tmp_path / "d.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("place", ["header", "config"])
@pytest.mark.parametrize(
    ("value", "normalize"), [("false", False), ("True", True), ("FALSE", False), (True, True), (0, None)]
)
def test_a_flag_means_the_same_wherever_it_stands(tmp_path, suffix, place, value, normalize):
    tensors, header = _published("scalar_affine")
    config = _published_config("scalar_affine")
    if place == "config":
        config["projection"]["normalize_input"], header["normalize_input"] = value, "true"
    else:
        config["projection"].pop("normalize_input")
        header["normalize_input"] = value
    if suffix == ".pt":
        header.pop("config_json")
        torch.save({**header, "projection_state": tensors, "config": config}, tmp_path / "x.pt")
    else:
        header = {key: str(x) for key, x in header.items()}
        save_file(tensors, tmp_path / "x.safetensors", {**header, "config_json": json.dumps(config)})
    if normalize is not None:
        assert Adapter.from_pretrained(tmp_path / f"x{suffix}").config.normalize is normalize
    elif place == "config":
        with pytest.raises(FileFormatError, match="expected true or false for normalize_input in .*, got 0"):
            Adapter.from_pretrained(tmp_path / f"x{suffix}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(normalize_input="maybe"), "expected true or false for normalize_input in .*, got 'maybe'"),
        (dict(model_dim="576x"), "expected a number for model_dim in .*, got '576x'"),
        (dict(model_dim="12.5"), "expected a whole number of at least 1 for model_dim"),
        (dict(init_scale="5.o"), "expected a number for init_scale in .*, got '5.o'"),
        (dict(config_json='{"projection": [1]}'), r"expected a mapping for projection in .*, got \[1\]"),
        (
            dict(config_json='{"projection": {"type": ["a"]}}'),
            r"expected a text for the type of projection in .*, got \['a'\]",
        ),
        (dict(config_json='{"soft_prompt": {"template": 3}}'), "expected a text for the template of the soft prompt"),
        (dict(config_json='{"model": "m"}'), "expected a mapping for model in .*, got 'm'"),
        (dict(config_json="[" * 100_000), "config_json in the header is damaged: nested too deeply"),
    ],
)
def test_a_header_value_that_cannot_be_is_refused(tmp_path, change, message):
    tensors, header = _published("scalar_affine")
    header = {**header, "config_json": "{}"} | change
    save_file(tensors, tmp_path / "x.safetensors", header)
    with pytest.raises(FileFormatError, match=message):
        Adapter.from_pretrained(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"log_scale": torch.ones(1), "bias": [1.0] * D}, "expected tensors by name in 'projection_state'"),
        ({"log_scale": torch.ones(1), "bias": torch.ones(D, dtype=torch.int32)}, "expected floating-point numbers"),
        ({"log_scale": torch.ones(1), "bias": torch.ones(D).to_sparse()}, "expected floating-point numbers"),
        ({"weight": torch.ones(1, 1).expand(10**6, 10**6), "bias": torch.ones(10**6)}, "the file is too short"),
    ],
)
def test_a_checkpoint_of_other_things_is_refused(tmp_path, tensors, message):
    torch.save({"projection_state": tensors}, tmp_path / "x.pt")
    with pytest.raises(FileFormatError, match=message):
        Adapter.from_pretrained(tmp_path / "x.pt")


def test_a_changed_bit_in_a_checkpoint_is_found_by_its_checksum(tmp_path):
    _trained("scalar_affine").save_published(tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    at = whole.index(_trained("scalar_affine").bias.numpy().tobytes())
    (tmp_path / "x.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(FileFormatError, match=r"x\.pt is damaged: the checksum of its part .* is wrong"):
        Adapter.from_pretrained(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"layer_3": torch.full((D,), math.nan)}, {}, "expected a finite vector in layer_3"),
        ({"layer_3": torch.ones(D, D)}, {}, "expected a finite vector in layer_3"),
        ({"layer_²": torch.ones(D)}, {}, "expected format 'selfie_mean_vectors_v1' with tensors layer_0"),
        ({"layer_3": torch.ones(D)}, {"hidden_dim": "13"}, "expected vectors of width 13, as hidden_dim says"),
        ({"layer_3": torch.ones(D)}, {"layer_indices": "[4]"}, r"expected the layers \[4\], got \[3\]"),
        ({"layer_3": torch.ones(D)}, {"layer_indices": "3"}, "expected a list of layers for layer_indices"),
    ],
)
def test_damaged_mean_vectors_are_refused(tmp_path, tensors, header, message):
    save_file(tensors, tmp_path / "m.safetensors", {"format": "selfie_mean_vectors_v1", **header})
    with pytest.raises(FileFormatError, match=message):
        read_mean_vectors(tmp_path / "m.safetensors")


def test_mean_vectors(tmp_path):
    mean = torch.randn(D)
    header = {"format": "selfie_mean_vectors_v1", "layer_indices": "[19]", "num_layers": "1", "hidden_dim": str(D)}
    save_file({"layer_19": mean}, tmp_path / "mean-vectors.safetensors", header)
    means = read_mean_vectors(tmp_path / "mean-vectors.safetensors")
    assert list(means) == [19]
    assert torch.equal(means[19], mean)
    write_mean_vectors(tmp_path / "mine.safetensors", {19: mean, 3: mean * 2}, "org/m")
    again = read_mean_vectors(tmp_path / "mine.safetensors")
    assert sorted(again) == [3, 19]
    assert torch.equal(again[3], mean * 2)
    save_file({"layer_19": mean}, tmp_path / "other.safetensors", {"format": "else"})
    with pytest.raises(FileFormatError, match="expected format 'selfie_mean_vectors_v1'.*got 'else'"):
        read_mean_vectors(tmp_path / "other.safetensors")


# The contract.


def test_a_model_that_was_not_trained_for_is_refused():
    contract = _trained("scalar_affine").contract
    contract.check_model(FACTS)
    contract.check_model(replace(FACTS, model_id="/elsewhere/copy"))  # the fingerprint decides
    with pytest.raises(ContractError, match=r"width 12 \(org/some-model\), the model org/other has d_model 13"):
        contract.check_model(replace(FACTS, model_id="org/other", d_model=13))
    with pytest.raises(ContractError, match="trained on org/some-model .* the model is org/other"):
        contract.check_model(replace(FACTS, model_id="org/other", fingerprint="f" * 16))
    with pytest.raises(InterpToolkitError, match=r"blocks\.19\.hook_resid_post does not exist"):
        contract.check_model(replace(FACTS, n_layers=19))


def test_without_fingerprints_names_decide():
    contract = replace(_trained("scalar_affine").contract, fingerprint="")
    contract.check_model(replace(FACTS, model_id="/models/Some-Model/"))
    with pytest.raises(ContractError, match="fingerprint unknown"):
        contract.check_model(replace(FACTS, model_id="org/some-model-base"))


def test_another_site_is_refused():
    with pytest.raises(
        ContractError, match=r"trained on vectors from blocks\.19.*these are from blocks\.3.*on_mismatch='warn'"
    ):
        _trained("scalar_affine").contract.check_site(Site.after(3))


def test_the_untrained_direction_in_an_adapters_soft_prompt(random_vectors):
    adapter, x = _trained("scalar_affine"), random_vectors(4, D)
    scaled, plain = untrained_adapter(adapter, 7.0), untrained_adapter(adapter, None)
    assert torch.allclose(scaled(x), 7 * x / x.norm(dim=1, keepdim=True), atol=1e-5)
    assert torch.equal(plain(x), x)
    assert torch.equal(scaled.contract.mean, adapter.contract.mean)
    assert plain.contract.mean is None
    for made in (scaled, plain):
        assert (made.contract.site, made.contract.soft_prompt) == (Site.after(19), LLAMA)
        assert made.contract.normalize == made.config.normalize
    stack = replace(adapter.contract, site=SiteStack([7, 3]), mean=torch.zeros(2 * D))
    assert untrained_adapter(stack, 7.0).contract.site == Site.after(7)
    assert untrained_adapter(stack, 7.0).contract.mean is None
    with pytest.raises(InterpToolkitError, match="has no contract"):
        untrained_adapter(Adapter.create("scale", D), 1.0)


def test_the_old_name_of_a_contracts_constructor_goes_on_working():
    with pytest.warns(DeprecationWarning, match="Contract.of is deprecated; use Contract.from_facts"):
        old = Contract.of(FACTS, Site.after(19), LLAMA, None, True)
    assert old.to_dict() == Contract.from_facts(FACTS, Site.after(19), LLAMA, None, True).to_dict()


def test_what_was_measured_of_an_adapter_is_not_said_of_another():
    adapter = find_adapter("smollm2_any_token")
    contract = adapter.require_contract()
    assert contract.confidence
    assert contract.probe
    assert any(place.threshold for place in contract.reading_places)
    others = (
        adapter.with_soft_prompt(contract.soft_prompt.at("blocks.1.hook_resid_pre")),
        untrained_adapter(adapter, 3.0),
        untrained_adapter(adapter, None),
    )
    for other in others:
        changed = other.require_contract()
        assert (changed.confidence, changed.probe) == ((), None)
        assert not any(place.threshold for place in changed.reading_places)
    assert contract.probe  # that of the adapter itself stays
