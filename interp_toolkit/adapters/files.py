"""Adapters on disk, in the library's own format: a folder with a JSON file and a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.files import whole_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_FORMAT = "interp_toolkit_adapter"
_VERSION = 1
_MEAN = "contract.mean"
# Beside a matrix of whole numbers: what one step is worth in each of its columns.
_STEP = ".step"


@dataclass(frozen=True, eq=False)
class StoredAdapter:
    """An adapter as files hold it, whatever their format.

    Attributes:
        config: shape and start.
        tensors: parameters by name.
        contract: what it was trained with; its parts may be None where a published file does not say.
        metadata: everything else that the file says, as strings.
    """

    config: AdapterConfig
    tensors: Mapping[str, Tensor]
    contract: Contract | None
    metadata: Mapping[str, str] = field(default_factory=dict)


def write(stored: StoredAdapter, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write an adapter folder, whole or not at all.

    Args:
        stored: the adapter.
        folder: to write.
        dtype: float32, float16, bfloat16, or int8 for matrices in whole numbers, each column with a step of its own.

    Raises:
        InterpToolkitError: there is no contract, or ``folder`` is a folder of something else.
    """
    if stored.contract is None:
        raise InterpToolkitError(
            "an adapter is saved with its contract, and this one has none: train it first, or set adapter.contract"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).exists()):
        raise InterpToolkitError(f"{folder} exists and is not an adapter folder; choose another path")
    tensors = _packed(stored.tensors, dtype)
    if stored.contract.mean is not None:
        tensors[_MEAN] = stored.contract.mean.float().cpu().contiguous()
    described = dict(
        format=_FORMAT,
        version=_VERSION,
        adapter=stored.config.to_dict(),
        contract=stored.contract.to_dict(),
        metadata=dict(stored.metadata),
    )
    with whole_folder(folder) as draft:
        save_file(tensors, draft / WEIGHTS_FILE)
        (draft / CONFIG_FILE).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")


def read(folder: Path) -> StoredAdapter:
    """Read an adapter folder.

    Raises:
        FileFormatError: a file is missing or damaged, or the format is unknown.
    """
    try:
        described = json.loads((folder / CONFIG_FILE).read_text())
    except FileNotFoundError:
        raise FileFormatError(f"{folder} is no adapter folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{folder / CONFIG_FILE} is damaged: {error}") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT or described.get("version") != _VERSION:
        said = {key: described.get(key) for key in ("format", "version")} if isinstance(described, dict) else described
        raise FileFormatError(
            f"expected format {_FORMAT!r}, version {_VERSION}, in {folder / CONFIG_FILE}, got {said!s:.100}"
        )
    tensors = read_tensors(folder / WEIGHTS_FILE)
    mean = tensors.pop(_MEAN, None)
    try:
        config = AdapterConfig.from_dict(described["adapter"])
        contract = Contract.from_dict(described["contract"], mean)
        metadata = {str(key): str(value) for key, value in described["metadata"].items()}
    except (KeyError, TypeError, AttributeError, InterpToolkitError) as error:
        raise FileFormatError(f"{folder / CONFIG_FILE} cannot be used: {error}") from error
    if contract.d_model != config.d_model:
        raise FileFormatError(
            f"{folder / CONFIG_FILE} contradicts itself: d_model {config.d_model} in the adapter, "
            f"{contract.d_model} in the contract"
        )
    if contract.site is not None and len(contract.site.sites) != config.sites:
        raise FileFormatError(
            f"{folder / CONFIG_FILE} contradicts itself: {config.sites} sites in the adapter, {contract.site} in the "
            f"contract"
        )
    return StoredAdapter(config, _unpacked(tensors), contract, metadata)


def _packed(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    out = {}
    for name, value in tensors.items():
        if dtype == torch.int8 and value.ndim == 2:
            step = value.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / 127
            out[name], out[name + _STEP] = (value / step).round().to(torch.int8), step
        else:
            out[name] = value.to(torch.float32 if dtype == torch.int8 else dtype)
    return out


def _unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {name: value.float() for name, value in tensors.items() if not name.endswith(_STEP)}
    for name, step in tensors.items():
        if name.endswith(_STEP):
            out[name.removesuffix(_STEP)] *= step
    return out


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        FileFormatError: missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise FileFormatError(f"{path} is missing; the adapter is not whole") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error


def locate(path: str | Path, revision: str | None = None) -> Path:
    """Where an adapter lies on this machine, fetched from the hub where ``path`` is an id there.

    Raises:
        FileFormatError: neither a path nor something that the hub gives.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    parts = str(path).split("/")
    if isinstance(path, Path) or str(path).startswith((".", "/", "~")) or len(parts) < 2 or not all(parts):
        raise FileFormatError(f"no adapter at {path}: no such file or folder (a hub id looks like 'org/name')")
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo = "/".join(parts[:2])
    try:
        if len(parts) > 2:
            return Path(hf_hub_download(repo, "/".join(parts[2:]), revision=revision))
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileFormatError(
            f"no adapter at {path}: no such folder here, and the hub says: {first_line(error)}"
        ) from error
