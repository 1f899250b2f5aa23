"""All features of an SAE, described in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.bulk.describe import describe_rows, read_descriptions
from interp_toolkit.bulk.parts import Progress, job_settings
from interp_toolkit.bulk.vector_files import VectorFile
from interp_toolkit.engines import DEFAULT_MODEL, LocalEngine, as_engine
from interp_toolkit.errors import FileFormatError
from interp_toolkit.explain import choose_adapter
from interp_toolkit.runtime import Sampling
from interp_toolkit.sae import check_sae, load, sae_digest, sae_vectors
from interp_toolkit.sae.facts import OnMismatch
from interp_toolkit.sae.loading import is_folder, read_activation_rates


def describe_sae(
    sae: Any,
    output: str | Path,
    *,
    model: Any = DEFAULT_MODEL,
    adapter: Adapter | str | Path | None = None,
    features: Sequence[int] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    on_mismatch: OnMismatch = "error",
    rows_per_part: int = 4096,
    shard: str | None = None,
    progress: bool = False,
) -> Progress:
    """Describe the features of an SAE, as `self_explain` does, into parquet files in a folder.

    Features that are known to be dead (no direction, or a rate of 0 in ``sparsity.safetensors``) are left out. As with
    `describe_file`, parts that are there are skipped and several processes share one folder.

    Args:
        sae: an SAE, or whatever `interp_toolkit.sae.load` takes without an id.
        output: folder of the parts.
        model: as of `self_explain`: a hooked model, the address of a server, or another engine.
        adapter: as of `self_explain`.
        features: numbers of features; by default all.
        sampling: how many descriptions each gets, and how they are sampled.
        on_mismatch: as `check_sae` takes it.
        rows_per_part: features in each file.
        shard: as of `describe_file`.
        progress: whether to show a bar, with rows per second and the time that is left.

    Returns:
        what this process did.

    Raises:
        ContractError: an SAE or adapter of another model, width or site.
        InterpToolkitError: a number that the SAE does not have, or a folder of another job.

    Example:
        >>> describe_sae("my-sae", "descriptions", adapter="my-adapter", progress=True)
        >>> read_feature_descriptions("descriptions").query("above_threshold")
    """
    rates = read_activation_rates(sae) if is_folder(sae) else None
    sae = load(sae)
    directions = sae_vectors(sae, features, activation_rates=rates)
    engine, facts = as_engine(model), directions.facts
    chosen = choose_adapter(adapter, engine.facts, torch.empty(0, facts.width), facts.site)
    check_sae(sae, engine.model if isinstance(engine, LocalEngine) else None, chosen, on_mismatch=on_mismatch)
    live = (~directions.dead).nonzero()[:, 0]
    vectors = directions.vectors[live]
    numbers = [str(directions.index[i]) for i in live.tolist()]

    def read(start: int, stop: int) -> tuple[Tensor, list[str]]:
        return vectors[start:stop], numbers[start:stop]

    contract = chosen.require_contract(engine.facts)
    place = facts.site if contract.more and facts.site and contract.reading_place(facts.site) else None
    return describe_rows(
        VectorFile(Path(output), len(vectors), facts.width, read),
        output,
        model=engine,
        adapter=chosen,
        sites=place,
        sampling=sampling,
        rows_per_part=rows_per_part,
        shard=shard,
        progress=progress,
        about=dict(sae=sae_digest(sae), hook_name=facts.hook_name, neuronpedia_id=facts.neuronpedia_id),
    )


def read_feature_descriptions(folder: str | Path) -> pd.DataFrame:
    """The descriptions that `describe_sae` wrote to a folder.

    Args:
        folder: its output.

    Returns:
        rows ordered by ``feature`` (its number in the SAE) and ``sample``, with the other columns of
        `read_descriptions`.

    Raises:
        FileFormatError: the folder holds no such job, or a part is missing or damaged.
    """
    if "sae" not in job_settings(folder):
        raise FileFormatError(f"expected the folder of a job on an SAE, got {folder}; see read_descriptions")
    table = read_descriptions(folder)
    table.insert(0, "feature", table.pop("id").astype("int64"))
    return table.drop(columns="row").sort_values(["feature", "sample"], kind="stable", ignore_index=True)


def best_descriptions(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each feature: its description of the highest evidence, which needs no other text to be chosen.

    Args:
        table: of `read_feature_descriptions`.

    Returns:
        its columns but ``sample``, ordered by ``feature``. A feature without a description keeps its ``problem``.
    """
    order = table.assign(given=table["description"].fillna("").str.strip() != "")
    order = order.sort_values(["given", "evidence"], ascending=False, na_position="last", kind="stable")
    best = order.drop_duplicates("feature").drop(columns=["sample", "given"])
    return best.sort_values("feature", ignore_index=True)
