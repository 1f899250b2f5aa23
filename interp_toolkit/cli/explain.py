"""The command `explain`: describe the hidden states of prompts."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

from interp_toolkit.cli.command import add_command, page_path
from interp_toolkit.cli.printing import add_shape

_EXAMPLES = """examples:
  interp-toolkit explain "How do I get a sourdough loaf to rise?"
  interp-toolkit explain "Who painted the Mona Lisa?" --samples 6 --json
  interp-toolkit explain "The Mona Lisa was painted by" --model gpt2 --adapter ./my-adapter --no-chat
  interp-toolkit explain "Who painted the Mona Lisa?" --samples 6 --html mona-lisa.html
  interp-toolkit explain "Who painted the Mona Lisa?" --model http://127.0.0.1:8000   (see serve)"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "explain", "describe the hidden states of prompts", _EXAMPLES, _run)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="a user's message to the model")
    parser.add_argument(
        "--model",
        default="smollm2-135m",
        help="hub id, folder, smollm2-135m (the default), or the address of interp-toolkit serve, which answers sooner",
    )
    parser.add_argument("--adapter", help="path, hub id or shipped name; by default the one shipped for the model")
    add_reading(parser)
    parser.add_argument("--any-layer", action="store_true", help="allow a layer that the adapter was not trained on")
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="descriptions per prompt (default 1, greedy)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    parser.add_argument(
        "--null", action="store_true", help="also describe the null vector: what the adapter says about nothing"
    )
    shape = add_shape(parser, "one object per description")
    shape.add_argument("--html", type=page_path, metavar="FILE.html", help="write one page that needs no network")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is read of prompts.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--layer", type=int, metavar="N", help="read after block N; by default the site that the adapter was trained on"
    )
    add_texts(parser, "by default as the adapter's training prompts were")


def add_texts(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add the options that say which tokens of which form of a text are read.

    Args:
        parser: of the command.
        otherwise: when texts go through the chat template.
    """
    parser.add_argument(
        "--position",
        type=_position,
        default=-1,
        metavar="P",
        help="token position to read, by default -1, the last; 'content' for each token of the text, 'all' for those "
        "of the chat template too",
    )
    parser.add_argument(
        "--no-chat",
        action="store_true",
        help=f"read texts as plain text; through the chat template {otherwise}",
    )


def _position(text: str) -> int | str:
    return text if text in ("all", "content", "last") else int(text)


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.errors import InterpToolkitError
    from interp_toolkit.explain import self_explain
    from interp_toolkit.runtime import Sampling

    for text in options.texts:
        # Python decodes arguments that are not UTF-8 to lone surrogates, which tokenizers refuse.
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise InterpToolkitError(f"expected texts in UTF-8, got {text!a}; convert it first, as iconv does")
    explanations = self_explain(
        options.texts,
        model=options.model,
        adapter=options.adapter,
        sites=options.layer,
        positions=options.position,
        include_null=options.null,
        chat=False if options.no_chat else None,
        on_mismatch="warn" if options.any_layer else "error",
        progress=sys.stderr.isatty(),
        sampling=Sampling(n=options.samples, seed=options.seed),
    )
    if options.html:
        from interp_toolkit.views import explanations_report

        print(f"written to {explanations_report(explanations).save(options.html)}")
    elif options.json:
        # to_json writes null where a number is missing; json.dumps would write NaN, which is invalid JSON.
        print(explanations.to_df().to_json(orient="records", indent=2, force_ascii=False))
    elif options.csv:
        print(explanations.to_df().to_csv(index=False), end="")
    else:
        print(explanations.to_text(shutil.get_terminal_size().columns))
