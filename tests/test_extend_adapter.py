"""A user's own kind of adapter: one class in the user's file, which works as ours do."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interp_toolkit import (
    Adapter,
    FileFormatError,
    InterpToolkitError,
    Sampling,
    Site,
    TrainConfig,
    VectorLabelPairs,
    self_explain,
    train_adapter,
)
from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.kinds import KINDS
from interp_toolkit.contract import Contract
from interp_toolkit.training.optimizer import make_optimizer

SOURCE = '''
import torch
from torch import nn

from interp_toolkit import Adapter


class TwoLayers(Adapter):
    """f(x) = g * V tanh(U x^) + b, with a width of the layer between that the user sets."""

    kind = "two_layers"
    takes_several = True
    settings = {"hidden": 6, "gain": 2.0}

    def make_parameters(self):
        config = self.config
        self.first = nn.Linear(config.width, config.settings["hidden"])
        self.out = nn.Parameter(torch.randn(config.d_model * config.tokens, config.settings["hidden"]))
        self.shift = nn.Parameter(torch.zeros(config.d_model * config.tokens))

    def map_directions(self, x, scale):
        return torch.tanh(self.first(x * scale)) @ self.out.T * self.config.settings["gain"] + self.shift
'''
WORDS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over"]


@pytest.fixture
def registry():
    """The kinds are as they were after a test that defines one."""
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


@pytest.fixture
def own_file(tmp_path, registry):
    path = tmp_path / "my_kinds.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("my_kinds", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return path


def _pairs(random_vectors):
    vectors = random_vectors(8, seed=5).repeat(6, 1) + 0.1 * random_vectors(48, seed=6)
    splits = ["val" if i >= 40 else "train" for i in range(48)]
    return VectorLabelPairs.from_tensors(
        vectors, WORDS * 6, splits=splits, site=Site.after(2), mean=torch.full((32,), 0.5)
    )


def test_an_own_kind_is_trained_saved_loaded_and_explains(own_file, tmp_path, tiny, tiny_prompt, random_vectors):
    config = TrainConfig(epochs=4, batch_size=8, lr=0.02, eval_every=4, val_examples=8, log_samples=0)
    adapter = Adapter.create("two_layers", 32, hidden=12)
    model = tiny()
    result = train_adapter(model, _pairs(random_vectors), adapter, config, soft_prompt=tiny_prompt)
    trained = result.adapter
    assert type(trained).__name__ == "TwoLayers"
    assert result.best_val_loss < 6.1  # 6.2 after the first four steps
    trained.save_pretrained(tmp_path / "a", torch.float32)
    described = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["adapter"]
    assert (described["kind"], described["hidden"], described["gain"]) == ("two_layers", 12, 2.0)
    again = Adapter.from_pretrained(tmp_path / "a")
    assert again.config == trained.config
    assert again.digest == trained.digest
    assert torch.equal(again(random_vectors(3)), trained(random_vectors(3)))
    texts = [
        [
            e.description
            for e in self_explain(
                ["Tell me about rivers."], model=model, adapter=one, sampling=Sampling(max_new_tokens=6)
            )
        ]
        for one in (trained, again)
    ]
    assert texts[0] == texts[1]
    assert "hidden" in trained._repr_html_()
    with pytest.raises(InterpToolkitError, match="the published format has no 'two_layers' adapter"):
        trained.save_published(tmp_path / "a.safetensors")


def test_a_folder_of_an_unknown_kind_says_what_to_import(own_file, tmp_path, tiny, tiny_prompt, random_vectors):
    config = TrainConfig(epochs=1, batch_size=8, log_samples=0)
    adapter = Adapter.create("two_layers", 32)
    result = train_adapter(tiny(), _pairs(random_vectors), adapter, config, soft_prompt=tiny_prompt)
    result.adapter.save_pretrained(tmp_path / "a")
    digest = result.adapter.digest
    del KINDS["two_layers"]
    with pytest.raises(FileFormatError, match="kind of identity, .*got 'two_layers'.*class has been imported"):
        Adapter.from_pretrained(tmp_path / "a")
    program = tmp_path / "program.py"  # beside my_kinds.py
    program.write_text(f"""
import my_kinds
from interp_toolkit import Adapter
print(Adapter.from_pretrained({str(tmp_path / "a")!r}).digest)
""")
    command = [sys.executable, str(program)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == digest


def test_settings_are_those_that_the_class_declares(own_file):
    config = AdapterConfig("two_layers", 4, settings={"hidden": 3, "gain": 1})
    assert config.settings == {"hidden": 3, "gain": 1.0}
    assert AdapterConfig.from_dict(config.to_dict()) == config
    assert AdapterConfig("two_layers", 4).settings == {"hidden": 6, "gain": 2.0}
    digests = [Adapter.create("two_layers", 4, **settings).digest for settings in ({}, dict(gain=2.0), dict(gain=3.0))]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(InterpToolkitError, match="expected int for hidden of the adapter .*, got 'many'"):
        Adapter.create("two_layers", 4, hidden="many")
    with pytest.raises(InterpToolkitError, match="unknown key 'colour' in the adapter settings"):
        Adapter.create("two_layers", 4, colour="red")
    with pytest.raises(InterpToolkitError, match="unknown setting 'hidden' .* 'scale', which declares none"):
        AdapterConfig("scale", 4, settings={"hidden": 3})
    with pytest.raises(InterpToolkitError, match="a rank belongs to"):
        Adapter.create("two_layers", 4, rank=2)
    several = Adapter.create("two_layers", 4, sites=3, tokens=2)
    assert several(torch.randn(5, 12)).shape == (5, 2, 4)


def test_own_parameters_are_trained_by_their_shape(own_file):
    config = TrainConfig(lr=0.1, matrix_lr=0.01, scale_lr=0.3, matrix_weight_decay=0.2, frozen=("first.weight",))
    groups = make_optimizer(Adapter.create("two_layers", 4), config).param_groups
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    plain = (0.1, config.weight_decay)
    assert rates == {"out": (0.01, 0.2), "shift": plain, "first.bias": plain}


def test_classes_that_could_not_be_read_back_are_refused(registry):
    with pytest.raises(InterpToolkitError, match="Nameless names no kind of its own"):
        type("Nameless", (KINDS["scale"],), {})
    with pytest.raises(InterpToolkitError, match="'scale' is that of interp_toolkit.adapters.family.Scale; choose"):
        type("Scale", (Adapter,), {"kind": "scale"})
    with pytest.raises(InterpToolkitError, match="declares the setting rank, which every kind has"):
        type("Mine", (Adapter,), {"kind": "mine", "settings": {"rank": 2}})
    again = [type("Mine", (Adapter,), {"kind": "mine"}) for _ in range(2)]  # a notebook's cell that is run twice
    assert KINDS["mine"] is again[1]


def test_a_map_of_another_shape_is_refused(registry):
    def make_parameters(self):
        pass

    def map_directions(self, x, scale):
        return x.sum(-1, keepdim=True) * scale

    methods = dict(kind="narrow", make_parameters=make_parameters, map_directions=map_directions)
    type("Narrow", (Adapter,), methods)
    with pytest.raises(InterpToolkitError, match=r"shape \(3, 4\) from Narrow.map_directions, got \(3, 1\)"):
        Adapter.create("narrow", 4)(torch.ones(3, 4))


def test_a_parameter_whose_name_files_need_is_refused(registry, tmp_path, tiny_prompt):
    def make_parameters(self):
        self.layer = torch.nn.Module()
        self.layer.step = torch.nn.Parameter(torch.ones(4))

    type("Stepped", (Adapter,), dict(kind="stepped", make_parameters=make_parameters))
    adapter = Adapter.create("stepped", 4)
    adapter.contract = Contract("org/model", 4, Site.after(2), tiny_prompt)
    with pytest.raises(InterpToolkitError, match=r"that end in \.step.*give the parameter layer\.step another"):
        adapter.save_pretrained(tmp_path / "a")


def test_the_program_of_the_documents_runs(registry, unchecked):
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    (program,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "(Adapter)" in code]
    names = {"__name__": "my_program"}
    exec(program, names)
    assert names["soft_tokens"].shape == (3, 576)
