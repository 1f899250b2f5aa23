"""Damaged files of every kind that is read: each is refused with its name, or read as something that could be meant."""

import contextlib
import gzip
import hashlib
import json
import random
import resource
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import make_sae
from mutations import (
    ODD,
    damage_bytes,
    damage_header,
    damage_json,
    damage_json_lines,
    damage_table,
    damage_yaml,
    gzipped,
)
from safetensors.torch import load_file, save_file

from interp_toolkit import Adapter, InterpToolkitError, Site, SoftPrompt, VectorLabelPairs, read_topics
from interp_toolkit.adapters import read_mean_vectors, write_mean_vectors
from interp_toolkit.bridges.twohop import read_aliases, read_twohop
from interp_toolkit.contract import Contract, EvidenceThreshold, ModelFacts
from interp_toolkit.sae import labels as read_labels
from interp_toolkit.sae import load as load_sae
from interp_toolkit.sae.loading import read_activation_rates
from interp_toolkit.sae.passages import read_passages
from interp_toolkit.sae.recipe import SAERecipe
from interp_toolkit.sae.training import _halve
from interp_toolkit.training.recipe import Recipe
from interp_toolkit.views import results_report

D = 12
_SECONDS = 20
# Memory that one file may take beside what the process has.
_MEMORY = 2**31


@dataclass
class Kind:
    """A kind of file.

    Attributes:
        write: makes one at a path.
        name: of the file or folder.
        read: what reads it.
        value: of what was read, something to compare; raises where it is not what it should be.
        damage: for each file in it what may befall it.
        exact: whether anything but what was written must be refused.
    """

    write: Any
    name: str
    read: Any
    value: Any
    damage: dict[str, list[Any]] = field(default_factory=dict)
    exact: bool = False


class _TooLong(BaseException):
    pass


def _adapter(kind="scalar_affine_low_rank", mean=True):
    adapter = Adapter.create(kind, D, **({"rank": 3} if "low_rank" in kind else {})).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    facts = ModelFacts("org/m", "abc", "0123456789abcdef", D, 30)
    offset = torch.randn(D, generator=generator) if mean else None
    adapter.contract = Contract.from_facts(facts, Site.after(19), SoftPrompt.preset("llama-3.1"), offset, True)
    object.__setattr__(adapter.contract, "threshold", EvidenceThreshold(1.5, 0.05, 100, 0))
    adapter.metadata = {"note": "kept"}
    return adapter


def _adapter_value(adapter):
    contract = adapter.contract
    assert adapter.config.d_model >= 1
    assert all(torch.isfinite(value).all() for value in adapter.state_dict().values())
    mean = None if contract.mean is None else contract.mean.tolist()
    return adapter.digest, json.dumps([contract.to_dict(), adapter.metadata], sort_keys=True, default=str), mean


def _old_adapter(path):
    _adapter().save_pretrained(path)
    config = path / "adapter_config.json"
    described = json.loads(config.read_text())
    described.pop("sha256")
    config.write_text(json.dumps(described, indent=2))
    save_file(load_file(path / "adapter_model.safetensors"), path / "adapter_model.safetensors")


def _pairs():
    vectors = torch.randn(6, D, generator=torch.Generator().manual_seed(1))
    labels = [["cat", "feline"], ["dog"], ["fox"], ["São Paulo"], ["a"], ["b"]]
    return VectorLabelPairs.from_tensors(
        vectors, labels, site=3, mean=torch.ones(D), origin={"model": "m"}, val_fraction=0.5
    )


def _pairs_value(pairs):
    numbers = hashlib.sha256(pairs.vectors.numpy().tobytes()).hexdigest()
    mean = None if pairs.mean is None else pairs.mean.tolist()
    repr(pairs.origin)
    return (
        numbers,
        mean,
        pairs.labels,
        pairs.splits,
        pairs.weights,
        str(pairs.site),
        str(pairs.sources),
        pairs.source_of,
    )


def _old_pairs(path):
    _pairs().save(path)
    origin = json.loads((path / "origin.json").read_text())
    origin.pop("sha256")
    (path / "origin.json").write_text(json.dumps(origin))
    save_file(load_file(path / "vectors.safetensors"), path / "vectors.safetensors")


def _published_pairs(path):
    path.mkdir()
    torch.save(torch.randn(6, D), path / "v.pt")
    metadata = dict(dataset_name="topics", filename="v.pt", layer=3, source="wiki", vector_type="contrastive")
    rows = [dict(index=4, labels=["cat", "feline"], split="train"), dict(index=0, labels=["dog"], split="val")]
    (path / "p.json").write_text(json.dumps([dict(metadata=metadata, vectors=rows)]))


def _text(content):
    def write(path):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(content.encode(), mtime=0))
        else:
            path.write_text(content, encoding="utf-8")

    return write


def _lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


_EXPORT = [
    dict(index=str(i), description=f"label {i}", explanationModelName="m", modelId="g", layer="20-res", split="train")
    for i in range(12)
]
_TOPICS = [
    dict(
        title="Łódź" if i == 3 else f"Topic {i}",
        split="val" if i % 4 == 0 else "train",
        descriptions=["a", {"description": "b"}],
    )
    for i in range(12)
]
_COMPOSED = [
    dict(type="capital of->currency of", e1=f"City {i}", e2="Poland", e3="złoty", e2_aliases=["PL1"], e3_aliases=["zl"])
    | dict(hop1_prompt="Warsaw is the capital of", hop2_prompt="Its currency is", twohop_prompt="The currency is")
    for i in range(6)
]
_MQUAKE = [
    dict(
        bridge="King", answer="US", hop1_phrase="the author of Misery", hop2_cloze="King is from", twohop_cloze="It is"
    )
    for _ in range(6)
]
_RUN = dict(
    output="out",
    adapter=dict(kind="low_rank", rank=4, init_scale=5.0),
    model="m",
    topics=dict(titles="t.txt", site="blocks.2.hook_resid_post", train=10, val=2, seed=1),
    soft_prompt=dict(question='What is "{slot}"?', site="hook_embed", mode="replace"),
    training=dict(lr=0.01, epochs=2, frozen=["bias"], max_steps=None, tracker=None),
)
_SAE_RUN = dict(output="x", passages="p.jsonl", site="blocks.2.hook_resid_post", context=24, sae=dict(features=40, k=4))
_RESULT = dict(
    settings=dict(task="abstention", adapter="abc", samples=6),
    tables=dict(
        coverage=[dict(coverage=c, accuracy=1 - c / 2, low=0.4, high=1.0, n=10, right="within 1") for c in (0.5, 1.0)],
        knowledge=[
            dict(measure="recall@1", source="a", parameters=s, value=0.5, low=0.4, high=0.6) for s in (1e8, 1e9)
        ],
    ),
    own={"recall@1": [0.4, 0.3, 0.5]},
)
_EVENTS = [dict(event="step", step=i, loss=3.0 - i / 10, val_loss=2.0) for i in range(8)]


def _save_sae(path):
    make_sae("topk", width=D, features=20).save_model(path)
    save_file({"sparsity": torch.linspace(-4, -1, 20)}, path / "sparsity.safetensors")


def _trained_sae(path):
    """As `sae.train` writes one: with a digest."""
    _save_sae(path)
    _halve(path)


def _read_sae(path):
    return load_sae(path), read_activation_rates(path)


def _sae_value(read):
    sae, rates = read
    assert torch.isfinite(sae.W_enc).all()
    assert rates is None or torch.isfinite(rates).all()
    return sae.W_dec.shape, str(sae.W_dec.tolist()), None if rates is None else rates.tolist()


def _published(path):
    _adapter(mean=False).save_published(path)


def _damage_checkpoint(data, rng):
    """A ``.pt`` file of an adapter with one value exchanged."""
    import io

    checkpoint = torch.load(io.BytesIO(data), weights_only=True)
    odd = [torch.zeros(0), torch.ones(1).expand(10**9), torch.ones(3, dtype=torch.int8), torch.ones(2, 2).to_sparse()]
    place = rng.choice(
        (checkpoint, checkpoint["projection_state"], checkpoint["config"], checkpoint["config"]["projection"])
    )
    key = rng.choice(sorted(place))
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice([x for x in ODD if not isinstance(x, bytes)] + odd)
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


def _topics_value(topics):
    assert topics.titles
    assert all(isinstance(title, str) and title.strip() for title in topics.titles)
    assert all(isinstance(label, str) and label.strip() for labels in topics.labels for label in labels)
    json.dumps([topics.titles, topics.labels, topics.splits], ensure_ascii=False).encode()
    return topics


def _labels_value(labels):
    assert len(labels)
    labels.by_feature()
    assert all(isinstance(text, str) and text.strip() for text in labels.table["label"])
    json.dumps(labels.table["label"].tolist(), ensure_ascii=False).encode()
    return labels.features


def _plain(value):
    return json.dumps(value, default=str)


def _recipe_value(recipe):
    assert isinstance(recipe.output, str)
    return repr(recipe)


_BYTES = damage_bytes
_JSON = [_BYTES, damage_json, damage_json]
_LINES = [_BYTES, damage_json_lines, damage_json_lines]
_TENSORS = [_BYTES, _BYTES, damage_header]
_GZ_LINES = [_BYTES, gzipped(_BYTES), gzipped(damage_json_lines)]
_OWN = {"adapter_config.json": _JSON, "adapter_model.safetensors": _TENSORS}
_FOLDER = {"vectors.safetensors": _TENSORS, "origin.json": _JSON}

KINDS = {
    "published adapter": Kind(_published, "x.safetensors", Adapter.from_pretrained, _adapter_value, {"": _TENSORS}),
    "checkpoint of an adapter": Kind(
        _published, "x.pt", Adapter.from_pretrained, _adapter_value, {"": [_BYTES]}, exact=True
    ),
    "values of a checkpoint": Kind(
        _published, "x.pt", Adapter.from_pretrained, _adapter_value, {"": [_damage_checkpoint]}
    ),
    "adapter": Kind(
        lambda path: _adapter().save_pretrained(path), "a", Adapter.from_pretrained, _adapter_value, _OWN, exact=True
    ),
    "adapter of 0.1": Kind(_old_adapter, "a", Adapter.from_pretrained, _adapter_value, _OWN),
    "pairs": Kind(
        lambda path: _pairs().save(path),
        "p",
        VectorLabelPairs.load,
        _pairs_value,
        {**_FOLDER, "labels.parquet": [_BYTES]},
        exact=True,
    ),
    "pairs of 0.1": Kind(_old_pairs, "p", VectorLabelPairs.load, _pairs_value, _FOLDER),
    "published pairs": Kind(
        _published_pairs,
        "p",
        lambda path: VectorLabelPairs.from_json(path / "p.json"),
        _pairs_value,
        {"p.json": _JSON, "v.pt": [_BYTES]},
    ),
    "labels, list": Kind(_text(json.dumps(_EXPORT)), "l.json", read_labels, _labels_value, {"": _JSON}),
    "labels, list, gzip": Kind(
        _text(json.dumps(_EXPORT)), "l.json.gz", read_labels, _labels_value, {"": [_BYTES, gzipped(damage_json)]}
    ),
    "labels, lines": Kind(_text(_lines(_EXPORT)), "l.jsonl.gz", read_labels, _labels_value, {"": _GZ_LINES}),
    "labels, mapping": Kind(
        _text(json.dumps({str(i): ["a", f"b{i}"] for i in range(9)})), "l.json", read_labels, _labels_value, {"": _JSON}
    ),
    "labels, published": Kind(
        _published_pairs, "p", lambda path: read_labels(path / "p.json"), _labels_value, {"p.json": _JSON}
    ),
    "titles, text": Kind(_text("Rivers\nŁódź\nPoland\n"), "t.txt", read_topics, _topics_value, {"": [_BYTES]}),
    "titles, lines": Kind(_text(_lines(_TOPICS)), "t.jsonl", read_topics, _topics_value, {"": _LINES}),
    "titles, gzip": Kind(_text(_lines(_TOPICS)), "t.jsonl.gz", read_topics, _topics_value, {"": _GZ_LINES}),
    "titles, table": Kind(
        _text('title,split\nRivers,train\n"Paris, Texas",val\nPoland,train\n'),
        "t.csv",
        read_topics,
        _topics_value,
        {"": [_BYTES, damage_table]},
    ),
    "training run": Kind(
        _text(yaml.safe_dump(_RUN)), "run.yaml", Recipe.read, _recipe_value, {"": [_BYTES, damage_yaml]}
    ),
    "recipe of an SAE": Kind(
        _text(yaml.safe_dump(_SAE_RUN)), "sae.yaml", SAERecipe.read, _recipe_value, {"": [_BYTES, damage_yaml]}
    ),
    "results": Kind(_text(json.dumps(_RESULT)), "r.json", lambda path: results_report([path]).body, len, {"": _JSON}),
    "training log": Kind(
        _text(_lines(_EVENTS)), "log.jsonl", lambda path: results_report([path]).body, len, {"": _LINES}
    ),
    "mean vectors": Kind(
        lambda path: write_mean_vectors(path, {3: torch.ones(D), 19: torch.arange(D).float()}, "org/m"),
        "m.safetensors",
        read_mean_vectors,
        lambda means: [(layer, bool(torch.isfinite(value).all())) for layer, value in means.items()],
        {"": _TENSORS},
    ),
    "two-hop questions": Kind(_text(_lines(_COMPOSED)), "q.jsonl.gz", read_twohop, _plain, {"": _GZ_LINES}),
    "two-hop questions of MQuAKE": Kind(_text(_lines(_MQUAKE)), "q.jsonl", read_twohop, _plain, {"": _LINES}),
    "aliases": Kind(
        _text(_lines([dict(label=f"Name {i}", aliases=["a1", "b2"]) for i in range(5)])),
        "a.jsonl",
        read_aliases,
        _plain,
        {"": _LINES},
    ),
    "passages": Kind(
        _text(_lines([dict(text=f"text {i}", genre="web", split="train") for i in range(9)])),
        "p.jsonl.gz",
        read_passages,
        lambda frame: frame["text"].str.len().sum(),
        {"": _GZ_LINES},
    ),
    "SAE": Kind(
        _save_sae,
        "sae",
        _read_sae,
        _sae_value,
        {"cfg.json": _JSON, "sae_weights.safetensors": _TENSORS, "sparsity.safetensors": _TENSORS},
    ),
    "SAE, trained here": Kind(
        _trained_sae, "sae", _read_sae, _sae_value, {"sae_weights.safetensors": [damage_bytes]}, exact=True
    ),
}
FULL = -(-5000 // len(KINDS))


@contextlib.contextmanager
def _bounded():
    """Stop a read that takes too long, and refuse memory beyond what a small file can need."""

    def stop(*_):
        raise _TooLong

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _fuzz(name, folder, numbers):
    """How many damaged files of a kind were refused, read as they had been, and read as something else."""
    kind = KINDS[name]
    good, bad = folder / "good" / kind.name, folder / "bad" / kind.name
    for parent in (good.parent, bad.parent):
        parent.mkdir()
    kind.write(good)
    whole = kind.value(kind.read(good))
    counts = dict(refused=0, same=0, other=0)
    for number in numbers:
        rng = random.Random(f"{name} {number}")
        (shutil.rmtree if bad.is_dir() else Path.unlink)(bad) if bad.exists() else None
        (shutil.copytree if good.is_dir() else shutil.copy)(good, bad)
        part = rng.choice(sorted(kind.damage))
        file = bad / part if part else bad
        damaged = rng.choice(kind.damage[part])(file.read_bytes(), rng)
        file.unlink()  # what is mapped from an earlier file stays as it was
        file.write_bytes(damaged)
        value, refusal = None, None
        try:
            with _bounded():
                value = kind.value(kind.read(bad))
        except InterpToolkitError as error:
            refusal = str(error)
        except (_TooLong, Exception) as error:
            raise AssertionError(f"{name} {number}: {type(error).__name__}: {error}") from error
        if refusal is None:
            counts["same" if value == whole else "other"] += 1
            assert value == whole or not kind.exact, f"{name} {number}: damage in {file.name} was not seen"
        else:
            counts["refused"] += 1
            assert str(bad) in refusal, f"{name} {number}: the file is not named: {refusal}"
            assert len(refusal) < 1500, f"{name} {number}: {refusal[:300]}"
    return counts


@pytest.fixture(autouse=True)
def _sae_lens(request):
    if request.node.callspec.params["name"].startswith("SAE"):
        pytest.importorskip("sae_lens")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_by_name_or_read(name, tmp_path, unchecked):
    counts = _fuzz(name, tmp_path, range(40))
    assert counts["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_five_thousand_damaged_files(name, tmp_path, unchecked):
    print(f"\n{name}: {_fuzz(name, tmp_path, range(40, 40 + FULL))}")
