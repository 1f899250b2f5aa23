"""From a corpus to an SAE: passages, stored activations, training that goes on, and quality."""

import gzip
import json
from collections import Counter

import pytest
import torch
from conftest import make_sae

from interp_toolkit import read_activations
from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sae import (
    SAEConfig,
    SAERecipe,
    TokenRows,
    check_sae,
    feature_activations,
    feature_quantiles,
    read_passages,
    sae_digest,
    sae_quality,
    sae_vectors,
    store_activations,
    token_rows,
)
from interp_toolkit.sae import (
    train as train_sae,
)
from interp_toolkit.sites import Site

pytest.importorskip("sae_lens")

SITE = Site.after(2)
TEXTS = [f"Tell me about {a} and the history of {b}." for a in ("rivers", "cats", "a fox") for b in "abcdefgh"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("interp_toolkit.sae.store._ROWS", 3)
    monkeypatch.setattr("interp_toolkit.sae.store._MIXED", 2)


@pytest.fixture
def store(tiny, small_shards):
    rows = token_rows(tiny().tokenizer, TEXTS, context=24)
    return store_activations(tiny(), rows, SITE)[SITE]


def _write(path, rows):
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def test_passages_are_read(tmp_path):
    path = tmp_path / "passages.jsonl.gz"
    _write(path, [dict(text=f"text {i}", genre="web", split="eval" if i % 3 == 0 else "train") for i in range(9)])
    assert read_passages(path)["text"].tolist() == [f"text {i}" for i in range(9)]
    held = read_passages(path, "eval")
    assert held["text"].tolist() == ["text 0", "text 3", "text 6"]
    assert list(held.columns) == ["text", "genre", "subgenre", "source", "title", "split"]
    assert set(held["genre"]) == {"web"}
    assert set(held["title"]) == {""}
    assert len(read_passages(path, "train", limit=2)) == 2


def test_passages_that_cannot_be_read(tmp_path):
    path = tmp_path / "passages.jsonl.gz"
    with pytest.raises(FileFormatError, match="expected a file of passages at .* and there is none"):
        read_passages(path)
    _write(path, [])
    with pytest.raises(InterpToolkitError, match="expected at least one passage in .*, which has 0 lines; got none"):
        read_passages(path)
    _write(path, [dict(text="a", split="train")])
    with pytest.raises(InterpToolkitError, match="at least one passage of split 'eval' in .*, which has 1 lines"):
        read_passages(path, "eval")
    _write(path, [dict(text=f"text {i}") for i in range(500)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match=r"passages\.jsonl\.gz is damaged after line \d+"):
        read_passages(path)
    _write(path, [dict(text="a"), dict(title="b")])
    with pytest.raises(FileFormatError, match="line 2: expected a JSON object with a 'text'"):
        read_passages(path)


def test_long_texts_go_on_in_further_rows(tiny_tokenizer):
    texts = ["a b c d e f g h i j k l m n o p", "cats", ""]
    rows = token_rows(tiny_tokenizer, texts, context=6)
    bos = tiny_tokenizer.bos_token_id
    assert {row[0] for row in rows.ids} == {bos}
    assert max(map(len, rows.ids)) == 6
    for number, text in enumerate(texts[:2]):
        own = [token for row, passage in zip(rows.ids, rows.passage) if passage == number for token in row[1:]]
        assert own == tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert set(rows.passage) == {0, 1}
    assert rows.tokens == sum(len(row) - 1 for row in rows.ids)
    for nothing in ([], [""]):
        with pytest.raises(InterpToolkitError, match="expected texts with at least one token"):
            token_rows(tiny_tokenizer, nothing)


def test_stored_activations_are_those_of_the_model(tiny, backend, small_shards):
    model = tiny("llama", backend)
    rows = token_rows(model.tokenizer, TEXTS[:7], context=24)
    stores = store_activations(model, rows, [SITE, Site.after(0)])
    for site, store in stores.items():
        held = [own for _, vectors in store.shards() for own in vectors]
        assert [number for numbers, _ in store.shards() for number in numbers] == list(range(len(rows)))
        for row, own in zip(rows.ids, held):
            # Each row alone: nothing of padding, nor of the first position.
            alone = read_activations(model, [list(row)], site, "all").vectors
            assert torch.allclose(own, alone[1:], atol=1e-4)
    assert stores[SITE].tokens == rows.tokens
    assert stores[SITE].tokens_per_second > 0


def test_a_store_goes_on_and_reads_nothing_twice(tiny, small_shards, monkeypatch):
    rows = token_rows(tiny().tokenizer, TEXTS[:8], context=24)
    read = []

    def stopping(model, ids, sites, positions):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(ids))
        return read_activations(model, ids, sites, positions)

    with monkeypatch.context() as patch:
        patch.setattr("interp_toolkit.sae.store.read_activations", stopping)
        with pytest.raises(KeyboardInterrupt):
            store_activations(tiny(), rows, SITE)
    counted = []
    monkeypatch.setattr(
        "interp_toolkit.sae.store.read_activations", lambda *a: (counted.append(1), read_activations(*a))[1]
    )
    store = store_activations(tiny(), rows, SITE)[SITE]
    shards = -(-len(rows) // 3)
    assert len(counted) == shards - 2
    again = store_activations(tiny(), rows, SITE)[SITE]
    assert len(counted) == shards - 2
    assert (again.tokens_per_second, again.digest) == (None, store.digest)
    # A damaged shard is read anew, and a sentence says so before it is needed.
    file = store.files[0]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(FileFormatError, match="shard 0 of the activation store is missing or damaged"):
        next(store.shards())
    store_activations(tiny(), rows, SITE)
    assert len(counted) == shards - 1
    # So is one in which a single bit is not as it was written.
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(FileFormatError, match="shard 0 of the activation store is missing or damaged"):
        next(store.shards())
    store_activations(tiny(), rows, SITE)
    assert len(counted) == shards
    with pytest.raises(InterpToolkitError, match="the model has 4 layers"):
        store_activations(tiny(), rows, 9)


def _counts(vectors):
    # Texts that begin alike have vectors alike.
    return Counter(tuple(row.tolist()) for row in vectors)


def test_batches_pass_over_everything_in_another_order_each_time(store):
    whole = torch.cat([own for _, vectors in store.shards() for own in vectors])
    size = 5
    stream = store.batches(size, seed=1)
    first = [next(stream) for _ in range(40)]
    assert all(batch.shape == (size, 32) for batch in first)
    again = store.batches(size, seed=1)
    assert all(torch.equal(next(again), batch) for batch in first)
    assert not torch.equal(next(store.batches(size, seed=2)), first[0])
    for skip in (1, 7, 39):
        assert torch.equal(next(store.batches(size, seed=1, skip=skip)), first[skip])
    # One epoch leaves out less than a batch a group of shards.
    groups = max(1, len(store.files) // 2)
    epoch = [next(stream) for stream in [store.batches(size, seed=1)] for _ in range(len(whole) // size - groups)]
    assert len(epoch) > 40
    assert _counts(torch.cat(epoch)) <= _counts(whole)
    with pytest.raises(InterpToolkitError, match="at least one batch of 100000 vectors in the store"):
        next(store.batches(100_000))


def test_samples_are_of_all_tokens(store):
    whole = torch.cat([own for _, vectors in store.shards() for own in vectors])
    some = store.sample(50, seed=1)
    assert len(some) == 50
    assert _counts(some) <= _counts(whole)
    assert torch.equal(some, store.sample(50, seed=1))
    assert torch.equal(store.sample(10**6), whole)


CONFIG = SAEConfig(features=40, k=4, batch_size=32, tokens=32 * 60, lr=3e-3, warmup_steps=5, checkpoint_every=20)


@pytest.fixture
def trained(tiny, store, tmp_path):
    return train_sae(store, CONFIG, tmp_path / "run", facts=model_facts(tiny()))


def test_an_sae_is_trained(tiny, store, trained, tmp_path):
    facts = check_sae(trained, tiny())
    assert (facts.architecture, facts.site, facts.features, facts.width) == ("topk", SITE, 40, 32)
    assert facts.fingerprint == model_facts(tiny()).fingerprint
    x = store.sample(10**6)
    assert int((trained.encode(x) > 0).sum(1).max()) <= 4
    explained = 1 - (x - trained(x)).square().sum() / (x - x.mean(0)).square().sum()
    # The best that four features could do by chance is far below; the mean alone gives 0.
    assert explained > 0.3
    # What it takes are activations as they are, and its rows have length one.
    assert trained.cfg.normalize_activations == "none"
    assert torch.allclose(trained.W_dec.norm(dim=1), torch.ones(40), atol=1e-3)
    assert not (tmp_path / "run" / "checkpoint").exists()
    firing = (trained.encode(x) > 0).any(0)
    assert (firing & ~sae_vectors(tmp_path / "run" / "sae").dead).any()


def test_training_goes_on_to_the_same_result(tiny, store, trained, tmp_path, monkeypatch):
    from sae_lens.training.sae_trainer import SAETrainer

    steps, step = [], SAETrainer.step

    def stopping(self, batch):
        if len(steps) == 50:
            raise KeyboardInterrupt
        steps.append(1)
        return step(self, batch)

    folder, facts = tmp_path / "stopped", model_facts(tiny())
    with monkeypatch.context() as patch:
        patch.setattr(SAETrainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_sae(store, CONFIG, folder, facts=facts)
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]
    counted = []
    monkeypatch.setattr(SAETrainer, "step", lambda self, batch: (counted.append(1), step(self, batch))[1])
    assert sae_digest(train_sae(store, CONFIG, folder, facts=facts)) == sae_digest(trained)
    assert len(counted) == 20
    # What is there is not trained again, and another run does not take its place.
    assert sae_digest(train_sae(store, CONFIG, folder, facts=facts)) == sae_digest(trained)
    assert len(counted) == 20
    with pytest.raises(InterpToolkitError, match="holds an SAE of other settings or activations"):
        train_sae(store, SAEConfig(features=41, k=4, batch_size=32), folder, facts=facts)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_takes_gradients_whatever_the_callers_mode(tiny, store, trained, tmp_path, mode):
    with mode():
        again = train_sae(store, CONFIG, tmp_path / "again", facts=model_facts(tiny()))
        assert not torch.is_grad_enabled()
    assert sae_digest(again) == sae_digest(trained)


def test_settings_that_cannot_be(unchecked):
    for wrong, text in (
        (dict(k=0), "k of at least 1"),
        (dict(features=3, k=4), "k of at most the 3 features"),
        (dict(tokens=5), "tokens for at least one batch of 2048, got 5"),
        (dict(lr=0.0), "lr above 0"),
    ):
        with pytest.raises(InterpToolkitError, match=text):
            SAEConfig(**wrong)


@pytest.fixture
def own(tiny):
    """An SAE that says it is of the tiny model."""
    return lambda **more: make_sae(**(dict(architecture="standard", model_name=model_facts(tiny()).model_id) | more))


def _perfect(sae):
    """Make a standard SAE give back what it takes: a feature for each end of each axis."""
    with torch.no_grad():
        eye = torch.eye(32)
        sae.W_enc.copy_(torch.cat([eye, -eye], 1))
        sae.W_dec.copy_(torch.cat([eye, -eye]))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae


def test_quality_of_an_sae_that_keeps_everything(tiny, backend, own):
    model = tiny("llama", backend)
    rows = token_rows(model.tokenizer, TEXTS[:6], context=24)
    actual = sae_quality(model, _perfect(own(features=64)), rows).set_index("metric")
    value = actual["value"]
    assert value["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert value["l0"] == pytest.approx(32)
    assert value["loss_spliced"] == pytest.approx(value["loss_clean"], abs=1e-4)
    assert value["loss_recovered"] == pytest.approx(1, abs=1e-2)
    assert value["loss_zero"] != pytest.approx(value["loss_clean"], abs=1e-3)
    assert (actual["n"] == 6).all()
    result = actual.drop("dead_share")
    assert ((result["low"] <= result["value"] + 1e-9) & (result["value"] <= result["high"] + 1e-9)).all()


def test_the_losses_are_the_models_own(tiny, tiny_hf, own):
    rows = token_rows(tiny().tokenizer, TEXTS[:4], context=24)
    actual = sae_quality(tiny(), own(), rows).set_index("metric")["value"]
    total, count = 0.0, 0
    for row in rows.ids:
        logits = tiny_hf("llama")(torch.tensor([row])).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits[1:-1], torch.tensor(row[2:]), reduction="sum"))
        count += len(row) - 2
    assert actual["loss_clean"] == pytest.approx(total / count, abs=1e-4)


def test_quality_of_an_sae_that_keeps_nothing(tiny, own):
    sae = own()
    with torch.no_grad():
        for value in sae.parameters():
            value.zero_()
        sae.b_enc.fill_(-1)
    actual = sae_quality(tiny(), sae, token_rows(tiny().tokenizer, TEXTS[:4], context=24)).set_index("metric")["value"]
    assert actual["loss_spliced"] == pytest.approx(actual["loss_zero"], abs=1e-5)
    assert actual["loss_recovered"] == pytest.approx(0, abs=1e-4)
    assert (actual["l0"], actual["dead_share"]) == (0, 1)
    assert actual["explained_variance"] < 0


def test_quality_refuses_another_models_sae(tiny, own):
    with pytest.raises(ContractError, match="trained on another model"):
        sae_quality(tiny(), own(model_name="gemma-2-2b"), TokenRows(((1, 5, 6),), (0,)))


def test_activations_of_features_on_texts(tiny, backend, own):
    model, sae = tiny("llama", backend), own(architecture="topk")
    rows = token_rows(model.tokenizer, TEXTS[:5], context=24).ids
    actual = feature_activations(model, sae, rows, [3, 40])
    for row, acts in zip(rows, actual):
        alone = sae.encode(read_activations(model, [list(row)], SITE, "all").vectors)[:, [3, 40]]
        assert acts.shape == (len(row), 2)
        assert torch.allclose(acts[1:], alone[1:], atol=1e-3)
        assert (acts[0] == 0).all()
    with pytest.raises(InterpToolkitError, match="feature 99 does not exist"):
        feature_activations(model, sae, rows, [99])
    with pytest.raises(InterpToolkitError, match="row 1 has no tokens"):
        feature_activations(model, sae, [rows[0], ()], [3])


def test_quantiles_are_each_features_own(own):
    sae = _perfect(own(features=64))
    x = torch.zeros(100, 32)
    x[:, 0] = torch.arange(100.0)
    x[:10, 1] = 5
    actual = feature_quantiles(sae, x, [0, 1, 32], share=0.95)
    assert actual.tolist() == [94, 5, 0]
    assert (x[:, 0] > actual[0]).float().mean() == pytest.approx(0.05)
    with pytest.raises(InterpToolkitError, match="expected vectors and a share from 0 to 1, got 0 vectors"):
        feature_quantiles(sae, x[:0], [0])


def test_a_recipe_runs_the_whole_way(tiny, tmp_path):
    _write(
        tmp_path / "p.jsonl.gz", [dict(text=x, split="eval" if i % 4 == 0 else "train") for i, x in enumerate(TEXTS)]
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"output: {tmp_path / 'out'}\npassages: p.jsonl.gz\nsite: blocks.2.hook_resid_post\ncontext: 24\neval: 4\n"
        "top_examples: 3\nsae: {features: 40, k: 4, batch_size: 32, tokens: 640}\n"
    )
    recipe = SAERecipe.read(path)
    result = recipe.run(tmp_path, tiny())
    assert result.tokens_per_second > 0
    assert result.quality["n"].unique().tolist() == [4]
    assert len(result.top_examples.features) == 40
    again = recipe.run(tmp_path, tiny())
    assert again.tokens_per_second is None
    assert again.quality.equals(result.quality)
    train = recipe.rows(tiny().tokenizer, tmp_path, "train")
    assert not set(train.ids) & set(recipe.rows(tiny().tokenizer, tmp_path, "eval").ids)
    path.write_text("output: x\npassages: p\nsite: blocks.2.hook_resid_post\nsae: {featurs: 3}\n")
    with pytest.raises(InterpToolkitError, match="unknown key 'featurs' in 'sae'"):
        SAERecipe.read(path)
    with pytest.raises(FileFormatError, match="could not read the recipe of an SAE"):
        SAERecipe.read(tmp_path / "none.yaml")
