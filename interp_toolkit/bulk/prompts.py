"""Describe the hidden states of all prompts of a file, in parts that are written as they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from interp_toolkit.activations import Positions
from interp_toolkit.adapters import Adapter
from interp_toolkit.bulk.describe import common_settings
from interp_toolkit.bulk.parts import Part, Progress, parse_shard, run_parts, split_rows
from interp_toolkit.engines import DEFAULT_MODEL, Engine, LocalEngine, as_engine
from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.explain import choose_adapter, self_explain
from interp_toolkit.json_lines import read_json_lines, read_lines
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import PlaceLike

if TYPE_CHECKING:
    import pyarrow as pa

Result = TypeVar("Result")

# Columns of a table of prompts that are taken where none is named, the first that is there.
_USUAL_NAMES = ("prompt", "text")
_FILES = "prompts in a .txt file (a prompt in each line), .jsonl or .jsonl.gz (objects with a text), or .parquet"
_TYPES = dict(
    row="int64",
    source="string",
    site="string",
    position="Int64",
    token="string",
    scale="float64",
    sample="Int64",
    description="string",
    log_prob="float64",
    evidence="float64",
    above_threshold="boolean",
    confidence="float64",
    problem="string",
)


def read_prompts(path: str | Path, column: str | None = None) -> list[str]:
    """The prompts of a file.

    Args:
        path: a text file in which each line is a prompt, perhaps gzipped; JSON Lines; or parquet.
        column: the key or column that holds the texts; by default ``prompt``, else ``text``.

    Returns:
        the texts in their order, empty ones included.

    Raises:
        FileFormatError: there is no such file, it is damaged, it has no row, or a row holds no text.
    """
    path = Path(path).expanduser()
    name = path.name.removesuffix(".gz")
    if not path.is_file() or not name.endswith((".txt", ".jsonl", ".parquet")):
        raise FileFormatError(f"expected {_FILES}, got {path}" + ("" if path.exists() else ", where there is nothing"))
    if name.endswith(".txt"):
        return _some(path, [line for _, line in read_lines(path, "a file of prompts")])
    if name.endswith(".jsonl"):
        rows = list(read_json_lines(path, "a file of prompts"))
    else:
        try:
            table = pd.read_parquet(path)
        except Exception as error:  # whatever the reader of parquet raises at a damaged file
            raise FileFormatError(f"{path} is damaged: {first_line(error)}") from error
        rows = [(f"{path}, row {i}", row) for i, row in enumerate(table.to_dict("records"))]
    known = list(rows[0][1]) if rows else []
    chosen = column or next((name for name in _USUAL_NAMES if name in known), "")
    texts = []
    for where, row in rows:
        if not isinstance(row.get(chosen), str):
            raise FileFormatError(
                f"{where}: expected a text in {chosen or 'a column prompt or text'!r}, got {row.get(chosen)!r:.60}; "
                f"name the column of the prompts (--column), one of {', '.join(map(str, known))}"
            )
        texts.append(row[chosen])
    return _some(path, texts)


def _some(path: Path, texts: list[str]) -> list[str]:
    if not texts:
        raise FileFormatError(f"expected at least one prompt in {path}, and there is none")
    return texts


def explain_file(
    prompts: str | Path,
    output: str | Path,
    *,
    model: Any = DEFAULT_MODEL,
    adapter: Adapter | str | Path | None = None,
    column: str | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    chat: bool | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    rows_per_part: int = 1024,
    shard: str | None = None,
    progress: bool = False,
) -> Progress:
    """Describe the hidden states of every prompt of a file, as `self_explain` does, into parquet files in a folder.

    As with `describe_file`, parts that are there are skipped and several processes share one folder.
    `read_descriptions` gives one table, in which ``row`` is the number of the prompt, and ``problem`` says why one
    could not be described. Equal prompts are described once.

    Args:
        prompts: a file that `read_prompts` reads; its texts are held in memory.
        output: folder of the parts.
        model: a hooked model, or what `load_model` takes.
        adapter: as of `self_explain`.
        column: the key or column that holds the texts; by default ``prompt``, else ``text``.
        sites: as of `self_explain`.
        positions: as of `self_explain`.
        chat: as of `self_explain`.
        sampling: as of `self_explain`.
        rows_per_part: prompts in each file.
        shard: as of `describe_file`.
        progress: whether to show a bar, with rows per second and the time that is left.

    Returns:
        what this process did.

    Raises:
        ContractError: an adapter for another model or site.
        InterpToolkitError: a file that cannot be read, an engine that reads no prompts, or a folder of another job.

    Example:
        >>> explain_file("questions.txt", "explained", positions="content", progress=True)
        >>> read_descriptions("explained").query("confidence > 0.9")
    """
    texts, engine = read_prompts(prompts, column), require_local(as_engine(model))
    chosen = choose_adapter(adapter, engine.facts, None, sites)
    chosen.require_contract(engine.facts).places(sites)
    settings = dict(
        **common_settings(engine, chosen, sampling, rows_per_part),
        sites=None if sites is None else str(sites),
        positions=str(positions),
        chat=chat,
    )

    def explain(different: list[str]) -> dict[str, pd.DataFrame]:
        whole = self_explain(
            different, model=engine, adapter=chosen, sites=sites, positions=positions, chat=chat, sampling=sampling
        ).to_df()
        return {str(text): table for text, table in whole.groupby("source", sort=False)}

    def make(part: Part, rows: list[str]) -> pd.DataFrame:
        tables = {
            text: pd.DataFrame([dict(source=text, problem=first_line(result))])
            if isinstance(result, InterpToolkitError)
            else result
            for text, result in try_each(rows, explain).items()
        }
        numbered = [tables[text].assign(row=number) for number, text in enumerate(rows, part.start)]
        return pd.concat(numbered, ignore_index=True).reindex(columns=list(_TYPES)).astype(_TYPES)

    return run_prompts(texts, output, settings, make, shard=shard, progress=progress)


def try_each(texts: list[str], run: Callable[[list[str]], dict[str, Result]]) -> dict[str, Result | InterpToolkitError]:
    """What a function makes of each different prompt; the error where it refuses one.

    Args:
        texts: some of which may be equal.
        run: makes something of each of several different prompts.
    """
    different = list(dict.fromkeys(texts))
    try:
        return {**run(different)}
    except InterpToolkitError:  # of one prompt or several: each is tried alone
        results: dict[str, Result | InterpToolkitError] = {}
        for text in different:
            try:
                results |= run([text])
            except InterpToolkitError as error:
                results[text] = error
        return results


def run_prompts(
    texts: list[str],
    output: str | Path,
    settings: Mapping[str, Any],
    make: Callable[[Part, list[str]], pd.DataFrame | pa.Table],
    *,
    shard: str | None,
    progress: bool,
) -> Progress:
    """Make the parts of a job whose inputs are prompts, see `run_parts`.

    Args:
        texts: of all prompts.
        output: folder of the parts.
        settings: of `model_settings`, and all else that decides what the parts hold.
        make: the rows of a part, from its prompts.
        shard: as of `describe_file`.
        progress: whether to show a bar, in prompts.
    """

    def read(part: Part) -> tuple[list[str], str]:
        rows = texts[part.start : part.stop]
        return rows, hashlib.sha256("\0".join(rows).encode("utf-8", "surrogatepass")).hexdigest()

    plan = split_rows(len(texts), settings["rows_per_part"])
    return run_parts(Path(output), settings, plan, read, make, shard=parse_shard(shard), progress=progress)


def require_local(engine: Engine) -> LocalEngine:
    """An engine that reads activations.

    Args:
        engine: of the model.

    Raises:
        InterpToolkitError: it reads none.
    """
    if not isinstance(engine, LocalEngine):
        raise InterpToolkitError(
            f"expected a hooked model, since {type(engine).__name__} reads no activations; describe vectors with it"
        )
    return engine
