"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.abstention import (
    EvidenceControls,
    calibrate_threshold,
    coverage_accuracy,
    evidence_controls,
    reading_table,
)
from interp_toolkit.evaluation.agreement import agreement_summary, agreement_table
from interp_toolkit.evaluation.bias import best_scale, bias_share
from interp_toolkit.evaluation.bridges import (
    BridgeEntities,
    find_bridge_entities,
    name_bridges,
    untrained_adapter,
)
from interp_toolkit.evaluation.conditions import random_directions
from interp_toolkit.evaluation.controls import ControlLosses, control_losses, control_table
from interp_toolkit.evaluation.decoding import decode_rates, layer_position_table
from interp_toolkit.evaluation.detection import Examples, asked_judge, detection_scores, embedding_judge, read_examples
from interp_toolkit.evaluation.entities import extract_entities
from interp_toolkit.evaluation.example_texts import Writing
from interp_toolkit.evaluation.generation_scoring import generation_scores
from interp_toolkit.evaluation.grid import Grid, describe_grid
from interp_toolkit.evaluation.knowledge import (
    KnowledgeRanks,
    PromptedDescription,
    knowledge_gap,
    knowledge_ranks,
    prompted_descriptions,
    redact,
)
from interp_toolkit.evaluation.label_scores import best_labels, score_table
from interp_toolkit.evaluation.label_sources import label_rows, paraphrases, random_labels, shuffled_labels
from interp_toolkit.evaluation.means import site_means
from interp_toolkit.evaluation.mixtures import mix, mixture_table, named_within, take_out
from interp_toolkit.evaluation.names import Entity, find_names
from interp_toolkit.evaluation.protocols import best_by_answer, best_by_evidence, description_ranks
from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks
from interp_toolkit.evaluation.statistics import (
    Difference,
    Interval,
    adjust_p_values,
    mean_interval,
    paired_difference,
    proportion_interval,
    ratio_interval,
)
from interp_toolkit.evaluation.twohop import TwoHop, answers_hops, read_aliases, read_twohop

__all__ = [
    "BridgeEntities",
    "ControlLosses",
    "Difference",
    "Entity",
    "EvidenceControls",
    "Examples",
    "Grid",
    "Interval",
    "KnowledgeRanks",
    "PromptedDescription",
    "TwoHop",
    "Writing",
    "adjust_p_values",
    "agreement_summary",
    "agreement_table",
    "answers_hops",
    "asked_judge",
    "best_by_answer",
    "best_by_evidence",
    "best_labels",
    "best_scale",
    "bias_share",
    "calibrate_threshold",
    "control_losses",
    "control_table",
    "coverage_accuracy",
    "decode_rates",
    "describe_grid",
    "description_ranks",
    "detection_scores",
    "embedding_judge",
    "evidence_controls",
    "extract_entities",
    "find_bridge_entities",
    "find_names",
    "generation_scores",
    "knowledge_gap",
    "knowledge_ranks",
    "label_rows",
    "layer_position_table",
    "mean_interval",
    "mix",
    "mixture_table",
    "name_bridges",
    "named_within",
    "paired_difference",
    "paraphrases",
    "prompted_descriptions",
    "proportion_interval",
    "random_directions",
    "random_labels",
    "ratio_interval",
    "read_aliases",
    "read_examples",
    "read_twohop",
    "reading_table",
    "recall_table",
    "redact",
    "retrieval_ranks",
    "score_table",
    "shuffled_labels",
    "site_means",
    "take_out",
    "untrained_adapter",
]
