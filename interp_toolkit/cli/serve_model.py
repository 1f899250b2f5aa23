"""The command `serve-model`: start a vLLM server that takes soft tokens."""

from __future__ import annotations

import argparse
import os
from typing import Any

from interp_toolkit.cli.command import add_command

_EXAMPLES = """examples:
  interp-toolkit serve-model meta-llama/Llama-3.1-8B-Instruct
  interp-toolkit serve-model smollm2-135m --dtype float32 --port 8001
  interp-toolkit serve-model ./my-model -- --tensor-parallel-size 8

Then, here or on another machine:
  interp-toolkit describe vectors.npy --engine http://127.0.0.1:8000 --adapter ./my-adapter --output descriptions

The server listens on this machine alone unless --host says otherwise. What it takes are tensors of whoever reaches it:
give it a key (-- --api-key KEY, and VLLM_API_KEY on the other side) and a network that you trust."""


def add(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        commands, "serve-model", "start a vLLM server that `describe --engine` can use", _EXAMPLES, _run
    )
    parser.add_argument("model", metavar="MODEL", help="hub id, folder, or smollm2-135m")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen on (default 8000)")
    parser.add_argument("--dtype", default="auto", help="of the model, such as bfloat16 (default: the model's own)")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="further options of vLLM")


def _run(options: argparse.Namespace) -> None:
    from interp_toolkit.engines import server_command

    command = server_command(
        options.model, host=options.host, port=options.port, dtype=options.dtype, options=options.options
    )
    print(" ".join(command), flush=True)
    os.execv(command[0], command)
