"""Measuring what descriptions are worth."""

from interp_toolkit.deprecation import moved_names
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
    "mix",
    "mixture_table",
    "named_within",
    "prompted_descriptions",
    "random_directions",
    "reading_table",
    "recall_table",
    "redact",
    "retrieval_ranks",
    "take_out",
]

__getattr__ = moved_names(
    __name__,
    {
        "BridgeEntities": "interp_toolkit.bridges:BridgeEntities",
        "Difference": "interp_toolkit.statistics:Difference",
        "Entity": "interp_toolkit.bridges:Entity",
        "Examples": "interp_toolkit.scoring:Examples",
        "Grid": "interp_toolkit.bridges:Grid",
        "Interval": "interp_toolkit.statistics:Interval",
        "TwoHop": "interp_toolkit.bridges:TwoHop",
        "Writing": "interp_toolkit.scoring:Writing",
        "adjust_p_values": "interp_toolkit.statistics:adjust_p_values",
        "agreement_summary": "interp_toolkit.scoring:agreement_summary",
        "agreement_table": "interp_toolkit.scoring:agreement_table",
        "answers_hops": "interp_toolkit.bridges:answers_hops",
        "asked_judge": "interp_toolkit.scoring:asked_judge",
        "best_labels": "interp_toolkit.scoring:best_labels",
        "decode_rates": "interp_toolkit.bridges:decode_rates",
        "describe_grid": "interp_toolkit.bridges:describe_grid",
        "detection_scores": "interp_toolkit.scoring:detection_scores",
        "embedding_judge": "interp_toolkit.scoring:embedding_judge",
        "extract_entities": "interp_toolkit.bridges:extract_entities",
        "find_bridge_entities": "interp_toolkit.bridges:find_bridge_entities",
        "find_names": "interp_toolkit.bridges:find_names",
        "generation_scores": "interp_toolkit.scoring:generation_scores",
        "label_rows": "interp_toolkit.scoring:label_rows",
        "layer_position_table": "interp_toolkit.bridges:layer_position_table",
        "mean_interval": "interp_toolkit.statistics:mean_interval",
        "name_bridges": "interp_toolkit.bridges:name_bridges",
        "paired_difference": "interp_toolkit.statistics:paired_difference",
        "paraphrases": "interp_toolkit.scoring:paraphrases",
        "proportion_interval": "interp_toolkit.statistics:proportion_interval",
        "random_labels": "interp_toolkit.scoring:random_labels",
        "ratio_interval": "interp_toolkit.statistics:ratio_interval",
        "read_aliases": "interp_toolkit.bridges:read_aliases",
        "read_examples": "interp_toolkit.scoring:read_examples",
        "read_twohop": "interp_toolkit.bridges:read_twohop",
        "score_table": "interp_toolkit.scoring:score_table",
        "shuffled_labels": "interp_toolkit.scoring:shuffled_labels",
        "site_means": "interp_toolkit.activations:site_means",
        "untrained_adapter": "interp_toolkit.bridges:untrained_adapter",
    },
)
