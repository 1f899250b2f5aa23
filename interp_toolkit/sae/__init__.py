"""SAEs of a hooked model: load or train one, label its features, and make vector-label pairs of it.

`load` reads an SAE, `train` trains one, `labels` reads labels of its features, and `pairs` joins both.
"""

from interp_toolkit.deprecation import moved_names
from interp_toolkit.sae.asking import Answer, Ask, ask_model, ask_server
from interp_toolkit.sae.directions import SAEVectors, sae_vectors
from interp_toolkit.sae.distinctive import Background
from interp_toolkit.sae.encode import Encoder, encode_features, feature_activations
from interp_toolkit.sae.facts import SAEFacts, check_sae, sae_digest, sae_facts
from interp_toolkit.sae.label_files import SAELabels, labels
from interp_toolkit.sae.label_pairs import pairs
from interp_toolkit.sae.labellers import Labeller, label_features, llm_labeller, word_labeller
from interp_toolkit.sae.loading import load
from interp_toolkit.sae.passages import TokenRows, read_passages, token_rows
from interp_toolkit.sae.quality import feature_quantiles, sae_quality
from interp_toolkit.sae.recipe import SAERecipe, SAEResult
from interp_toolkit.sae.search import find_top_examples
from interp_toolkit.sae.store import ActivationStore, store_activations
from interp_toolkit.sae.top_examples import TopExamples
from interp_toolkit.sae.training import SAEConfig, train

__all__ = [
    "ActivationStore",
    "Answer",
    "Ask",
    "Background",
    "Encoder",
    "Labeller",
    "SAEConfig",
    "SAEFacts",
    "SAELabels",
    "SAERecipe",
    "SAEResult",
    "SAEVectors",
    "TokenRows",
    "TopExamples",
    "ask_model",
    "ask_server",
    "check_sae",
    "encode_features",
    "feature_activations",
    "feature_quantiles",
    "find_top_examples",
    "label_features",
    "labels",
    "llm_labeller",
    "load",
    "pairs",
    "read_passages",
    "sae_digest",
    "sae_facts",
    "sae_quality",
    "sae_vectors",
    "store_activations",
    "token_rows",
    "train",
    "word_labeller",
]

__getattr__ = moved_names(
    __name__,
    {
        "Contexts": "interp_toolkit.sae:TopExamples",
        "asked_labeller": "interp_toolkit.sae:llm_labeller",
        "load_sae": "interp_toolkit.sae:load",
        "read_labels": "interp_toolkit.sae:labels",
        "sae_pairs": "interp_toolkit.sae:pairs",
        "train_sae": "interp_toolkit.sae:train",
        "write_contexts": "interp_toolkit.sae:find_top_examples",
    },
)
