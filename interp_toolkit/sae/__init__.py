"""SAEs of a hooked model: stored activations, training, quality, and the contexts of features."""

from interp_toolkit.sae.asking import Answer, Ask, ask_model, ask_server
from interp_toolkit.sae.contexts import Contexts
from interp_toolkit.sae.directions import SAEFacts, SAEVectors, check_sae, sae_digest, sae_facts, sae_vectors
from interp_toolkit.sae.distinctive import Background
from interp_toolkit.sae.encode import Encoder, encode_features, feature_activations
from interp_toolkit.sae.label_files import SAELabels, read_labels, sae_pairs
from interp_toolkit.sae.labellers import Labeller, asked_labeller, label_features, word_labeller
from interp_toolkit.sae.passages import TokenRows, read_passages, token_rows
from interp_toolkit.sae.quality import feature_quantiles, sae_quality
from interp_toolkit.sae.recipe import SAERecipe, SAEResult
from interp_toolkit.sae.sae_files import load_sae
from interp_toolkit.sae.search import write_contexts
from interp_toolkit.sae.store import ActivationStore, store_activations
from interp_toolkit.sae.train import SAEConfig, train_sae

__all__ = [
    "ActivationStore",
    "Answer",
    "Ask",
    "Background",
    "Contexts",
    "Encoder",
    "Labeller",
    "SAEConfig",
    "SAEFacts",
    "SAELabels",
    "SAERecipe",
    "SAEResult",
    "SAEVectors",
    "TokenRows",
    "ask_model",
    "ask_server",
    "asked_labeller",
    "check_sae",
    "encode_features",
    "feature_activations",
    "feature_quantiles",
    "label_features",
    "load_sae",
    "read_labels",
    "read_passages",
    "sae_digest",
    "sae_facts",
    "sae_pairs",
    "sae_quality",
    "sae_vectors",
    "store_activations",
    "token_rows",
    "train_sae",
    "word_labeller",
    "write_contexts",
]
