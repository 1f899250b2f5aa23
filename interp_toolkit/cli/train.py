"""The command that trains an adapter."""

from __future__ import annotations

import argparse
import sys
import typing
from typing import Any

from interp_toolkit.cli.command import add_command

_EXAMPLES = """examples:
  interp-toolkit train my-run.yaml --data ~/titles
  interp-toolkit train my-run.yaml --lr 0.02 --max-steps 100
A run that was stopped goes on by the same command."""


def add(commands: Any) -> None:
    """Add the command to others."""
    parser = add_command(commands, "train", "train an adapter as a YAML file says", _EXAMPLES, _run)
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument("--data", default=".", metavar="FOLDER", help="folder that its data paths are relative to")
    _add_settings(parser)


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.training.recipe import Recipe

    changed = {key.removeprefix("training_"): x for key, x in vars(options).items() if key.startswith("training_")}
    recipe = Recipe.read(options.config).with_training(**changed)
    result = recipe.run(options.data, progress=sys.stderr.isatty())
    print(f"best: validation loss {result.best_val_loss:.4f} at step {result.best_step}, in {recipe.output}/best")
    print(f"last: validation loss {result.last_val_loss:.4f}, in {recipe.output}/last")


def _add_settings(parser: argparse.ArgumentParser) -> None:
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
