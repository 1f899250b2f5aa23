"""The best contexts of every feature, against a search of all activations at once."""

import pytest
import torch
from conftest import make_sae
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.sae import TopExamples, find_top_examples, sae_vectors, store_activations, token_rows
from interp_toolkit.sites import Site

SITE = Site.after(2)
TEXTS = [f"Tell me about {a} and the history of {b}." for a in ("rivers", "cats", "a fox") for b in "abcdefgh"]
SIZES = dict(count=4, before=3, after=2, pool=6)


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("interp_toolkit.sae.store._ROWS", 3)
    monkeypatch.setattr("interp_toolkit.sae.search._TOKENS", 40)


@pytest.fixture
def sae(tiny):
    made = make_sae("topk", model_name=model_facts(tiny()).model_id)
    with torch.no_grad():
        made.b_enc[5] = -1e6  # a feature that never fires
    return made


@pytest.fixture
def store(tiny):
    return store_activations(tiny(), token_rows(tiny().tokenizer, TEXTS, context=24), SITE)[SITE]


def test_contexts_are_the_best_of_all(tiny, sae, store, tmp_path):
    contexts = find_top_examples(sae, store, tmp_path / "c.safetensors", tiny().tokenizer, **SIZES)
    shards = store.shards()
    acts = {number: sae.encode(own).detach() for numbers, read in shards for number, own in zip(numbers, read)}
    for feature in range(48):
        highest = {row: float(own[:, feature].max()) for row, own in acts.items()}
        expected = sorted((value for value in highest.values() if value > 0), reverse=True)[:4]
        actual = contexts.get(feature)
        assert actual["value"].tolist() == pytest.approx(expected, abs=1e-4)
        assert actual["rank"].tolist() == list(range(len(expected)))
        assert actual["row"].is_unique
        for result in actual.itertuples():
            ids, own = store.rows.ids[result.row], acts[result.row][:, feature]
            assert result.value == pytest.approx(highest[result.row], abs=1e-4)
            assert result.passage == store.rows.passage[result.row]
            end = result.start + len(result.token_ids)
            assert result.token_ids == ids[result.start : end]
            assert result.activations == pytest.approx(own[result.start - 1 : end - 1].tolist(), abs=1e-4)
            assert result.activations[result.peak] == pytest.approx(result.value)
            # As wide as asked, short only at the ends of a row; the first token is in no window.
            assert result.start == max(1, result.start + result.peak - 3)
            assert end == min(len(ids), result.start + result.peak + 3)
            assert "".join(result.tokens) == result.text == tiny().tokenizer.decode(list(result.token_ids))
    joined = torch.cat(list(acts.values()))
    assert contexts.features["active_tokens"].tolist() == (joined > 0).sum(0).tolist()
    assert contexts.features["max"].tolist() == pytest.approx(joined.amax(0).tolist(), abs=1e-4)
    assert contexts.features["rate"].tolist() == pytest.approx((joined > 0).float().mean(0).tolist())
    mean = joined.sum(0) / (joined > 0).sum(0).clamp(min=1)
    assert contexts.features["mean"].tolist() == pytest.approx(mean.tolist(), rel=1e-3)


def test_a_feature_that_never_fires_is_a_named_row(tiny, sae, store, tmp_path):
    contexts = find_top_examples(sae, store, tmp_path / "c.safetensors", tiny().tokenizer, **SIZES)
    assert len(contexts.get(5)) == 0
    assert list(contexts.get(5).columns) == list(contexts.get(6).columns)
    result = contexts.features.set_index("feature").loc[5]
    assert (result["active_tokens"], result["rate"], result["max"]) == (0, 0, 0)
    assert sae_vectors(sae, [5], activation_rates=contexts.activation_rates).dead.tolist() == [True]
    with pytest.raises(InterpToolkitError, match="feature 48 does not exist"):
        contexts.get(48)
    assert len(contexts.get(6, 2)) == min(2, len(contexts.get(6)))


def test_silent_windows_hold_nothing_of_the_feature(tiny, sae, store, tmp_path):
    contexts = find_top_examples(sae, store, tmp_path / "c.safetensors", tiny().tokenizer, **SIZES)
    actual = {feature: contexts.inactive(feature, 4) for feature in range(48)}
    assert len(actual[5]) == 4  # a dead feature is silent everywhere
    vectors = {number: own for numbers, parts in store.shards() for number, own in zip(numbers, parts)}
    seen = 0
    for feature, table in actual.items():
        for result in table.itertuples():
            end = result.start + len(result.token_ids)
            assert result.token_ids == store.rows.ids[result.row][result.start : end]
            assert (sae.encode(vectors[result.row])[result.start - 1 : end - 1, feature] == 0).all()
            assert set(result.activations) == {0.0}
            seen += 1
        # As many as there are: the windows of the pool in which it fires are missing.
    assert seen > 48
    assert actual[5].equals(contexts.inactive(5, 4))
    assert not actual[5].equals(contexts.inactive(5, 4, seed=1))


def test_a_search_goes_on_to_the_same_result(tiny, sae, store, tmp_path, monkeypatch):
    whole = find_top_examples(sae, store, tmp_path / "a.safetensors", tiny().tokenizer, **SIZES)
    monkeypatch.setattr("interp_toolkit.sae.search._SAVE_EVERY", 2)
    read, shards = [], type(store).shards
    unfinished = tmp_path / "cache" / "searches"

    def stopping(self, start=0):
        for number, shard in enumerate(shards(self, start), start):
            if number == 5:
                raise KeyboardInterrupt
            read.append(number)
            yield shard

    path = tmp_path / "b.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "shards", stopping)
        with pytest.raises(KeyboardInterrupt):
            find_top_examples(sae, store, path, tiny().tokenizer, **SIZES)
    assert not path.exists()
    assert len(list(unfinished.iterdir())) == 1
    started = []
    monkeypatch.setattr(type(store), "shards", lambda self, start=0: (started.append(start), shards(self, start))[1])
    other = find_top_examples(sae, store, path, tiny().tokenizer, **SIZES)
    assert started == [4]
    before, after = load_file(tmp_path / "a.safetensors"), load_file(path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    assert other.features.equals(whole.features)
    assert sorted(x.name for x in tmp_path.glob("*.safetensors")) == ["a.safetensors", "b.safetensors"]
    assert not list(unfinished.iterdir())
    # The file of the same search is opened, that of another is not replaced.
    find_top_examples(sae, store, path, tiny().tokenizer, **SIZES)
    assert started == [4]
    with pytest.raises(InterpToolkitError, match="holds other examples; name another file"):
        find_top_examples(make_sae("topk", seed=3), store, path, tiny().tokenizer, **SIZES)


def test_activations_must_be_of_the_saes_site(tiny, store, tmp_path):
    with pytest.raises(ContractError, match=r"the SAE reads blocks\.1\.hook_resid_post at width 32, the activations"):
        find_top_examples(
            make_sae(hook_name="blocks.1.hook_resid_post"), store, tmp_path / "c.safetensors", tiny().tokenizer
        )
    with pytest.raises(InterpToolkitError, match="expected count and pool of at least 1"):
        find_top_examples(make_sae(), store, tmp_path / "c.safetensors", tiny().tokenizer, count=0)


def test_files_that_are_no_contexts(tiny, sae, store, tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(FileFormatError, match="expected a file of top examples at .*, and there is none"):
        TopExamples.open(path, tiny().tokenizer)
    find_top_examples(sae, store, path, tiny().tokenizer, **SIZES)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match=r"the file of top examples .* is damaged"):
        TopExamples.open(path, tiny().tokenizer)


def test_a_file_that_is_not_as_it_was_written_is_refused(tiny, sae, store, tmp_path):
    path = tmp_path / "c.safetensors"
    find_top_examples(sae, store, path, tiny().tokenizer, **SIZES)
    tensors, header = load_file(path), safe_open(path, framework="pt").metadata()
    assert "sha256" not in TopExamples.open(path, tiny().tokenizer).metadata
    save_file(tensors, path, {**header, "tokens": "7"})
    with pytest.raises(FileFormatError, match="is damaged: its SHA-256 is not the one in its header"):
        TopExamples.open(path, tiny().tokenizer)
    tensors["value"][0, 0] += 1
    save_file(tensors, path, header)
    with pytest.raises(FileFormatError, match="is damaged: its SHA-256 is not the one in its header"):
        TopExamples.open(path, tiny().tokenizer)
    header.pop("sha256")  # as version 0.1 wrote it
    save_file(tensors, path, header)
    assert len(TopExamples.open(path, tiny().tokenizer).features) == 48
    save_file({**tensors, "fires": tensors["fires"][:5]}, path, header)
    with pytest.raises(FileFormatError, match="is damaged: it is of"):
        TopExamples.open(path, tiny().tokenizer)
