"""The commands for SAEs: train one, label its features, score the labels, compare descriptions with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from interp_toolkit.cli import sae_steps
from interp_toolkit.cli.command import add_command, page_path
from interp_toolkit.cli.describe import add_job
from interp_toolkit.cli.printing import add_shape
from interp_toolkit.deprecation import warn_renamed

_GROUP = """examples:
  interp-toolkit sae train sae.yaml --data ~/data
  interp-toolkit sae label runs/my-sae/sae --passages passages.jsonl.gz --output labels.json
  interp-toolkit sae describe runs/my-sae/sae --adapter ./my-adapter --output descriptions
  interp-toolkit sae score runs/my-sae/sae labels.json --passages passages.jsonl.gz --adapter ./my-adapter
  interp-toolkit sae compare runs/my-sae/sae labels.json --adapter ./my-adapter --scores sae-scores.json
What is done is saved: a command that was stopped goes on when it is run again. See docs/sae.md."""
_TRAIN = """example:
  interp-toolkit sae train sae.yaml --data ~/data"""
_LABEL = """examples:
  interp-toolkit sae label runs/my-sae/sae --passages passages.jsonl.gz --output labels.json
  interp-toolkit sae label my-sae --passages passages.jsonl.gz --server http://localhost:8000/v1 --ask qwen
The key of a server is read from the environment variable OPENAI_API_KEY."""
_DESCRIBE = """examples:
  interp-toolkit sae describe my-sae --adapter ./my-adapter --output descriptions
  interp-toolkit sae describe my-sae --features 0:4096 --samples 6 --output descriptions --engine http://127.0.0.1:8000
  interp-toolkit sae describe my-sae --output descriptions --neuronpedia export --page features.html
  interp-toolkit sae describe my-sae --output descriptions --labels words.json llm.json --passages held-out.jsonl \
    --table labels.parquet
A run that was stopped goes on when the same command is given again; several processes share one folder (--shard 0/4).
All descriptions as one data frame:
  from interp_toolkit.bulk import read_feature_descriptions; read_feature_descriptions("descriptions")"""
_SCORE = """examples:
  interp-toolkit sae score my-sae labels.json --passages passages.jsonl.gz --limit 20
  interp-toolkit sae score my-sae labels.json --passages passages.jsonl.gz --adapter ./my-adapter"""
_COMPARE = """examples:
  interp-toolkit sae compare my-sae labels.json --adapter ./my-adapter
  interp-toolkit sae compare my-sae labels.json --adapter ./my-adapter --scores sae-scores.json"""

_ROWS = "a list of rows for each table"


def add(commands: Any) -> None:
    """Add the command, with its own commands, to others."""
    group = add_command(commands, "sae", "train an SAE; label and describe its features, score labels", _GROUP)
    steps = group.add_subparsers(required=True, metavar="STEP")

    train = add_command(steps, "train", "train an SAE as a YAML file says", _TRAIN, sae_steps.train)
    train.add_argument("config", metavar="CONFIG.yaml")
    train.add_argument("--data", type=Path, default=Path("."), metavar="FOLDER", help="holds the file of passages")
    add_shape(train, _ROWS)

    label = add_command(steps, "label", "label features by the texts they are active in", _LABEL, sae_steps.label)
    _add_sae(label)
    _add_passages(label)
    _add_examples(label)
    label.add_argument(
        "--contexts", dest="examples", type=Path, action=_Renamed, new="--examples", help=argparse.SUPPRESS
    )
    label.add_argument("--server", metavar="URL", help="ask a server that speaks OpenAI's protocol")
    label.add_argument("--ask", metavar="MODEL", help="model of the server; without a server a hub id or folder")
    label.add_argument("--output", type=Path, default=Path("labels.json"), metavar="FILE.json")

    describe = add_command(
        steps, "describe", "describe features by their directions, with evidence", _DESCRIBE, sae_steps.describe
    )
    _add_sae(describe, default_model=None)
    add_job(describe)
    describe.add_argument("--neuronpedia", type=Path, metavar="FOLDER", help="also write Neuronpedia's export there")
    describe.add_argument("--page", type=page_path, metavar="FILE.html", help="also write a page of all features")
    describe.add_argument("--table", type=Path, metavar="FILE.parquet", help="also write a row for each feature there")
    describe.add_argument(
        "--labels",
        nargs="+",
        metavar="LABELS",
        help="other labels of the features, see docs/sae.md: of these and the description the one goes into export, "
        "page and table that fits texts of --passages best",
    )
    _add_passages(describe, required=False)
    _add_examples(describe)
    describe.add_argument("--all", action="store_true", help="export descriptions below the threshold of evidence too")

    score = add_command(steps, "score", "score labels by texts that are written for them", _SCORE, sae_steps.score)
    _add_sae(score)
    score.add_argument("labels", metavar="LABELS", help="file or folder, see docs/sae.md; the original ones")
    _add_passages(score)
    score.add_argument("--adapter", help="path, hub id or shipped name, to score its descriptions too")
    score.add_argument("--no-chat", action="store_true", help="read the texts as they are, not as user turns")
    score.add_argument("--texts", type=int, default=5, metavar="N", help="texts per label (default 5)")
    score.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    score.add_argument("--output", type=Path, default=Path("sae-scores.json"), metavar="FILE.json")
    add_shape(score, _ROWS)

    compare = add_command(
        steps, "compare", "compare an adapter's descriptions with the labels", _COMPARE, sae_steps.compare
    )
    _add_sae(compare)
    compare.add_argument("labels", metavar="LABELS", help="file or folder, see docs/sae.md; the original ones")
    compare.add_argument("--adapter", required=True, help="path, hub id or shipped name")
    compare.add_argument("--scores", type=Path, metavar="FILE.json", help="of `sae score` with this adapter")
    compare.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    compare.add_argument("--output", type=Path, default=Path("sae-comparison.json"), metavar="FILE.json")
    add_shape(compare, _ROWS)


class _Renamed(argparse.Action):
    """An option by its old name, which warns."""

    def __init__(self, *args: Any, new: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.new = new

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the new option."""
        warn_renamed(str(option_string), self.new)
        setattr(namespace, self.dest, values if self.const is None else self.const)


class _Features(argparse.Action):
    """Numbers of features and ranges of them, as one list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the list."""
        setattr(namespace, self.dest, [number for some in values for number in some])


def _feature_range(text: str) -> range:
    start, colon, stop = text.partition(":")
    if not (start.isdecimal() and (stop.isdecimal() if colon else True)):
        raise argparse.ArgumentTypeError(f"expected the number of a feature or a range like 0:4096, got {text!r}")
    return range(int(start), int(stop) if colon else int(start) + 1)


def _add_sae(parser: argparse.ArgumentParser, default_model: str | None = "smollm2-135m") -> None:
    parser.add_argument("sae", metavar="SAE", help="folder with cfg.json and sae_weights.safetensors, or a release")
    parser.add_argument("--id", metavar="ID", help="which SAE of a release")
    parser.add_argument("--model", default=default_model, help="hub id, folder, or smollm2-135m (the default)")
    parser.add_argument(
        "--on-mismatch",
        choices=("error", "warn"),
        default="error",
        help="refuse an SAE or adapter of another model or site (error, the default), or warn of it",
    )
    for old in ("--any-model", "--any-site"):
        parser.add_argument(
            old,
            dest="on_mismatch",
            nargs=0,
            const="warn",
            action=_Renamed,
            new="--on-mismatch warn",
            help=argparse.SUPPRESS,
        )
    parser.add_argument(
        "--features",
        type=_feature_range,
        action=_Features,
        nargs="+",
        metavar="N",
        help="numbers, or ranges like 0:4096; by default all",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N of these features")


def _add_examples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples", type=Path, metavar="FILE", help="top examples of `sae train`; else they are searched"
    )


def _add_passages(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--passages", type=Path, required=required, metavar="FILE", help="JSON Lines, one text per line"
    )
    parser.add_argument("--split", metavar="NAME", help="take passages of this split alone, such as eval")
    parser.add_argument("--take", type=int, metavar="N", help="at most N passages, from the beginning")
