"""The commands: thin faces of the library's functions."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_EXPLAIN = """examples:
  interp-toolkit explain "How do I get a sourdough loaf to rise?"
  interp-toolkit explain "Who painted the Mona Lisa?" --samples 6 --json
  interp-toolkit explain "Who painted the Mona Lisa?" --samples 6 --html mona-lisa.html"""
_TRAIN = """examples:
  interp-toolkit train my-run.yaml --data ~/titles
  interp-toolkit train my-run.yaml --lr 0.02 --max-steps 100
A run that was stopped goes on by the same command."""
_EVALUATE = """examples:
  interp-toolkit evaluate abstention --data ~/data --limit 50
  interp-toolkit evaluate controls --adapter ./my-adapter --data ~/data
What is done is kept: a run that was stopped goes on by the same command. See docs/evaluation.md for the data."""
_RUNS = ("abstention", "bias", "bridges", "controls", "knowledge", "mixtures", "round_trip")
_REPORT = """examples:
  interp-toolkit report evaluations/abstention-default.json --html abstention.html
  interp-toolkit report runs/first evaluations --html all.html"""
_INFO = """examples:
  interp-toolkit info smollm2_rank64
  interp-toolkit info ./my-adapter --json"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Loading shows bars and notes of other libraries, which belong to no table.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from interp_toolkit.errors import InterpToolkitError

    _quiet_libraries()
    try:
        options.run(options)
    except InterpToolkitError as error:
        print(f"interp-toolkit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        told = str(stop) or "interrupted; the same command goes on from what is done"
        print(f"interp-toolkit: {told}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; nothing more can be said on it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="interp-toolkit", description="Let a language model say in words what its own hidden states mean."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = _command(commands, "explain", "describe the hidden states of prompts", _EXPLAIN, _explain)
    explain.add_argument("texts", nargs="+", metavar="TEXT", help="what a user says to the model")
    explain.add_argument("--model", default="smollm2-135m", help="hub id, folder, or smollm2-135m (the default)")
    explain.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    explain.add_argument("--layer", type=int, metavar="N", help="read after block N; by default the adapter's own site")
    explain.add_argument("--any-layer", action="store_true", help="allow a layer that the adapter was not trained on")
    explain.add_argument("--position", type=int, default=-1, metavar="P", help="token to read; by default -1, the last")
    explain.add_argument("--samples", type=int, default=1, metavar="N", help="descriptions of each (default 1, greedy)")
    explain.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    explain.add_argument("--null", action="store_true", help="also show what the adapter says about nothing")
    shape = explain.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON, one object a description")
    shape.add_argument("--csv", action="store_true", help="print CSV")
    shape.add_argument("--html", type=Path, metavar="FILE.html", help="write one page that needs no network")

    train = _command(commands, "train", "train an adapter as a YAML file says", _TRAIN, _train)
    train.add_argument("config", metavar="CONFIG.yaml")
    train.add_argument("--data", default=".", metavar="FOLDER", help="folder that its data paths are relative to")
    _add_training_settings(train)

    evaluate = _command(commands, "evaluate", "measure how far an adapter can be trusted", _EVALUATE, _evaluate)
    evaluate.add_argument("name", metavar="NAME", choices=_RUNS, help=", ".join(_RUNS))
    evaluate.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    evaluate.add_argument("--model", default="smollm2-135m", help="hub id, folder, or smollm2-135m (the default)")
    evaluate.add_argument("--data", type=Path, default=Path("."), metavar="FOLDER", help="holds topics/topics.jsonl.gz")
    evaluate.add_argument("--limit", type=int, metavar="N", help="a trial on the first N titles or prompts")
    evaluate.add_argument("--output", type=Path, metavar="FILE.json", help="by default evaluations/NAME-ADAPTER.json")

    report = _command(commands, "report", "show results on one page that needs no network", _REPORT, _report)
    report.add_argument(
        "results", nargs="+", metavar="RESULTS", help="results (.json), training logs (log.jsonl), or folders of them"
    )
    report.add_argument("--html", type=Path, required=True, metavar="FILE.html", help="where to write it")

    info = _command(commands, "info", "show what an adapter is and what it was trained with", _INFO, _info)
    info.add_argument("adapter", metavar="ADAPTER", help="path, hub id or shipped name")
    info.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_training_settings(parser: argparse.ArgumentParser) -> None:
    """One option for each field of `TrainConfig`, with its docstring for help."""
    from interp_toolkit.training.config import TrainConfig

    settings = parser.add_argument_group("settings that override the file's 'training'")
    kinds = typing.get_type_hints(TrainConfig)
    for name, text in TrainConfig.describe().items():
        default = getattr(TrainConfig, name)
        options = typing.get_args(kinds[name]) or (kinds[name],)
        said = text if default in (None, ()) else f"{text.removesuffix('.')} (default {default})"
        how: dict[str, Any] = dict(dest=f"training_{name}", default=argparse.SUPPRESS, help=said)
        if options[0] is bool:
            how |= dict(action=argparse.BooleanOptionalAction)
        elif isinstance(default, tuple):
            how |= dict(nargs="*", metavar="NAME")
        else:
            how |= dict(type=options[0], metavar={int: "N", float: "X", str: "NAME"}[options[0]])
        settings.add_argument(f"--{name.replace('_', '-')}", **how)


def _command(commands: Any, name: str, summary: str, examples: str, run: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _explain(options: argparse.Namespace) -> None:
    from interp_toolkit.explain import self_explain

    found = self_explain(
        options.texts,
        model=options.model,
        adapter=options.adapter,
        sites=options.layer,
        positions=[options.position],
        samples=options.samples,
        seed=options.seed,
        null=options.null,
        any_site=options.any_layer,
    )
    if options.html:
        from interp_toolkit.views import explanations_report

        print(f"written to {explanations_report(found).save(options.html)}")
    elif options.json:
        # to_json writes null where a number is missing; json.dumps would write NaN, which is no JSON.
        print(found.to_df().to_json(orient="records", indent=2, force_ascii=False))
    elif options.csv:
        print(found.to_df().to_csv(index=False), end="")
    else:
        print(found.to_text(shutil.get_terminal_size().columns))


def _train(options: argparse.Namespace) -> None:
    from interp_toolkit.training.recipe import Recipe

    changed = {key.removeprefix("training_"): x for key, x in vars(options).items() if key.startswith("training_")}
    recipe = Recipe.read(options.config).with_training(**changed)
    result = recipe.run(options.data, progress=sys.stderr.isatty())
    print(f"best: validation loss {result.best_val_loss:.4f} at step {result.best_step}, in {recipe.output}/best")
    print(f"last: validation loss {result.last_val_loss:.4f}, in {recipe.output}/last")


def _evaluate(options: argparse.Namespace) -> None:
    import importlib

    import pandas as pd

    from interp_toolkit.evaluation.bench import Bench
    from interp_toolkit.models import model_facts
    from interp_toolkit.shipped import default_adapter, find_adapter
    from interp_toolkit.tables import frame_text

    bench = Bench(options.data / "topics" / "topics.jsonl.gz", options.limit, options.model)
    adapter = find_adapter(options.adapter) if options.adapter else default_adapter(model_facts(bench.model))
    trial = f"-limit-{options.limit}" if options.limit else ""
    named = Path(options.adapter or "default").name
    output = options.output or Path("evaluations") / f"{options.name}-{named}{trial}.json"
    told = importlib.import_module(f"interp_toolkit.evaluation.runs.{options.name}").run(bench, adapter, output)
    width = shutil.get_terminal_size().columns
    for name, rows in told["tables"].items():
        print(f"{name}\n{frame_text(pd.DataFrame(rows), width)}\n")
    print(f"written to {output}")


def _report(options: argparse.Namespace) -> None:
    from interp_toolkit.views import results_report

    print(f"written to {results_report(options.results).save(options.html)}")


def _info(options: argparse.Namespace) -> None:
    from interp_toolkit.shipped import find_adapter

    adapter = find_adapter(options.adapter)
    contract = adapter.contract
    told: dict[str, Any] = {
        "kind": adapter.config.kind,
        "parameters": adapter.parameter_count,
        **{key: value for key, value in adapter.config.to_dict().items() if key != "kind" and value is not None},
        "digest": adapter.digest,
        "contract": contract.to_dict() if contract else None,
        "metadata": adapter.metadata,
    }
    if options.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for key, value in _flat(told):
        print(f"{key:<28} {value}")


def _flat(told: dict[str, Any], under: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in told.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{under}{key}.")
        else:
            # A prompt holds line breaks, and a row is a line.
            rows.append((under + key, repr(value) if isinstance(value, str) and "\n" in value else value))
    return rows


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"interp-toolkit {version('interp-toolkit')}"
    except PackageNotFoundError:
        return f"interp-toolkit (not installed, {Path(__file__).parent})"


def _quiet_libraries() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
