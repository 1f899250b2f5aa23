"""Measuring how far descriptions can be trusted: one file per measurement, and one driver that runs them."""

from typing import TYPE_CHECKING

from interp_toolkit.deprecation import moved_names
from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.evaluation.bias import best_scale, bias_share
    from interp_toolkit.evaluation.context import EvalContext
    from interp_toolkit.evaluation.controls import control_losses, control_table
    from interp_toolkit.evaluation.driver import Evaluation, run_evaluation
    from interp_toolkit.evaluation.held_out import HeldOut
    from interp_toolkit.evaluation.mixtures import mix, mixture_table, named_within, project_out
    from interp_toolkit.evaluation.prompted_baseline import baseline_gap, prompted_descriptions
    from interp_toolkit.evaluation.reconstruction import reconstruction_table
    from interp_toolkit.evaluation.retrieval import (
        best_by_answer,
        best_by_evidence,
        description_ranks,
        recall_table,
        retrieval_ranks,
    )
    from interp_toolkit.evaluation.selective_prediction import (
        accuracy_by_coverage,
        calibrate,
        calibrate_threshold,
        evidence_controls,
        threshold_table,
    )

__all__ = [
    "EvalContext",
    "Evaluation",
    "HeldOut",
    "accuracy_by_coverage",
    "baseline_gap",
    "best_by_answer",
    "best_by_evidence",
    "best_scale",
    "bias_share",
    "calibrate",
    "calibrate_threshold",
    "control_losses",
    "control_table",
    "description_ranks",
    "evidence_controls",
    "mix",
    "mixture_table",
    "named_within",
    "project_out",
    "prompted_descriptions",
    "recall_table",
    "reconstruction_table",
    "retrieval_ranks",
    "run_evaluation",
    "threshold_table",
]

_moved = moved_names(
    __name__,
    {
        "BridgeEntities": "interp_toolkit.bridges:BridgeEntities",
        "ControlLosses": "interp_toolkit.evaluation.controls:ControlLosses",
        "Difference": "interp_toolkit.statistics:Difference",
        "Entity": "interp_toolkit.bridges:Entity",
        "EvidenceControls": "interp_toolkit.evaluation.selective_prediction:EvidenceControls",
        "Examples": "interp_toolkit.scoring:Examples",
        "Grid": "interp_toolkit.bridges:Grid",
        "Interval": "interp_toolkit.statistics:Interval",
        "KnowledgeRanks": "interp_toolkit.evaluation.prompted_baseline:BaselineRanks",
        "PromptedDescription": "interp_toolkit.evaluation.prompted_baseline:PromptedDescription",
        "TwoHop": "interp_toolkit.bridges:TwoHop",
        "Writing": "interp_toolkit.scoring:Writing",
        "adjust_p_values": "interp_toolkit.statistics:adjust_p_values",
        "agreement_summary": "interp_toolkit.scoring:agreement_summary",
        "agreement_table": "interp_toolkit.scoring:agreement_table",
        "answers_hops": "interp_toolkit.bridges:answers_hops",
        "asked_judge": "interp_toolkit.scoring:asked_judge",
        "best_labels": "interp_toolkit.scoring:best_labels",
        "coverage_accuracy": "interp_toolkit.evaluation:accuracy_by_coverage",
        "decode_rates": "interp_toolkit.bridges:decode_rates",
        "describe_grid": "interp_toolkit.bridges:describe_grid",
        "detection_scores": "interp_toolkit.scoring:detection_scores",
        "embedding_judge": "interp_toolkit.scoring:embedding_judge",
        "extract_entities": "interp_toolkit.bridges:extract_entities",
        "find_bridge_entities": "interp_toolkit.bridges:find_bridge_entities",
        "find_names": "interp_toolkit.bridges:find_names",
        "generation_scores": "interp_toolkit.scoring:generation_scores",
        "knowledge_gap": "interp_toolkit.evaluation:baseline_gap",
        "knowledge_ranks": "interp_toolkit.evaluation.prompted_baseline:baseline_ranks",
        "label_rows": "interp_toolkit.scoring:label_rows",
        "layer_position_table": "interp_toolkit.bridges:layer_position_table",
        "mean_interval": "interp_toolkit.statistics:mean_interval",
        "name_bridges": "interp_toolkit.bridges:name_bridges",
        "paired_difference": "interp_toolkit.statistics:paired_difference",
        "paraphrases": "interp_toolkit.scoring:paraphrases",
        "proportion_interval": "interp_toolkit.statistics:proportion_interval",
        "random_directions": "interp_toolkit.evaluation.control_kinds:random_directions",
        "random_labels": "interp_toolkit.scoring:random_labels",
        "ratio_interval": "interp_toolkit.statistics:ratio_interval",
        "read_aliases": "interp_toolkit.bridges:read_aliases",
        "read_examples": "interp_toolkit.scoring:read_examples",
        "read_twohop": "interp_toolkit.bridges:read_twohop",
        "reading_table": "interp_toolkit.evaluation:threshold_table",
        "redact": "interp_toolkit.evaluation.prompted_baseline:redact",
        "score_table": "interp_toolkit.scoring:score_table",
        "shuffled_labels": "interp_toolkit.scoring:shuffled_labels",
        "site_means": "interp_toolkit.activations:site_means",
        "round_trip": "interp_toolkit.evaluation:reconstruction_table",
        "take_out": "interp_toolkit.evaluation:project_out",
        "untrained_adapter": "interp_toolkit.adapters:untrained_adapter",
    },
)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EvalContext": "context",
        "Evaluation": "driver",
        "HeldOut": "held_out",
        "accuracy_by_coverage": "selective_prediction",
        "baseline_gap": "prompted_baseline",
        "best_by_answer": "retrieval",
        "best_by_evidence": "retrieval",
        "best_scale": "bias",
        "bias_share": "bias",
        "calibrate": "selective_prediction",
        "calibrate_threshold": "selective_prediction",
        "control_losses": "controls",
        "control_table": "controls",
        "description_ranks": "retrieval",
        "evidence_controls": "selective_prediction",
        "mix": "mixtures",
        "mixture_table": "mixtures",
        "named_within": "mixtures",
        "project_out": "mixtures",
        "prompted_descriptions": "prompted_baseline",
        "recall_table": "retrieval",
        "reconstruction_table": "reconstruction",
        "retrieval_ranks": "retrieval",
        "run_evaluation": "driver",
        "threshold_table": "selective_prediction",
    },
    _moved,
)
