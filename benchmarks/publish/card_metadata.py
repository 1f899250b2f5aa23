"""What the hub reads of a shipped adapter's card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp_toolkit.adapters import cards


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
        cards.eval_result(
            dataset_type="topics",
            dataset_name=titles,
            dataset_split=settings["split"],
            metric_type="recall",
            metric_name=f"recall@{k} among {settings['index']:,} titles",
            metric_value=round(recall, 4),
        )
        for k, recall in recalls.items()
    ]
    return cards.card_metadata(name, results, language="en", license="apache-2.0", base_model=contract["model_id"])
