"""The command that starts a vLLM server for `ServedEngine`."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_toolkit.cache import cache_folder
from interp_toolkit.engines.model_files import PLACEHOLDER, OutsideModel, no_vllm
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import sha256_of_json, whole_folder
from interp_toolkit.soft_prompt import free_marker

# The files of a tokenizer that name tokens.
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def server_command(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: str = "auto",
    options: Sequence[str] = (),
) -> list[str]:
    """The command line of a vLLM server that takes soft tokens.

    Where the tokenizer leaves no room in the model's vocabulary for vLLM's placeholder, a copy of the tokenizer is made
    in the cache folder, in which a token that means nothing has the placeholder's name: without room, a request for
    log-probabilities would end the server.

    Args:
        model: hub id or folder, or ``"smollm2-135m"``.
        host: address to listen on. Prompt embeddings are tensors that strangers may send: another address than the
            machine itself asks for a key (``--api-key``) and a network that is trusted.
        port: to listen on.
        dtype: of the model, such as ``"float32"``.
        options: further options of vLLM, such as ``["--tensor-parallel-size", "8"]``.

    Returns:
        the command and its arguments.

    Raises:
        InterpToolkitError: vLLM is not installed here, the model cannot be read, or its vocabulary has no token to
            spare.

    Example:
        >>> subprocess.run(server_command("smollm2-135m", dtype="float32"))
    """
    if importlib.util.find_spec("vllm") is None:
        raise no_vllm()
    files = OutsideModel.read(model)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", files.source]
    if len(files.tokenizer) >= files.vocabulary:
        command += ["--tokenizer", str(tokenizer_with_placeholder(files))]
    command += ["--trust-request-chat-template", "--host", host, "--port", str(port), "--dtype", dtype]
    for name, value in files.vllm_settings().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            command += [f"--{flag}", str(value)]
    return [*command, *options]


def tokenizer_with_placeholder(model: OutsideModel) -> Path:
    """A folder with a model's tokenizer in which a token that means nothing is called as vLLM's placeholder is.

    Args:
        model: whose tokenizer fills its vocabulary.

    Raises:
        InterpToolkitError: no token can be spared.
    """
    token = free_marker(model.tokenizer, "", model.vocabulary)
    if token is None:
        raise InterpToolkitError(
            f"expected a token that means nothing (reserved, unused) in the vocabulary of {model.facts.model_id}, and "
            f"there is none to stand for soft tokens; describe with a hooked model, or with VllmEngine in its process"
        )
    key = sha256_of_json(dict(model=model.facts.model_id, token=token, vocabulary=model.tokenizer.get_vocab()))
    folder = cache_folder() / "tokenizers" / key[:16]
    if not (folder / _FILES[0]).exists():
        with whole_folder(folder) as draft:
            model.tokenizer.save_pretrained(draft)
            for path in (draft / name for name in _FILES):
                if path.exists():
                    renamed = _renamed(json.loads(path.read_text(encoding="utf-8")), token)
                    path.write_text(json.dumps(renamed, ensure_ascii=False), encoding="utf-8")
    return folder


def _renamed(value: Any, token: str) -> Any:
    """JSON in which a token has the placeholder's name, as a key and as a text."""
    if isinstance(value, dict):
        return {_renamed(key, token): _renamed(item, token) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, token) for item in value]
    return PLACEHOLDER if value == token else value
