"""Let a language model say in words what its own hidden states mean."""

from typing import TYPE_CHECKING

from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.activations import Activations, read_activations
    from interp_toolkit.adapters import Adapter
    from interp_toolkit.difference import describe_difference
    from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
    from interp_toolkit.explain import self_explain
    from interp_toolkit.explanations import Explanation, Explanations
    from interp_toolkit.models import load_model
    from interp_toolkit.pairs import VectorLabelPairs, read_topics, topic_pairs
    from interp_toolkit.pairs import pairs_from_frame as pairs_from_frame  # an old name, which warns
    from interp_toolkit.pairs import pairs_from_json as pairs_from_json
    from interp_toolkit.questions import ask
    from interp_toolkit.runtime import Sampling
    from interp_toolkit.sites import Site, SiteStack
    from interp_toolkit.soft_prompt import SoftPrompt
    from interp_toolkit.training import TrainConfig, TrainResult, train_adapter

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Adapter",
    "ContractError",
    "Explanation",
    "Explanations",
    "FileFormatError",
    "InterpToolkitError",
    "Sampling",
    "Site",
    "SiteStack",
    "SoftPrompt",
    "TrainConfig",
    "TrainResult",
    "VectorLabelPairs",
    "ask",
    "describe_difference",
    "load_model",
    "read_activations",
    "read_topics",
    "self_explain",
    "topic_pairs",
    "train_adapter",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Activations": "activations",
        "read_activations": "activations",
        "Adapter": "adapters",
        "describe_difference": "difference",
        "ContractError": "errors",
        "FileFormatError": "errors",
        "InterpToolkitError": "errors",
        "self_explain": "explain",
        "Explanation": "explanations",
        "Explanations": "explanations",
        "load_model": "models",
        "VectorLabelPairs": "pairs",
        "read_topics": "pairs",
        "topic_pairs": "pairs",
        "pairs_from_frame": "pairs",
        "pairs_from_json": "pairs",
        "ask": "questions",
        "Sampling": "runtime",
        "Site": "sites",
        "SiteStack": "sites",
        "SoftPrompt": "soft_prompt",
        "TrainConfig": "training",
        "TrainResult": "training",
        "train_adapter": "training",
    },
)
