"""Scores of the labels of SAE features: by texts written for them, by detection, and by agreement with descriptions."""

from interp_toolkit.deprecation import moved_names
from interp_toolkit.scoring.agreement import agreement_summary, agreement_table
from interp_toolkit.scoring.detection import Examples, detection_scores, embedding_judge, llm_judge, read_examples
from interp_toolkit.scoring.example_texts import GenerationConfig
from interp_toolkit.scoring.feature_labels import comparison_rows, describe_features
from interp_toolkit.scoring.generation import generation_scores
from interp_toolkit.scoring.label_scores import best_labels, score_table
from interp_toolkit.scoring.label_sources import label_rows
from interp_toolkit.scoring.merging import merge_labels

__all__ = [
    "Examples",
    "GenerationConfig",
    "agreement_summary",
    "agreement_table",
    "best_labels",
    "comparison_rows",
    "describe_features",
    "detection_scores",
    "embedding_judge",
    "generation_scores",
    "label_rows",
    "llm_judge",
    "merge_labels",
    "read_examples",
    "score_table",
]

__getattr__ = moved_names(
    __name__,
    {
        "Writing": "interp_toolkit.scoring:GenerationConfig",
        "asked_judge": "interp_toolkit.scoring:llm_judge",
        "paraphrases": "interp_toolkit.scoring.label_sources:paraphrases",
        "random_labels": "interp_toolkit.scoring.label_sources:random_labels",
        "shuffled_labels": "interp_toolkit.scoring.label_sources:shuffled_labels",
    },
)
