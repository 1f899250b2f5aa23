"""Adapters on disk, in the library's own format: a folder with a JSON file and a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.stored import StoredAdapter
from interp_toolkit.adapters.weights import StoredArray, read_arrays, read_header, read_names
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import sha256_of, sha256_of_json, whole_folder
from interp_toolkit.json_lines import read_json

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FORMAT = "interp_toolkit_adapter"
_VERSION = 1
# The key under which the config holds the SHA-256 of the weights' file, and of all its own other keys.
_DIGESTS = "sha256"
_MEAN = "contract.mean"
_WAY_BACK = "contract.way_back."
# Beside a matrix of whole numbers: what one step is worth in each of its columns.
_STEP = ".step"


def write(stored: StoredAdapter, folder: Path, dtype: torch.dtype) -> None:
    """Write an adapter folder, whole or not at all.

    Args:
        stored: the adapter.
        folder: to write.
        dtype: float32, float16, bfloat16, or int8 for matrices in whole numbers, each column with a step of its own.

    Raises:
        InterpToolkitError: there is no contract, or ``folder`` is a folder of something else.
    """
    import torch  # only where adapters are written: they are read without it
    from safetensors.torch import save_file

    if stored.contract is None:
        raise InterpToolkitError(
            "an adapter is saved with its contract, and this one has none: train it first, or set adapter.contract"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).exists()):
        raise InterpToolkitError(f"{folder} exists and is not an adapter folder; choose another path")
    beginnings = (_MEAN, _WAY_BACK)
    if reserved := [name for name in stored.parameters if name.startswith(beginnings) or name.endswith(_STEP)]:
        raise InterpToolkitError(
            f"an adapter's file keeps names that end in {_STEP} or begin with {' or '.join(beginnings)} for itself; "
            f"give the parameter {', '.join(reserved)} another name"
        )
    tensors = _packed({name: torch.from_numpy(values) for name, values in stored.parameters.items()}, dtype)
    if stored.contract.mean is not None:
        tensors[_MEAN] = stored.contract.mean.float().cpu().contiguous()
    described = dict(
        format=FORMAT,
        version=_VERSION,
        adapter=stored.config.to_dict(),
        contract=stored.contract.to_dict(),
        metadata=dict(stored.metadata),
    )
    for number, place in enumerate(stored.contract.more):
        if place.mean is not None:
            # A copy: it may be a part of the stack's mean, and the format takes no shared memory.
            tensors[f"{_MEAN}.{number}"] = place.mean.float().cpu().clone()
    if stored.contract.way_back is not None:
        named = {f"{_WAY_BACK}{name}": value for name, value in stored.contract.way_back.tensors().items()}
        tensors |= _packed(named, torch.int8 if dtype == torch.int8 else torch.float32)
    with whole_folder(folder) as draft:
        # The header names the format, so that the file is known for what it is where it lies alone.
        save_file(tensors, draft / WEIGHTS_FILE, {"format": FORMAT})
        write_config(described, draft)


def write_config(described: Mapping[str, Any], folder: Path) -> None:
    """Write an adapter's config beside its weights, with the digests that `check_digests` looks at."""
    described = json.loads(json.dumps({key: value for key, value in described.items() if key != _DIGESTS}))
    digests = dict(config=sha256_of_json(described), weights=sha256_of(folder / WEIGHTS_FILE))
    text = json.dumps({**described, _DIGESTS: digests}, indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def check_digests(folder: Path) -> None:
    """Refuse an adapter folder whose weights or config are not what was written.

    Folders that 0.1 wrote have no digests, and pass.

    Raises:
        FileFormatError: the text names the file.
    """
    config = folder / CONFIG_FILE
    described = read_json(config, "the config of an adapter")
    digests = described.pop(_DIGESTS, None)
    if digests is None:
        return
    if not isinstance(digests, dict) or set(digests) != {"config", "weights"}:
        raise FileFormatError(f"{config} is damaged: expected the digests of config and weights, got {digests!r:.80}")
    if digests["weights"] != sha256_of(folder / WEIGHTS_FILE):
        raise FileFormatError(
            f"{folder / WEIGHTS_FILE} is damaged: its SHA-256 is not the one in {CONFIG_FILE}; get the adapter again"
        )
    if digests["config"] != sha256_of_json(described):
        raise FileFormatError(
            f"{config} is damaged: its SHA-256 is not the one written in it; get the adapter again, or, if it was "
            f"edited on purpose, take the key {_DIGESTS!r} out"
        )


def read(folder: Path, as_tensor: Callable[[np.ndarray], Any]) -> StoredAdapter:
    """Read an adapter folder.

    Args:
        folder: of the adapter.
        as_tensor: makes the tensors of the contract of arrays. Where the contract is only to be described, it may
            return the arrays themselves.

    Raises:
        FileFormatError: a file is missing or damaged, or the format is unknown.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise FileFormatError(f"{folder} is no adapter folder: it has no {CONFIG_FILE}")
    described = read_json(folder / CONFIG_FILE, "the config of an adapter")
    if not isinstance(described, dict) or described.get("format") != FORMAT or described.get("version") != _VERSION:
        is_mapping = isinstance(described, dict)
        stated = {key: described.get(key) for key in ("format", "version")} if is_mapping else described
        raise FileFormatError(
            f"expected format {FORMAT!r}, version {_VERSION}, in {folder / CONFIG_FILE}, got {stated!s:.100}"
        )
    arrays = read_arrays(folder / WEIGHTS_FILE)
    packed = {name: arrays.pop(name) for name in [*arrays] if name.startswith(_WAY_BACK)}
    unpacked = _unpacked(packed, folder / WEIGHTS_FILE)
    way_back = {name.removeprefix(_WAY_BACK): as_tensor(values) for name, values in unpacked.items()}

    def pop_mean(name: str) -> Any:
        return as_tensor(arrays.pop(name).values) if name in arrays else None

    mean = pop_mean(_MEAN)
    try:
        config = AdapterConfig.from_dict(described["adapter"])
        more = range(len(described["contract"].get("more", ())))
        more_means = [pop_mean(f"{_MEAN}.{number}") for number in more]
        contract = Contract.from_dict(described["contract"], mean, more_means, way_back)
        metadata = {str(key): str(value) for key, value in described["metadata"].items()}
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
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
    return StoredAdapter(config, _unpacked(arrays, folder / WEIGHTS_FILE), contract, metadata)


def folder_of(path: Path) -> Path | None:
    """The adapter folder that a path means: itself, or the one that the config or the weights lie in; else None.

    Raises:
        FileFormatError: weights of an adapter folder whose config is not beside them.
    """
    if path.is_dir():
        return path
    if path.name in (CONFIG_FILE, WEIGHTS_FILE) and (path.parent / CONFIG_FILE).is_file():
        return path.parent
    if path.suffix == ".safetensors" and _is_of_a_folder(path):
        raise FileFormatError(
            f"{path} holds the weights of an adapter folder, without which nothing is known of their use; expected "
            f"{CONFIG_FILE} beside it: give the folder that both are in"
        )
    return None


def _is_of_a_folder(path: Path) -> bool:
    header = read_header(path)
    if header.get("format") == FORMAT or (path.name == WEIGHTS_FILE and not header):
        return True
    # Weights that 0.1 wrote have no header.
    return not header and any(name == _MEAN or name.endswith(_STEP) for name in read_names(path))


def _packed(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    import torch

    out = {}
    for name, value in tensors.items():
        if dtype == torch.int8 and value.ndim == 2:
            step = value.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / 127
            out[name], out[name + _STEP] = (value / step).round().to(torch.int8), step
        else:
            out[name] = value.to(torch.float32 if dtype == torch.int8 else dtype)
    return out


def _unpacked(arrays: Mapping[str, StoredArray], path: Path) -> dict[str, np.ndarray]:
    out = {name: array.as_float32() for name, array in arrays.items() if not name.endswith(_STEP)}
    for name, array in arrays.items():
        matrix = name.removesuffix(_STEP)
        stepped = f"{matrix}{_STEP}" in arrays
        if not (array.dtype == "int8" if stepped and name == matrix else array.is_floating_point):
            raise FileFormatError(f"{path} is damaged: {name} holds torch.{array.dtype}")
        if name == matrix:
            continue
        if matrix not in out or out[matrix].shape[1:] != array.values.shape:
            raise FileFormatError(f"{path} is damaged: {name} does not fit the matrix {matrix}")
        with np.errstate(all="ignore"):  # whoever checks the numbers finds infinity
            out[matrix] *= array.as_float32()
    return out
