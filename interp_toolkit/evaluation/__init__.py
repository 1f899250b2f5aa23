"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.controls import ControlLosses, control_losses
from interp_toolkit.evaluation.protocols import best_by_answer, best_by_evidence, description_ranks
from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks

__all__ = [
    "ControlLosses",
    "best_by_answer",
    "best_by_evidence",
    "control_losses",
    "description_ranks",
    "recall_table",
    "retrieval_ranks",
]
