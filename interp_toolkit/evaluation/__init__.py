"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.abstention import (
    EvidenceControls,
    calibrate_threshold,
    coverage_accuracy,
    evidence_controls,
    reading_table,
)
from interp_toolkit.evaluation.controls import ControlLosses, control_losses
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

__all__ = [
    "ControlLosses",
    "EvidenceControls",
    "KnowledgeRanks",
    "PromptedDescription",
    "best_by_answer",
    "best_by_evidence",
    "calibrate_threshold",
    "control_losses",
    "coverage_accuracy",
    "description_ranks",
    "evidence_controls",
    "knowledge_gap",
    "knowledge_ranks",
    "mix",
    "mixture_table",
    "named_within",
    "plain_answers",
    "prompted_descriptions",
    "reading_table",
    "recall_table",
    "redact",
    "retrieval_ranks",
    "take_out",
]
