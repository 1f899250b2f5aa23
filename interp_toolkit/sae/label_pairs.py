"""Vector-label pairs of an SAE: its decoder rows with the labels of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.sae import label_files, loading
from interp_toolkit.sae.directions import sae_vectors
from interp_toolkit.sae.facts import sae_digest, sae_facts
from interp_toolkit.sae.label_files import SAELabels
from interp_toolkit.torch_defaults import plain_defaults


@renamed_arguments(firing="activation_rates")
@plain_defaults()
def pairs(
    sae: Any,
    labels: SAELabels | Mapping[int, str | Sequence[str]] | str | Path,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    activation_rates: Float[Tensor, " features"] | None = None,
) -> VectorLabelPairs:
    """Make vector-label pairs of an SAE's decoder directions and their labels, split by feature.

    They are directions, read at no site and centred by no mean. Dead features are left out, and counted in the origin.

    Args:
        sae: an SAE, or whatever `load` takes without an id.
        labels: `SAELabels`, or what `labels` takes.
        val_fraction: share of the features that is held out, where the labels bring no split.
        seed: of that draw.
        activation_rates: as `sae_vectors` takes it.

    Returns:
        the pairs, one row per feature that has labels and is not dead.

    Raises:
        InterpToolkitError: labels of another SAE, of features that do not exist, or of dead features alone.

    Example:
        >>> interp_toolkit.sae.pairs(sae, interp_toolkit.sae.labels("explanations"))
    """
    if activation_rates is None and loading.is_folder(sae):
        activation_rates = loading.read_activation_rates(sae)
    sae = loading.load(sae)
    labelled = labels if isinstance(labels, SAELabels) else label_files.labels(labels)
    facts = sae_facts(sae)
    if not len(labelled):
        raise InterpToolkitError("expected labels for at least one feature, got none")
    if wrong := [number for number in labelled.features if number >= facts.features]:
        raise InterpToolkitError(
            f"there are labels for feature {wrong[-1]}, and the SAE has {facts.features} features, numbered 0 to "
            f"{facts.features - 1}; are these the labels of another SAE?"
        )
    named = labelled.origin.get("neuronpedia_id")
    if named and facts.neuronpedia_id and named != facts.neuronpedia_id:
        raise InterpToolkitError(
            f"the labels are of {named} and the SAE is {facts.neuronpedia_id} on Neuronpedia; take the SAE's own"
        )
    directions = sae_vectors(sae, labelled.features, activation_rates=activation_rates)
    alive = [row for row, dead in enumerate(directions.dead.tolist()) if not dead]
    if not alive:
        raise InterpToolkitError(
            f"all {len(directions)} features that have labels are dead; expected at least one alive"
        )
    texts, splits = labelled.by_feature(), _splits(labelled)
    numbers = [directions.index[row] for row in alive]
    explainers = sorted({name for name in labelled.table["explainer"] if name})
    origin = {
        "model": facts.model,
        "source": "SAE decoder rows",
        "hook_name": facts.writes_to,
        "sae": sae_digest(sae),
        "neuronpedia_id": facts.neuronpedia_id,
        "explainer": ", ".join(explainers),
        "dead_left_out": str(len(directions) - len(alive)) if len(alive) < len(directions) else "",
        **labelled.origin,
    }
    return VectorLabelPairs.from_tensors(
        directions.vectors[torch.tensor(alive)],
        [tuple({text.strip(): text for text in texts[number]}.values()) for number in numbers],
        splits=None if splits is None else [splits[number] for number in numbers],
        val_fraction=val_fraction,
        seed=seed,
        origin={key: text for key, text in origin.items() if text},
    )


def _splits(labels: SAELabels) -> dict[int, str] | None:
    """The split of each feature, or None where not every feature has one."""
    if labels.table["split"].isna().to_numpy().any():
        return None
    splits: dict[int, str] = {}
    for number, split in zip(labels.table["feature"], labels.table["split"]):
        if splits.setdefault(int(number), split) != split:
            raise InterpToolkitError(f"feature {number} has labels in both splits; a feature belongs to one")
    return splits
