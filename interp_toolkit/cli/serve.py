"""The command `serve`: open the explorer in a browser, with an API behind it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from interp_toolkit.cli.command import add_command

_EXAMPLES = """examples:
  interp-toolkit serve
  interp-toolkit serve --model gpt2 --adapter ./my-adapter --port 8080
  interp-toolkit serve --features descriptions --labels words.json --examples contexts.safetensors
  INTERP_TOOLKIT_TOKEN=... interp-toolkit serve --host 0.0.0.0 --allow-host explorer.example.org

The server listens on this machine alone unless --host says otherwise; it then needs a token, which clients send as
'Authorization: Bearer TOKEN' and for which the page asks."""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "serve", "explore a model's states in a browser, with an API", _EXAMPLES, _run)
    add_served(parser)
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="of `sae describe`: features to search")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="other labels of these features")
    parser.add_argument("--examples", type=Path, metavar="FILE", help="their top activating examples")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen on (default 8000)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which browsers reach the server; may be given several times",
    )


def add_served(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is served.

    Args:
        parser: of the command.
    """
    parser.add_argument("--model", default="smollm2-135m", help="hub id, folder, or smollm2-135m (the default)")
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        help="path, hub id or shipped name, the default one first; may be given several times; by default all that "
        "are shipped for the model",
    )


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.serve.run import checked_token, load_service, require_free, serve

    token = checked_token(options.host, os.environ.get("INTERP_TOOLKIT_TOKEN"))
    require_free(options.host, options.port)
    print(f"loading {options.model} ...", file=sys.stderr, flush=True)
    service = load_service(
        options.model,
        options.adapter,
        features=options.features,
        labels=options.labels,
        examples=options.examples,
    )
    print(f"open http://{options.host}:{options.port} (Ctrl+C ends it)", file=sys.stderr, flush=True)
    serve(service, host=options.host, port=options.port, token=token, allow_hosts=options.allow_host)
