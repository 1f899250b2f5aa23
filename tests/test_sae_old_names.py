"""Names of version 0.1 in `interp_toolkit.sae` and `interp_toolkit.scoring`, which go on with a warning."""

import pandas as pd
import pytest
from conftest import make_sae

import interp_toolkit.sae
import interp_toolkit.scoring
import interp_toolkit.scoring.feature_labels
from interp_toolkit.embedder import Embedder
from interp_toolkit.sae import Background, SAEConfig, SAELabels, SAERecipe, TopExamples
from interp_toolkit.sae.store import ActivationStore
from interp_toolkit.scoring import Examples

OLD = [
    (interp_toolkit.sae, "Contexts", "TopExamples"),
    (interp_toolkit.sae, "asked_labeller", "llm_labeller"),
    (interp_toolkit.sae, "load_sae", "load"),
    (interp_toolkit.sae, "read_labels", "labels"),
    (interp_toolkit.sae, "sae_pairs", "pairs"),
    (interp_toolkit.sae, "train_sae", "train"),
    (interp_toolkit.sae, "write_contexts", "find_top_examples"),
    (interp_toolkit.scoring, "Writing", "GenerationConfig"),
    (interp_toolkit.scoring, "asked_judge", "llm_judge"),
    (interp_toolkit.scoring, "paraphrases", "label_sources.paraphrases"),
    (interp_toolkit.scoring, "random_labels", "label_sources.random_labels"),
    (interp_toolkit.scoring, "shuffled_labels", "label_sources.shuffled_labels"),
    (interp_toolkit.scoring.feature_labels, "compared_rows", "scoring.comparison_rows"),
]


@pytest.mark.parametrize(("module", "old", "new"), OLD, ids=[old for _, old, _ in OLD])
def test_an_old_name_warns_and_is_the_new_one(module, old, new):
    with pytest.warns(DeprecationWarning, match=rf"{old} is deprecated; use .*{new}$"):
        value = getattr(module, old)
    assert value.__name__ == new.rpartition(".")[2]


@pytest.mark.parametrize("module", [interp_toolkit.sae, interp_toolkit.scoring])
def test_what_is_public_is_there_and_the_rest_is_not(module):
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_old_constructors_warn():
    with pytest.warns(DeprecationWarning, match="use Background.from_texts"):
        assert Background.of(["a b"]).words == Background.from_texts(["a b"]).words
    with pytest.warns(DeprecationWarning, match="use SAELabels.from_dict"):
        assert SAELabels.of({1: "x"}).by_feature() == {1: ("x",)}


def test_old_settings_and_fields_warn(tmp_path):
    with pytest.warns(DeprecationWarning, match="warmup_steps"):
        assert SAEConfig(warm_up=3).warmup_steps == 3
    with pytest.warns(DeprecationWarning, match="inactive"):
        assert Examples(active=(), silent=("a",)).inactive == ("a",)
    with pytest.warns(DeprecationWarning, match="inactive"):
        assert Examples((), ("a",)).silent == ("a",)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "output: x\npassages: p\nsite: blocks.2.hook_resid_post\ncontexts: 3\nsae: {features: 40, k: 4, warm_up: 7}\n"
    )
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as caught:
        recipe = SAERecipe.read(path)
    assert (recipe.top_examples, recipe.sae.warmup_steps) == (3, 7)
    assert len(caught) == 2
    store = ActivationStore(None, None, 0, "", None, 5.0)
    with pytest.warns(DeprecationWarning, match="tokens_per_second"):
        assert store.tokens_a_second == 5.0


def test_old_look_ups_of_examples_warn(monkeypatch, unchecked):
    examples = TopExamples(None, None, {"sae": "0"}, pd.DataFrame(dict(rate=[0.5])))
    monkeypatch.setattr(TopExamples, "get", lambda self, feature, count=None: (feature, count))
    monkeypatch.setattr(TopExamples, "inactive", lambda self, feature, count, seed=0: (feature, count, seed))
    with pytest.warns(DeprecationWarning, match="use TopExamples.get"):
        assert examples.of(3, 4) == (3, 4)
    with pytest.warns(DeprecationWarning, match="use TopExamples.inactive"):
        assert examples.silent(3, 4) == (3, 4, 0)
    with pytest.warns(DeprecationWarning, match="metadata"):
        assert examples.told == {"sae": "0"}
    with pytest.warns(DeprecationWarning, match="activation_rates"):
        assert examples.firing.tolist() == [0.5]


def test_old_arguments_warn():
    pytest.importorskip("sae_lens")
    rates = interp_toolkit.sae.sae_vectors(make_sae()).norms * 0
    with pytest.warns(DeprecationWarning, match=r"sae_vectors\(firing=...\) is deprecated; use activation_rates="):
        assert interp_toolkit.sae.sae_vectors(make_sae(), firing=rates).dead.all()


def test_the_embedder_caches_by_its_old_name_too(monkeypatch, unchecked):
    monkeypatch.setattr(Embedder, "cached", lambda self, texts: list(texts))
    with pytest.warns(DeprecationWarning, match="use Embedder.cached"):
        assert Embedder().kept(["a"]) == ["a"]
