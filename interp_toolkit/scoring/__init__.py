"""Judging labels of SAE features: by texts written for them, by detection, and by how far they agree."""

from interp_toolkit.scoring.agreement import agreement_summary, agreement_table
from interp_toolkit.scoring.detection import Examples, asked_judge, detection_scores, embedding_judge, read_examples
from interp_toolkit.scoring.example_texts import Writing
from interp_toolkit.scoring.generation_scoring import generation_scores
from interp_toolkit.scoring.label_scores import best_labels, score_table
from interp_toolkit.scoring.label_sources import label_rows, paraphrases, random_labels, shuffled_labels

__all__ = [
    "Examples",
    "Writing",
    "agreement_summary",
    "agreement_table",
    "asked_judge",
    "best_labels",
    "detection_scores",
    "embedding_judge",
    "generation_scores",
    "label_rows",
    "paraphrases",
    "random_labels",
    "read_examples",
    "score_table",
    "shuffled_labels",
]
