"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks

__all__ = ["recall_table", "retrieval_ranks"]
