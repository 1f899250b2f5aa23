"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.abstention import (
    EvidenceControls,
    calibrate_threshold,
    coverage_accuracy,
    evidence_controls,
    reading_table,
)
from interp_toolkit.evaluation.bias import best_scale, bias_share
from interp_toolkit.evaluation.conditions import random_directions
from interp_toolkit.evaluation.controls import ControlLosses, control_losses, control_table
from interp_toolkit.evaluation.knowledge import (
    KnowledgeRanks,
    PromptedDescription,
    knowledge_gap,
    knowledge_ranks,
    plain_answers,
    prompted_descriptions,
    redact,
)
from interp_toolkit.evaluation.mixtures import mix, mixture_table, named_within, take_out
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

__all__ = [
    "ControlLosses",
    "Difference",
    "EvidenceControls",
    "Interval",
    "KnowledgeRanks",
    "PromptedDescription",
    "adjust_p_values",
    "best_by_answer",
    "best_by_evidence",
    "best_scale",
    "bias_share",
    "calibrate_threshold",
    "control_losses",
    "control_table",
    "coverage_accuracy",
    "description_ranks",
    "evidence_controls",
    "knowledge_gap",
    "knowledge_ranks",
    "mean_interval",
    "mix",
    "mixture_table",
    "named_within",
    "paired_difference",
    "plain_answers",
    "prompted_descriptions",
    "proportion_interval",
    "random_directions",
    "ratio_interval",
    "reading_table",
    "recall_table",
    "redact",
    "retrieval_ranks",
    "take_out",
]
