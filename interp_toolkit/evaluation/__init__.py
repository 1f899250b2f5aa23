"""Measuring what descriptions are worth."""

from interp_toolkit.evaluation.abstention import (
    EvidenceControls,
    calibrate_threshold,
    coverage_accuracy,
    evidence_controls,
    reading_table,
)
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
from interp_toolkit.evaluation.entities import extract_entities
from interp_toolkit.evaluation.grid import Grid, describe_grid
from interp_toolkit.evaluation.knowledge import (
    KnowledgeRanks,
    PromptedDescription,
    knowledge_gap,
    knowledge_ranks,
    plain_answers,
    prompted_descriptions,
    redact,
)
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
    "Grid",
    "Interval",
    "KnowledgeRanks",
    "PromptedDescription",
    "TwoHop",
    "adjust_p_values",
    "answers_hops",
    "best_by_answer",
    "best_by_evidence",
    "best_scale",
    "bias_share",
    "calibrate_threshold",
    "control_losses",
    "control_table",
    "coverage_accuracy",
    "decode_rates",
    "describe_grid",
    "description_ranks",
    "evidence_controls",
    "extract_entities",
    "find_bridge_entities",
    "find_names",
    "knowledge_gap",
    "knowledge_ranks",
    "layer_position_table",
    "mean_interval",
    "mix",
    "mixture_table",
    "name_bridges",
    "named_within",
    "paired_difference",
    "plain_answers",
    "prompted_descriptions",
    "proportion_interval",
    "random_directions",
    "ratio_interval",
    "read_aliases",
    "read_twohop",
    "reading_table",
    "recall_table",
    "redact",
    "retrieval_ranks",
    "site_means",
    "take_out",
    "untrained_adapter",
]
