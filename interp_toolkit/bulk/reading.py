"""Read the residual streams of all prompts of a file, into parts that are written as they are made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from interp_toolkit.activations import Activations, Positions, read_activations
from interp_toolkit.bulk.describe import model_settings
from interp_toolkit.bulk.parts import Part, Progress, part_paths, read_part
from interp_toolkit.bulk.prompts import read_prompts, require_local, run_prompts, try_each
from interp_toolkit.bulk.vector_files import ACTIVATIONS, stored_sites
from interp_toolkit.engines import DEFAULT_MODEL, as_engine
from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import backend_of
from interp_toolkit.positions import parse_positions
from interp_toolkit.sites import PlaceLike, SiteLike, SiteStack, parse_place, parse_sites

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


def read_file(
    prompts: str | Path,
    output: str | Path,
    sites: SiteLike | Sequence[SiteLike] | SiteStack,
    *,
    model: Any = DEFAULT_MODEL,
    column: str | None = None,
    positions: Positions = "last",
    chat: bool | None = None,
    rows_per_part: int = 128,
    shard: str | None = None,
    progress: bool = False,
) -> Progress:
    """Read the residual streams of every prompt of a file, as `read_activations` does, into parquet files in a folder.

    As with `describe_file`, parts that are there are skipped and several processes share one folder. A row is a token:
    ``id`` (its prompt's number and its position), ``row`` (the number of the prompt), ``position``, ``token``,
    ``problem`` (why a prompt could not be read), and a column of vectors for each site, float32, as they were read.
    `load_activations` reads all of them, `describe_file` takes the folder.

    Args:
        prompts: a file that `read_prompts` reads; its texts are held in memory.
        output: folder of the parts. Each holds 4 bytes for each number, about half of that for a bfloat16 model.
        sites: where to read, as of `read_activations`.
        model: a hooked model, or what `load_model` takes.
        column: the key or column that holds the texts; by default ``prompt``, else ``text``.
        positions: as of `read_activations`.
        chat: as of `read_activations`.
        rows_per_part: prompts in each file; the vectors of one file are held in memory.
        shard: as of `describe_file`.
        progress: whether to show a bar, with prompts per second and the time that is left.

    Returns:
        what this process did.

    Raises:
        InterpToolkitError: a file that cannot be read, a site that the model does not have, an engine that reads no
            prompts, or a folder of another job.

    Example:
        >>> read_file("questions.txt", "activations", sites=[10, 16], positions="content", progress=True)
        >>> load_activations("activations").at(10)
    """
    texts, engine = read_prompts(prompts, column), require_local(as_engine(model))
    # The columns of the files: one for each site, or one for a stack.
    chosen = list(dict.fromkeys(parse_sites(sites)))
    names = [str(sites)] if isinstance(sites, SiteStack) else [str(site) for site in chosen]
    backend = backend_of(engine.model)
    for site in chosen:
        backend.require(site)
    width = backend.d_model * (len(chosen) if isinstance(sites, SiteStack) else 1)
    settings = dict(
        **model_settings(engine, rows_per_part),
        what=ACTIVATIONS,
        sites=names,
        positions=str(parse_positions(positions)),
        chat=chat,
    )

    def read_all(different: list[str]) -> dict[str, Activations]:
        place = sites if isinstance(sites, SiteStack) else chosen
        whole = read_activations(engine.model, different, place, positions, chat=chat)
        groups = whole.table.groupby("prompt", sort=False).indices
        return {
            text: Activations(whole.vectors[torch.tensor(groups[i])], whole.table.iloc[groups[i]])
            for i, text in enumerate(different)
        }

    def make(part: Part, rows: list[str]) -> pa.Table:
        readings = try_each(rows, read_all)
        return _table([(number, readings[text]) for number, text in enumerate(rows, part.start)], names, width)

    return run_prompts(texts, output, settings, make, shard=shard, progress=progress)


def load_activations(folder: str | Path, site: PlaceLike | None = None) -> Activations:
    """All residual streams that `read_file` stored in a folder, held in memory; see `open_vectors` for some at a time.

    Args:
        folder: its output.
        site: one of those that it holds; by default all.

    Returns:
        them as `read_activations` returns them. Prompts that could not be read are left out, with a warning.

    Raises:
        FileFormatError: the folder holds no such job, or a part is missing or damaged.
        InterpToolkitError: a site that was not stored.

    Example:
        >>> load_activations("activations", 10).vectors.shape
        torch.Size([1000, 576])
    """
    sites = stored_sites(folder, None if site is None else str(parse_place(site)))
    blocks, failed = [], []
    table: dict[str, list[Any]] = dict(prompt=[], site=[], position=[], token=[])
    for path in part_paths(folder):
        part = read_part(path)
        about = part.select(["row", "position", "token", "problem"]).to_pandas()
        readable = about["problem"].isna().to_numpy()
        failed += about[~readable][["row", "problem"]].to_numpy().tolist()
        about = about[readable]
        # By prompt, then site, then position, as `read_activations` orders them.
        number, row = np.repeat(np.arange(len(sites)), len(about)), np.tile(np.arange(len(about)), len(sites))
        prompts = about["row"].to_numpy()
        order = np.lexsort((number, prompts[row]))
        blocks.append(torch.from_numpy(np.concatenate([_matrix(part, name)[readable] for name in sites])[order]))
        table["prompt"] += prompts[row[order]].tolist()
        table["site"] += [sites[i] for i in number[order]]
        table["position"] += about["position"].to_numpy()[row[order]].astype(int).tolist()
        table["token"] += about["token"].to_numpy()[row[order]].tolist()
    if failed:
        logger.warning("%d prompts could not be read; the first, number %d: %s", len(failed), *failed[0])
    return Activations(torch.cat(blocks), pd.DataFrame(table))


def _table(readings: list[tuple[int, Activations | InterpToolkitError]], sites: list[str], width: int) -> pa.Table:
    """The rows of a part: each prompt's tokens, or one row of NaN that says why there are none."""
    import pyarrow as pa

    about, vectors = [], {site: [] for site in sites}
    for number, read in readings:
        if isinstance(read, InterpToolkitError):
            about.append((str(number), number, None, None, first_line(read)))
            for site in sites:
                vectors[site].append(np.full((1, width), np.nan, dtype=np.float32))
            continue
        groups = read.table.groupby("site", sort=False).indices
        first = read.table.iloc[groups[sites[0]]]
        about += [(f"{number}:{at}", number, at, text, None) for at, text in zip(first["position"], first["token"])]
        for site in sites:
            vectors[site].append(read.vectors.numpy()[groups[site]])
    names = ["id", "row", "position", "token", "problem"]
    kinds = [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
    columns = {name: pa.array(values, kind) for name, values, kind in zip(names, zip(*about), kinds)}
    for site in sites:
        numbers = pa.array(np.concatenate(vectors[site]).reshape(-1))
        columns[site] = pa.FixedSizeListArray.from_arrays(numbers, width)
    return pa.table(columns)


def _matrix(part: pa.Table, name: str) -> np.ndarray:
    """A column of vectors, [rows, width]."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in part.column(name).chunks]
    return np.concatenate(chunks).reshape(part.num_rows, -1)
