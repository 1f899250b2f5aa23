"""The command `mcp`: offer descriptions to agents over the Model Context Protocol."""

from __future__ import annotations

import argparse
from typing import Any

from interp_toolkit.cli.command import add_command
from interp_toolkit.cli.serve import add_served

_EXAMPLES = """examples:
  interp-toolkit mcp
  interp-toolkit mcp --model gpt2 --adapter ./my-adapter

For an agent that starts its servers itself, over standard input and output; in its configuration:
  {"command": "interp-toolkit", "args": ["mcp"]}"""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(commands, "mcp", "offer descriptions to agents (Model Context Protocol)", _EXAMPLES, _run)
    add_served(parser)


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.serve.run import load_service
    from interp_toolkit.serve.scheduler import Scheduler
    from interp_toolkit.serve.tools import create_tools

    service = load_service(options.model, options.adapter)
    with Scheduler(service.engine, service.limits) as scheduler:
        create_tools(service, scheduler).run("stdio")
