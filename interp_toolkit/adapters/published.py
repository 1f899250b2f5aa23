"""The formats in which the paper's authors published their adapters and mean vectors.

``selfie_adapter_v1`` is a safetensors file whose header holds strings; ``.pt`` files are checkpoints of their trainer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.files import StoredAdapter, read_tensors
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.soft_prompt import PRESETS, SoftPrompt
from interp_toolkit.torch_files import read_torch_file

_FORMAT = "selfie_adapter_v1"
_MEANS_FORMAT = "selfie_mean_vectors_v1"
# Their names for the kinds, and ours; what stands on one side only the other format cannot say.
_KINDS = {
    "scale_only": "scale",
    "scalar_affine": "scalar_affine",
    "full_rank": "full_rank",
    "low_rank_only": "low_rank",
    "scalar_affine_plus_low_rank": "scalar_affine_low_rank",
}
_THEIR_KINDS = {ours: theirs for theirs, ours in _KINDS.items()}
_BY_TENSORS = {
    frozenset({"log_scale"}): "scale_only",
    frozenset({"log_scale", "bias"}): "scalar_affine",
    frozenset({"weight", "bias"}): "full_rank",
    frozenset({"U", "V", "bias"}): "low_rank_only",
    frozenset({"log_scale", "U", "V", "bias"}): "scalar_affine_plus_low_rank",
}
# Which stop token goes with which chat markup; the file names it only sometimes.
_STOPS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>")


def read(path: Path) -> StoredAdapter:
    """Read a published adapter, ``.safetensors`` or ``.pt``; nothing in it is run.

    Raises:
        FileFormatError: damaged, or of another format.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".pt":
        return _read_checkpoint(path)
    raise FileFormatError(f"expected an adapter folder, a .safetensors file or a .pt file, got {path}")


def _read_safetensors(path: Path) -> StoredAdapter:
    tensors = read_tensors(path)
    try:
        with safe_open(path, framework="pt") as stream:
            header: dict[str, str] = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error
    said = header.get("format", _FORMAT)
    if said != _FORMAT:
        raise FileFormatError(f"expected format {_FORMAT!r} in the header of {path}, got {said!r}")
    try:
        config = json.loads(header.get("config_json", "{}"))
    except ValueError as error:
        raise FileFormatError(f"{path}: config_json in the header is damaged: {error}") from error
    if not isinstance(config, dict):
        raise FileFormatError(f"{path}: expected a mapping in config_json, got {type(config).__name__}")
    return _assemble(path, tensors, config, header)


def _read_checkpoint(path: Path) -> StoredAdapter:
    checkpoint = read_torch_file(
        path, called=f"{path}", holds="tensors and plain values", instead="a .safetensors file"
    )
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("projection_state"), dict):
        raise FileFormatError(f"expected a checkpoint with 'projection_state' in {path}, got {_outline(checkpoint)}")
    config = checkpoint.get("config")
    plain = {key: str(value) for key, value in checkpoint.items() if isinstance(value, (str, int, float))}
    return _assemble(path, checkpoint["projection_state"], config if isinstance(config, dict) else {}, plain)


def _assemble(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], header: Mapping[str, str]
) -> StoredAdapter:
    """One adapter from tensors, the nested training config and the flat header, in that order of trust."""
    projection = config.get("projection") or {}
    kind = projection.get("type") or header.get("projection_type") or _BY_TENSORS.get(frozenset(tensors))
    if kind not in _KINDS:
        raise FileFormatError(
            f"{path}: expected a projection type of {', '.join(_KINDS)}, got {kind!r} with tensors {sorted(tensors)}"
        )
    tensors = {name: value.float() for name, value in tensors.items()}
    d_model = int(header.get("model_dim") or 0) or next(
        (len(tensors[name]) for name in ("bias", "U", "weight") if name in tensors), 0
    )
    if not d_model:
        raise FileFormatError(f"{path} does not say its width: expected model_dim in the header, a bias, U or weight")
    normalize = projection.get("normalize_input", header.get("normalize_input", "true") == "true")
    try:
        scale = float(projection.get("init_scale") or header.get("init_scale") or 5.0)
        factor = projection.get("low_rank_init_factor") or header.get("low_rank_init_factor")
        adapter = AdapterConfig(
            kind=_KINDS[kind],
            d_model=d_model,
            rank=tensors["U"].shape[1] if "U" in tensors else None,
            normalize=bool(normalize),
            init_scale=scale if math.isfinite(scale) and scale > 0 else 5.0,
            low_rank_factor=float(factor or 0.01),
        )
        soft_prompt = _soft_prompt(config.get("soft_prompt") or {})
    except (TypeError, ValueError, IndexError) as error:
        raise FileFormatError(f"{path} cannot be used: {error}") from error
    named = header.get("model_name") or (config.get("model") or {}).get("name") or ""
    contract = Contract(
        model_id=named, d_model=d_model, site=None, soft_prompt=soft_prompt, normalize=adapter.normalize
    )
    metadata = {**header, **({"config_json": json.dumps(config)} if config else {})}
    return StoredAdapter(adapter, tensors, contract, metadata)


def _soft_prompt(described: Mapping[str, Any]) -> SoftPrompt | None:
    template = described.get("template")
    if not template:
        return None
    known = [preset.marker for preset in PRESETS.values()]
    marker = described.get("reserved_token") or next((token for token in known if token in template), None)
    if not marker:
        raise InterpToolkitError(f"its soft prompt has no known slot marker ({', '.join(known)}): {template!r}")
    stop = next((token for token in _STOPS if token in template), "")
    return SoftPrompt(template, marker, stop)


def write(stored: StoredAdapter, path: Path) -> None:
    """Write an adapter as ``selfie_adapter_v1`` (``.safetensors``) or as a checkpoint of their trainer (``.pt``).

    The reading site, the mean and the fingerprint have no place in either.

    Raises:
        InterpToolkitError: a kind that the formats do not know, or several sites or soft tokens.
    """
    config = stored.config
    if config.kind not in _THEIR_KINDS:
        raise InterpToolkitError(
            f"the published format has no {config.kind!r} adapter, only {', '.join(sorted(_THEIR_KINDS))}; "
            f"save to a folder instead"
        )
    if config.sites + config.tokens > 2:
        raise InterpToolkitError(
            f"the published format has adapters of one site and one soft token, this one has {config.sites} and "
            f"{config.tokens}; save to a folder instead"
        )
    nested = _nested_config(stored)
    tensors = {name: value.float().contiguous() for name, value in stored.tensors.items()}
    named = stored.contract.model_id if stored.contract else ""
    with whole_file(path) as draft:
        if path.suffix == ".pt":
            checkpoint = dict(
                projection_state=tensors,
                config=nested,
                model_dim=config.d_model,
                model_name=named,
                checkpoint_format_version=1,
                projection_num_params=sum(value.numel() for value in tensors.values()),
            )
            torch.save(checkpoint, draft)
            return
        header = {
            **{key: str(value) for key, value in stored.metadata.items()},
            "format": _FORMAT,
            "projection_type": _THEIR_KINDS[config.kind],
            "model_dim": str(config.d_model),
            "model_name": named,
            "normalize_input": "true" if config.normalize else "false",
            "init_scale": str(config.init_scale),
            "config_json": json.dumps(nested),
            **({"low_rank_rank": str(config.rank)} if config.rank else {}),
        }
        save_file(tensors, draft, header)


def _nested_config(stored: StoredAdapter) -> dict[str, Any]:
    """Their training config: what an earlier file said of it, with this adapter's projection and soft prompt."""
    try:
        nested = json.loads(stored.metadata.get("config_json", "{}"))
    except ValueError:
        nested = {}
    nested["projection"] = {
        **nested.get("projection", {}),
        "type": _THEIR_KINDS[stored.config.kind],
        "normalize_input": stored.config.normalize,
        "init_scale": stored.config.init_scale,
        "low_rank_rank": stored.config.rank,
        "low_rank_init_factor": stored.config.low_rank_factor,
    }
    prompt = stored.contract.soft_prompt if stored.contract else None
    if prompt is not None:
        told = {"template": prompt.template, "reserved_token": prompt.marker}
        nested["soft_prompt"] = {**nested.get("soft_prompt", {}), **told}
    return nested


def write_mean_vectors(path: str | Path, means: Mapping[int, Tensor], model_id: str) -> None:
    """Write mean vectors by layer as ``selfie_mean_vectors_v1``.

    Args:
        path: the file.
        means: the mean of the residual stream after each block, by its number.
        model_id: the model they were read from.
    """
    layers = sorted(means)
    header = {
        "format": _MEANS_FORMAT,
        "layer_indices": json.dumps(layers),
        "num_layers": str(len(layers)),
        "hidden_dim": str(len(means[layers[0]])) if layers else "0",
        "model_name": model_id,
    }
    with whole_file(Path(path)) as draft:
        save_file({f"layer_{layer}": means[layer].float().cpu().contiguous() for layer in layers}, draft, header)


def read_mean_vectors(path: str | Path) -> dict[int, Tensor]:
    """Mean vectors by layer out of a ``selfie_mean_vectors_v1`` file (one tensor ``layer_L`` a layer).

    Layer L is the residual stream after block L.

    Raises:
        FileFormatError: missing, damaged, or of another format.

    Example:
        >>> adapter.contract = replace(adapter.contract, site=Site.after(19), mean=read_mean_vectors(path)[19])
    """
    path = Path(path)
    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as stream:
        said = (stream.metadata() or {}).get("format", _MEANS_FORMAT)
    named = {name.removeprefix("layer_"): value.float() for name, value in tensors.items()}
    if said != _MEANS_FORMAT or not all(name.isdigit() for name in named):
        raise FileFormatError(f"expected format {_MEANS_FORMAT!r} with tensors layer_0, layer_1, ... in {path}, "
                              f"got {said!r} with {sorted(tensors)[:5]}")  # fmt: skip
    return {int(name): value for name, value in named.items()}


def _outline(value: object) -> str:
    return f"a mapping with {sorted(map(str, value))[:6]}" if isinstance(value, dict) else type(value).__name__
