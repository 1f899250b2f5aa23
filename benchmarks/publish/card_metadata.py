"""What the hub reads of an adapter's card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData


def card_metadata(
    name: str, contract: Mapping[str, Any], settings: Mapping[str, Any], titles: str, recalls: Mapping[int, float]
) -> str:
    """The base model, the library, and the measured recalls, as YAML.

    Args:
        name: of the adapter.
        contract: of the adapter, as its config states it.
        settings: of the result.
        titles: which titles were measured, and how they were asked about.
        recalls: recall@k by k, as shares of 1.
    """
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="self-interpretation",
            dataset_type="topics",
            dataset_name=titles,
            dataset_split=settings["split"],
            metric_type="recall",
            metric_name=f"recall@{k} among {settings['index']:,} titles",
            metric_value=round(recall, 4),
        )
        for k, recall in recalls.items()
    ]
    return ModelCardData(
        language="en",
        license="apache-2.0",
        base_model=contract["model_id"],
        library_name="interp-toolkit",
        tags=["interpretability", "self-interpretation", "adapter"],
        model_name=name,
        eval_results=results,
    ).to_yaml()
