"""Adapters as their files hold them: what is known of them without torch is what torch says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp_toolkit import Adapter, FileFormatError, Site, SiteStack, SoftPrompt
from interp_toolkit.adapters import AdapterConfig
from interp_toolkit.adapters.kinds import FAMILY, KINDS
from interp_toolkit.adapters.stored import StoredAdapter
from interp_toolkit.adapters.weights import read_arrays
from interp_toolkit.cli import main
from interp_toolkit.confidence import FEATURES, ConfidenceModel
from interp_toolkit.contract import Contract, ModelFacts
from interp_toolkit.probe import Probe
from interp_toolkit.reading_place import EvidenceThreshold, ReadingPlace
from interp_toolkit.shipped import NAMES, find_adapter, find_stored
from interp_toolkit.way_back import WayBack

D, R = 12, 3
FACTS = ModelFacts("org/some-model", "abc", "0123456789abcdef", D, 30, (5, 6))
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def _trained(kind, **settings):
    """An adapter with every parameter away from its start, and a contract."""
    adapter = Adapter.create(kind, D, **({"rank": R} if FAMILY[kind].takes_rank else {}), **settings)
    for parameter in adapter.requires_grad_(False).parameters():
        parameter.copy_(torch.randn(parameter.shape))
    site = SiteStack([4, 10]) if adapter.config.sites == 2 else Site.after(4)
    mean = torch.randn(adapter.config.width)
    adapter.contract = Contract.from_facts(FACTS, site, SoftPrompt.preset("llama-3.1"), mean, True, chat=False)
    adapter.metadata = {"best_val_loss": "1.25"}
    return adapter


def _full():
    """An adapter whose contract has all that one can have."""
    adapter = _trained("low_rank", sites=2, tokens=2)
    threshold = EvidenceThreshold(0.5, 0.05, 100, 0)
    adapter.contract = replace(
        adapter.contract,
        threshold=threshold,
        more=(ReadingPlace(Site.after(4), torch.randn(D), threshold), ReadingPlace(Site.after(3), None, None)),
        confidence=(ConfidenceModel(Site.after(4), "text", False, 0.5, {name: 0.1 for name in FEATURES}, 9, 0),),
        way_back=WayBack(
            Site.after(4), "{text}", torch.randn(2 * D, R), torch.randn(2 * D, R), torch.randn(2 * D),
            torch.randn(2 * D), 0.1, 9,
        ),
        probe=Probe(((1, 2),), (-1.0, -2.0, -3.0, -4.0), "float32"),
    )  # fmt: skip
    return adapter


def _alike(stored, adapter):
    """Whether all that is shown of an adapter is the same."""
    assert isinstance(stored, StoredAdapter)
    assert (stored.parameter_count, stored.digest) == (adapter.parameter_count, adapter.digest)
    assert (stored.config, stored.metadata) == (adapter.config, adapter.metadata)
    assert json.dumps(stored.contract.to_dict()) == json.dumps(adapter.contract.to_dict())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FAMILY)
def test_a_folder_says_without_torch_what_the_adapter_says(tmp_path, kind, dtype):
    adapter = _trained(kind)
    adapter.save_pretrained(tmp_path / "a", dtype)
    again = Adapter.from_pretrained(tmp_path / "a")
    _alike(find_stored(str(tmp_path / "a")), again)
    if dtype == torch.float32:
        assert again.digest == adapter.digest


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_parts_of_a_contract_are_said(tmp_path, dtype):
    adapter = _full()
    adapter.save_pretrained(tmp_path / "a", dtype)
    again = Adapter.from_pretrained(tmp_path / "a")
    _alike(find_stored(str(tmp_path / "a")), again)
    assert again.contract.to_dict() == adapter.contract.to_dict()
    # The adapter's own contract holds tensors.
    assert torch.equal(again.contract.mean, adapter.contract.mean)
    assert torch.equal(again.contract.more[0].mean, adapter.contract.more[0].mean)
    assert all(isinstance(tensor, torch.Tensor) for tensor in again.contract.way_back.tensors().values())


@pytest.mark.parametrize("name", NAMES)
def test_shipped_adapters_are_said_to_be_what_they_are(name):
    _alike(find_stored(name), find_adapter(name))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_published_files_too(tmp_path, ending):
    _trained("scalar_affine").save_published(tmp_path / f"a.{ending}")
    stored, adapter = (find(str(tmp_path / f"a.{ending}")) for find in (find_stored, find_adapter))
    _alike(replace(stored, metadata=dict(sorted(stored.metadata.items()))), adapter)


@pytest.mark.parametrize("settings", [{}, dict(sites=3), dict(tokens=2), dict(sites=2, tokens=3)])
@pytest.mark.parametrize("kind", FAMILY)
def test_what_is_known_of_a_kind_is_what_its_class_says(kind, settings):
    facts, kind_class = FAMILY[kind], KINDS[kind]
    assert (facts.takes_rank, facts.takes_several) == (kind_class.takes_rank, kind_class.takes_several)
    assert facts.settings == kind_class.settings
    if settings and not facts.takes_several:
        return
    config = AdapterConfig(kind, D, rank=R if facts.takes_rank else None, **settings)
    known, made = facts.parameter_shapes(config), kind_class.parameter_shapes(config)
    assert list(known.items()) == list(made.items())


def test_every_class_of_the_family_is_known():
    ours = [kind for kind, kind_class in KINDS.items() if kind_class.__module__ == "interp_toolkit.adapters.family"]
    assert ours == list(FAMILY)


def test_a_kind_of_ones_own_is_asked_of_its_class(tmp_path, capsys):
    class Counting(Adapter):
        kind = "counting"

        def make_parameters(self):
            self.gain = torch.nn.Parameter(torch.full((self.config.d_model,), 2.0))
            self.register_buffer("seen", torch.tensor([7]))

        def map_directions(self, x, scale):
            return self.gain * x * scale

    try:
        adapter = Adapter.create("counting", D)
        adapter.contract = _trained("scale").contract
        adapter.save_pretrained(tmp_path / "a")
        assert main(["info", str(tmp_path / "a"), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["parameters"], shown["digest"]) == (D, adapter.digest)
    finally:
        del KINDS["counting"]


def test_arrays_are_the_tensors_of_the_file(tmp_path):
    numbers = torch.randn(4, 3) * 100
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8)
    tensors = {str(dtype): numbers.to(dtype) for dtype in types}
    bits = torch.tensor([0, 1, 0x7F80, -64, -1]).short().view(torch.bfloat16)  # infinity and NaN among them
    tensors |= {"bool": numbers > 0, "one": torch.tensor(2.5).bfloat16(), "none": torch.zeros(0, 3), "bits": bits}
    save_file(tensors, tmp_path / "a.safetensors")
    arrays, loaded = read_arrays(tmp_path / "a.safetensors"), load_file(tmp_path / "a.safetensors")
    assert list(arrays) == list(loaded)
    for name, tensor in loaded.items():
        assert (f"torch.{arrays[name].dtype}", arrays[name].values.shape) == (str(tensor.dtype), tuple(tensor.shape))
        assert arrays[name].is_floating_point == tensor.is_floating_point()
        assert np.array_equal(arrays[name].as_float32(), tensor.float().numpy(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_parameters_that_are_no_real_numbers_are_refused(tmp_path, dtype):
    _trained("scale").save_pretrained(tmp_path / "a")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    try:
        save_file({**load_file(weights), "log_scale": torch.ones(1, dtype=dtype)}, weights)
    except KeyError:
        pytest.skip("this version of safetensors writes no complex numbers")
    for find in (find_stored, find_adapter):
        with pytest.raises(FileFormatError, match=f"is damaged: log_scale holds {dtype}"):
            find(str(tmp_path / "a"))


def test_numbers_that_numpy_does_not_know_are_refused(tmp_path):
    save_file({"bias": torch.ones(3).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError, match="is damaged: bias holds F8_E4M3"):
        read_arrays(tmp_path / "a.safetensors")
