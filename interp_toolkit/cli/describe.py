"""The command `describe`: describe all vectors of a file, into a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from interp_toolkit.cli.command import add_command

_EXAMPLES = """examples:
  interp-toolkit describe vectors.npy --output descriptions
  interp-toolkit describe sae_weights.safetensors --tensor W_dec --adapter ./my-adapter --output descriptions
  interp-toolkit describe vectors.parquet --output descriptions --shard 0/4   (and 1/4, 2/4, 3/4 beside it)
  interp-toolkit describe vectors.npy --output descriptions --engine http://127.0.0.1:8000   (see serve-model)
  torchrun --nproc-per-node 8 -m interp_toolkit describe vectors.parquet --output descriptions
  interp-toolkit describe vectors.parquet --output descriptions --ray 8   (on a Ray cluster)

A run that was stopped goes on when the same command is given again. All descriptions as one data frame:
  from interp_toolkit.bulk import read_descriptions; read_descriptions("descriptions")"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        commands, "describe", "describe all vectors of a file, in parts that survive an interruption", _EXAMPLES, _run
    )
    parser.add_argument(
        "vectors", metavar="VECTORS", help="a .safetensors, .npy or .parquet file, a folder of pairs or of `read`"
    )
    parser.add_argument("--model", help="hub id, folder, or smollm2-135m (the default; of --engine what it serves)")
    add_job(parser)
    parser.add_argument("--tensor", metavar="NAME", help="of the tensor, column or site, where there are several")
    parser.add_argument(
        "--layer", type=int, metavar="N", help="block that the vectors are from; by default the adapter's"
    )
    parser.add_argument("--raw", action="store_true", help="the vectors are residual streams: subtract the mean")


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that describe vectors into a folder.

    Args:
        parser: of the command.
    """
    parser.add_argument("--engine", metavar="URL", help="address of a vLLM server that runs the model")
    parser.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="descriptions per vector (default 1, greedy)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    add_parts(parser, 4096, "vectors")


def add_parts(parser: argparse.ArgumentParser, rows_per_part: int, what: str) -> None:
    """Add the options of commands that write into a folder in parts.

    Args:
        parser: of the command.
        rows_per_part: by default.
        what: rows are.
    """
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for parquet files, a part each")
    parser.add_argument(
        "--rows-per-part",
        type=int,
        default=rows_per_part,
        metavar="N",
        help=f"{what} in each file (default {rows_per_part})",
    )
    parser.add_argument("--ray", type=int, metavar="N", help="share the parts among N workers of a Ray cluster")
    parser.add_argument(
        "--shard", metavar="I/N", help="begin with every N-th part; by default what torchrun or SLURM say"
    )


def job_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `describe_file` and `describe_sae` that these options give.

    Args:
        options: those of `add_job`, and ``--model``.
    """
    from interp_toolkit.engines import DEFAULT_MODEL, ServedEngine
    from interp_toolkit.runtime import Sampling

    return dict(
        model=ServedEngine(options.engine, options.model) if options.engine else options.model or DEFAULT_MODEL,
        adapter=options.adapter,
        sampling=Sampling(n=options.samples, seed=options.seed),
        **parts_options(options),
    )


def parts_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `read_file` and of those that describe which these options give.

    Args:
        options: those of `add_parts`.
    """
    return dict(
        output=options.output,
        rows_per_part=options.rows_per_part,
        shard=options.shard,
        progress=sys.stderr.isatty(),
    )


def run_job(options: argparse.Namespace, job: Any, *inputs: Any, **settings: Any) -> Any:
    """Run a job here, or on Ray.

    Args:
        options: those of `add_parts`.
        job: `describe_file`, `describe_sae`, `explain_file` or `read_file`.
        inputs: its arguments.
        settings: its named arguments.
    """
    if options.ray is None:
        return job(*inputs, **settings)
    from interp_toolkit.bulk.on_ray import run_on_ray

    return run_on_ray(job, inputs[0], settings.pop("output"), *inputs[1:], workers=options.ray, **settings)


def print_progress(options: argparse.Namespace, done: Any, what: str) -> None:
    """Say what this process did of a job.

    Args:
        options: of the command.
        done: what `describe_file` returned.
        what: was described.
    """
    others = f", {done.elsewhere:,} left to other processes that are at them" if done.elsewhere else ""
    print(f"{options.output}: {done.written:,} parts made ({done.rows:,} {what}), {done.there:,} were there{others}")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.bulk import describe_file

    done = run_job(
        options,
        describe_file,
        options.vectors,
        tensor=options.tensor,
        sites=options.layer,
        centered=False if options.raw else None,
        **job_options(options),
    )
    print_progress(options, done, "vectors")
