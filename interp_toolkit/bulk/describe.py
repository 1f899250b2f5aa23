"""Describe all vectors of a file, in parts that are written as they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.bulk.parts import Part, Progress, parse_shard, read_parts, run_parts, split_rows
from interp_toolkit.bulk.vector_files import VectorFile, open_vectors
from interp_toolkit.contract import Contract, ModelFacts, same_blocks
from interp_toolkit.engines import DEFAULT_MODEL, Engine, as_engine
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.explain import choose_adapter, self_explain
from interp_toolkit.files import sha256_of_json
from interp_toolkit.inputs import from_vectors
from interp_toolkit.runtime import Sampling
from interp_toolkit.settings import whole_number
from interp_toolkit.sites import PlaceLike, parse_place

_COLUMNS = ("scale", "sample", "description", "log_prob", "evidence", "above_threshold", "confidence")


def describe_file(
    vectors: str | Path,
    output: str | Path,
    *,
    model: Any = DEFAULT_MODEL,
    adapter: Adapter | str | Path | None = None,
    tensor: str | None = None,
    sites: PlaceLike | None = None,
    centered: bool | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    rows_per_part: int = 4096,
    shard: str | None = None,
    progress: bool = False,
) -> Progress:
    """Describe every vector of a file, as `self_explain` does, into parquet files in a folder.

    The file may be larger than memory. Parts that are there are skipped, so the same call goes on where one was
    interrupted; several processes that are given the same folder share the parts. `read_descriptions` gives one table.

    Args:
        vectors: a file or folder that `open_vectors` reads.
        output: folder of the parts.
        model: as of `self_explain`.
        adapter: as of `self_explain`.
        tensor: name of the tensor or column, or site, where the file holds several.
        sites: which of the adapter's places the vectors are from; as of `self_explain`. Residual streams that
            `read_file` stored say it themselves.
        centered: as of `self_explain`; by default True, but not for residual streams that `read_file` stored.
        sampling: as of `self_explain`.
        rows_per_part: vectors in each file.
        shard: which parts this process begins with, such as ``"0/4"``; by default what torchrun or SLURM say.
        progress: whether to show a bar, with rows per second and the time that is left.

    Returns:
        what this process did.

    Raises:
        ContractError: an adapter for another model, width or site.
        InterpToolkitError: a file that cannot be read, a vector of another width, or a folder of another job.

    Example:
        >>> describe_file("decoder.safetensors", "descriptions", adapter="smollm2_rank64", progress=True)
        >>> read_descriptions("descriptions").query("above_threshold")
    """
    return describe_rows(
        open_vectors(vectors, tensor),
        output,
        model=model,
        adapter=adapter,
        sites=sites,
        centered=centered,
        sampling=sampling,
        rows_per_part=rows_per_part,
        shard=shard,
        progress=progress,
    )


def describe_rows(
    file: VectorFile,
    output: str | Path,
    *,
    model: Any = DEFAULT_MODEL,
    adapter: Adapter | str | Path | None = None,
    sites: PlaceLike | None = None,
    centered: bool | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    rows_per_part: int = 4096,
    shard: str | None = None,
    progress: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Progress:
    """`describe_file` for vectors that are opened already.

    Args:
        file: the vectors.
        output: as of `describe_file`, and so all that follow.
        model: likewise.
        adapter: likewise.
        sites: likewise.
        centered: likewise.
        sampling: likewise.
        rows_per_part: likewise.
        shard: likewise.
        progress: likewise.
        about: further settings of the job, which a later run has to repeat and `job_settings` gives.

    Raises:
        InterpToolkitError: as of `describe_file`.
    """
    share = parse_shard(shard)
    engine = as_engine(model)
    chosen = choose_adapter(adapter, engine.facts, torch.empty(0, file.width), sites)
    # Refused here rather than after the first part has been read.
    contract = chosen.require_contract(engine.facts)
    sites, centered = _origin(file, engine.facts, contract, sites, centered)
    from_vectors(torch.ones(1, file.width), contract, chosen.config.width, centered, sites)
    settings: dict[str, Any] = dict(
        **common_settings(engine, chosen, sampling, rows_per_part),
        width=file.width,
        sites=None if sites is None else str(parse_place(sites)),
        centered=centered,
        **(about or {}),
    )

    def read(part: Part) -> tuple[tuple[Tensor, list[str] | None], str]:
        values, ids = file.read(part.start, part.stop)
        digest = hashlib.sha256(values.numpy().tobytes())
        digest.update("\0".join(ids or ()).encode())
        return (values, ids), digest.hexdigest()

    def make(part: Part, block: tuple[Tensor, list[str] | None]) -> pd.DataFrame:
        values, ids = block
        usable = values.isfinite().all(1) & (values != 0).any(1)
        numbers = usable.nonzero()[:, 0]
        frame = pd.DataFrame()
        if len(numbers):
            explanations = self_explain(
                values[numbers], model=engine, adapter=chosen, sampling=sampling, sites=sites, centered=centered
            )
            frame = explanations.to_df()
            # A row for each scale and sample of each vector, in the order of the vectors.
            frame.insert(0, "row", numbers.repeat_interleave(len(frame) // len(numbers)).numpy() + part.start)
        failed = (~usable).nonzero()[:, 0]
        problems = ["is zero" if finite else "is not finite" for finite in values[failed].isfinite().all(1).tolist()]
        bad = pd.DataFrame({"row": failed.numpy() + part.start, "problem": problems})
        return _table(frame, bad, None if ids is None else dict(enumerate(ids, part.start)))

    return run_parts(
        Path(output),
        settings,
        split_rows(file.rows, settings["rows_per_part"]),
        read,
        make,
        shard=share,
        progress=progress,
    )


def read_descriptions(folder: str | Path) -> pd.DataFrame:
    """All descriptions that `describe_file` wrote to a folder.

    Args:
        folder: its output.

    Returns:
        rows ordered by ``row`` (number of the vector in the file), ``scale`` and ``sample``, with ``id`` (None where
        the file has none), ``description``, ``log_prob`` and ``evidence`` (nats per token), ``above_threshold``,
        ``confidence``, and ``problem``: why a vector could not be described; None where it was.

    Raises:
        FileFormatError: the folder holds no job, or a part is missing or damaged.
    """
    return read_parts(folder)


def _table(frame: pd.DataFrame, bad: pd.DataFrame, ids: dict[int, str] | None) -> pd.DataFrame:
    """The rows of a part with the same columns and types in every part."""
    both = pd.concat([frame.reindex(columns=["row", *_COLUMNS]), bad], ignore_index=True)
    both = both.reindex(columns=["row", "id", *_COLUMNS, "problem"]).sort_values("row", kind="stable")
    both["id"] = None if ids is None else [ids[row] for row in both["row"]]
    types = dict(row="int64", id="string", scale="float64", sample="Int64", description="string", log_prob="float64")
    types |= dict(evidence="float64", above_threshold="boolean", confidence="float64", problem="string")
    return both.astype(types).reset_index(drop=True)


def _origin(
    file: VectorFile, facts: ModelFacts, contract: Contract, sites: PlaceLike | None, centered: bool | None
) -> tuple[PlaceLike | None, bool]:
    """Where vectors are from and whether they are centered, which residual streams that were stored say themselves.

    Raises:
        ContractError: residual streams of another model, or of a site that is neither the adapter's nor that named.
        InterpToolkitError: residual streams as they were read, which are taken for centered ones.
    """
    if not file.site:
        return sites, centered is None or bool(centered)
    if file.job["fingerprint"] != facts.fingerprint or not same_blocks(facts.block_signs, file.job["block_signs"]):
        raise ContractError(
            f"expected residual streams of {facts.model_id}, got those of {file.job['model']} in {file.path}, whose "
            f"weights are others; read the prompts again with this model"
        )
    if sites is not None and str(parse_place(sites)) != file.site:
        raise ContractError(
            f"expected residual streams of {parse_place(sites)}, got those of {file.site} in {file.path}; leave the "
            f"site out"
        )
    if centered:
        raise InterpToolkitError(
            f"expected centered=False for {file.path}, which holds residual streams as they were read; leave it out"
        )
    contract.check_site(parse_place(file.site))
    return file.site if contract.more else None, False


def model_settings(engine: Engine, rows_per_part: int) -> dict[str, Any]:
    """What decides the parts of every job, beside its inputs and what is done with them.

    Args:
        engine: that runs the model.
        rows_per_part: inputs in each file.

    Raises:
        InterpToolkitError: ``rows_per_part`` is no whole number above 0.
    """
    facts = engine.facts
    return dict(
        rows_per_part=whole_number(rows_per_part, "rows_per_part", least=1),
        model=facts.model_id,
        fingerprint=facts.fingerprint,
        block_signs=list(facts.block_signs),
        engine=dict(engine.identity),
    )


def common_settings(engine: Engine, adapter: Adapter, sampling: Sampling, rows_per_part: int) -> dict[str, Any]:
    """What decides the parts of every job that describes, beside its inputs and how these are read.

    Args:
        engine: that runs the model.
        adapter: with its contract.
        sampling: of the descriptions.
        rows_per_part: inputs in each file.

    Raises:
        InterpToolkitError: ``rows_per_part`` is no whole number above 0.
    """
    return dict(
        **model_settings(engine, rows_per_part),
        adapter=adapter.digest,
        contract=_contract_key(adapter),
        sampling=asdict(sampling),
    )


def _contract_key(adapter: Adapter) -> str:
    """Sixteen digits that change with what the adapter's contract holds besides the model."""
    contract = adapter.require_contract()
    digest = hashlib.sha256(sha256_of_json(contract.to_dict()).encode())
    for place in contract.reading_places:
        if place.mean is not None:
            digest.update(place.mean.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
