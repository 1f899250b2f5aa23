"""The command that trains an adapter."""

from __future__ import annotations

import argparse
import sys
import typing
import warnings
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.deprecation import old_field_names

_EXAMPLES = """examples:
  interp-toolkit train my-run.yaml --data ~/titles
  interp-toolkit train my-run.yaml --lr 0.02 --max-steps 100
  torchrun --nproc-per-node 2 -m interp_toolkit train my-run.yaml   (each batch shared out among two processes)
A run that was stopped goes on by the same command."""


def add(commands: Any) -> None:
    """Add the command to others."""
    parser = add_command(commands, "train", "train an adapter as a YAML file says", _EXAMPLES, _run)
    parser.add_argument("config", metavar="CONFIG.yaml")
    parser.add_argument("--data", default=".", metavar="FOLDER", help="folder that its data paths are relative to")
    _add_settings(parser)


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.training.ranks import Ranks
    from interp_toolkit.training.recipe import Recipe

    changed = {key.removeprefix("training_"): x for key, x in vars(options).items() if key.startswith("training_")}
    with warnings.catch_warnings():
        # Python shows warnings of old names to programmers alone, and these come from a file or a command line.
        warnings.filterwarnings("default", category=DeprecationWarning, module="interp_toolkit")
        recipe = Recipe.read(options.config).with_training(**changed)
    result = recipe.run(options.data, progress=sys.stderr.isatty())
    if not Ranks.joined().first:
        return
    print(f"best: validation loss {result.best_val_loss:.4f} at step {result.best_step}, in {recipe.output}/best")
    print(f"last: validation loss {result.last_val_loss:.4f}, in {recipe.output}/last")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add one option per field of `TrainConfig`, with its docstring for help, and its old name where it has one."""
    from interp_toolkit.training.config import TrainConfig

    settings = parser.add_argument_group("settings that override the file's 'training'")
    kinds = typing.get_type_hints(TrainConfig)
    for name, text in TrainConfig.describe().items():
        default = getattr(TrainConfig, name)
        shown = text if default in (None, ()) else f"{text.removesuffix('.')} (default {default})"
        _add_setting(settings, name, kinds[name], shown)
    for old, new in old_field_names(TrainConfig).items():
        _add_setting(settings, old, kinds[new], argparse.SUPPRESS)


def _add_setting(settings: Any, name: str, kind: Any, text: str) -> None:
    options = typing.get_args(kind) or (kind,)
    how: dict[str, Any] = dict(dest=f"training_{name}", default=argparse.SUPPRESS, help=text)
    if options[0] is bool:
        how |= dict(action=argparse.BooleanOptionalAction)
    elif typing.get_origin(kind) is tuple:
        how |= dict(nargs="*", metavar="NAME")
    else:
        how |= dict(type=options[0], metavar={int: "N", float: "X", str: "NAME"}[options[0]])
    settings.add_argument(f"--{name.replace('_', '-')}", **how)
