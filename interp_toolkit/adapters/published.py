"""The formats in which the paper's authors published their adapters.

``selfie_adapter_v1`` is a safetensors file whose header holds strings; ``.pt`` files are checkpoints of their trainer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.header_values import (
    is_given,
    parse_count,
    parse_flag,
    parse_mapping,
    parse_number,
    parse_text,
)
from interp_toolkit.adapters.stored import StoredAdapter
from interp_toolkit.adapters.weights import read_header, read_tensors
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import check_dense, read_torch_file, whole_file
from interp_toolkit.json_lines import parse_json
from interp_toolkit.soft_prompt import PRESETS, SoftPrompt

_FORMAT = "selfie_adapter_v1"
# Their names for the kinds, and ours; what stands on one side only the other format cannot say.
_KINDS = {
    "scale_only": "scale",
    "scalar_affine": "scalar_affine",
    "full_rank": "full_rank",
    "low_rank_only": "low_rank",
    "scalar_affine_plus_low_rank": "scalar_affine_low_rank",
}
_THEIR_KINDS = {ours: theirs for theirs, ours in _KINDS.items()}
_MATRIX = 2  # dimensions
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
    header, tensors = read_header(path), read_tensors(path)
    stated_format = header.get("format", _FORMAT)
    if stated_format != _FORMAT:
        raise FileFormatError(f"expected format {_FORMAT!r} in the header of {path}, got {stated_format!r}")
    try:
        config = parse_json(header.get("config_json", "{}"))
    except ValueError as error:
        raise FileFormatError(f"{path}: config_json in the header is damaged: {error}") from error
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise FileFormatError(f"expected floating-point numbers in {name} of {path}, got {value.dtype}")
    return _assemble(path, tensors, parse_mapping(config, f"config_json in {path}"), header)


def _read_checkpoint(path: Path) -> StoredAdapter:
    checkpoint = read_torch_file(
        path, called=f"{path}", holds="tensors and plain values", instead="a .safetensors file"
    )
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("projection_state"), dict):
        raise FileFormatError(f"expected a checkpoint with 'projection_state' in {path}, got {_outline(checkpoint)}")
    tensors = checkpoint["projection_state"]
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileFormatError(f"expected tensors by name in 'projection_state' of {path}, got {name!r:.60}")
        check_dense(value, path, f"{name} of {path}")
    config = parse_mapping(checkpoint.get("config"), f"config in {path}")
    plain = {str(key): str(value) for key, value in checkpoint.items() if isinstance(value, (str, int, float))}
    return _assemble(path, tensors, config, plain)


def _assemble(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], header: Mapping[str, str]
) -> StoredAdapter:
    """One adapter from tensors, the nested training config and the flat header, in that order of trust."""
    projection = parse_mapping(config.get("projection"), f"projection in {path}")
    kind = parse_text(projection.get("type"), f"the type of projection in {path}") or header.get("projection_type")
    kind = kind or _BY_TENSORS.get(frozenset(tensors))
    if kind not in _KINDS:
        raise FileFormatError(
            f"{path}: expected a projection type of {', '.join(_KINDS)}, got {kind!r:.60} with tensors "
            f"{sorted(tensors)}"
        )
    widths = (len(tensors[name]) for name in ("bias", "U", "weight") if name in tensors and tensors[name].ndim)

    def setting(key: str, default: Any, parse: Callable[[Any, str], Any]) -> Any:
        """Return a setting from the nested config, else from the header."""
        values = [value for value in (projection.get(key), header.get(key)) if is_given(value)]
        return parse(values[0], f"{key} in {path}") if values else default

    stated_width = header.get("model_dim")
    d_model = parse_count(stated_width, f"model_dim in {path}") if is_given(stated_width) else next(widths, 0)
    if not d_model:
        raise FileFormatError(f"{path} does not say its width: expected model_dim in the header, a bias, U or weight")
    scale = setting("init_scale", 5.0, parse_number)
    factor = setting("low_rank_init_factor", 0.01, parse_number)
    rank = tensors["U"].shape[1] if "U" in tensors and tensors["U"].ndim == _MATRIX else None
    try:
        adapter = AdapterConfig(
            kind=_KINDS[kind],
            d_model=d_model,
            rank=rank,
            normalize=setting("normalize_input", True, parse_flag),
            # Of a start long past, which some files do not know: what cannot be one is left at its default.
            init_scale=scale if 0 < scale < math.inf else 5.0,
            low_rank_factor=factor if math.isfinite(factor) else 0.01,
        )
        soft_prompt = _soft_prompt(parse_mapping(config.get("soft_prompt"), f"soft_prompt in {path}"))
        nested = {"config_json": json.dumps(config)} if config else {}
    except (InterpToolkitError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} cannot be used: {error}") from error
    model = parse_mapping(config.get("model"), f"model in {path}")
    named = header.get("model_name") or parse_text(model.get("name"), f"the model's name in {path}")
    contract = Contract(
        model_id=named, d_model=d_model, site=None, soft_prompt=soft_prompt, normalize=adapter.normalize
    )
    parameters = {name: value.detach().float().numpy() for name, value in tensors.items()}
    return StoredAdapter(adapter, parameters, contract, {**header, **nested})


def _soft_prompt(described: Mapping[str, Any]) -> SoftPrompt | None:
    template = parse_text(described.get("template"), "the template of the soft prompt")
    if not template:
        return None
    known = [preset.marker for preset in PRESETS.values()]
    marker = parse_text(described.get("reserved_token"), "the reserved_token of the soft prompt")
    marker = marker or next((token for token in known if token in template), "")
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
    tensors = {name: torch.from_numpy(values) for name, values in stored.parameters.items()}
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
        nested = parse_mapping(json.loads(stored.metadata.get("config_json", "{}")), "config_json")
    except ValueError:
        nested = {}
    nested = dict(nested)
    nested["projection"] = {
        **(nested.get("projection") or {}),
        "type": _THEIR_KINDS[stored.config.kind],
        "normalize_input": stored.config.normalize,
        "init_scale": stored.config.init_scale,
        "low_rank_rank": stored.config.rank,
        "low_rank_init_factor": stored.config.low_rank_factor,
    }
    prompt = stored.contract.soft_prompt if stored.contract else None
    if prompt is not None:
        prompt_config = {"template": prompt.template, "reserved_token": prompt.marker}
        nested["soft_prompt"] = {**(nested.get("soft_prompt") or {}), **prompt_config}
    return nested


def _outline(value: object) -> str:
    return f"a mapping with {sorted(map(str, value))[:6]}" if isinstance(value, dict) else type(value).__name__
