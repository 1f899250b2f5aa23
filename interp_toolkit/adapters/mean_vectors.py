"""The format in which the paper's authors published mean vectors: a safetensors file with one tensor per layer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp_toolkit.adapters.header_values import parse_count
from interp_toolkit.adapters.weights import read_header, read_tensors
from interp_toolkit.errors import FileFormatError
from interp_toolkit.files import whole_file

_FORMAT = "selfie_mean_vectors_v1"
_LAYER = re.compile(r"layer_(0|[1-9][0-9]{0,5})")


def write_mean_vectors(path: str | Path, means: Mapping[int, Tensor], model_id: str) -> None:
    """Write mean vectors by layer as ``selfie_mean_vectors_v1``.

    Args:
        path: the file.
        means: the mean of the residual stream after each block, by its number.
        model_id: the model they were read from.
    """
    layers = sorted(means)
    header = {
        "format": _FORMAT,
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
    tensors, header = read_tensors(path), read_header(path)
    stated_format = header.get("format", _FORMAT)
    if stated_format != _FORMAT or not all(map(_LAYER.fullmatch, tensors)):
        raise FileFormatError(f"expected format {_FORMAT!r} with tensors layer_0, layer_1, ... in {path}, "
                              f"got {stated_format!r} with {sorted(tensors)[:5]}")  # fmt: skip
    means = {int(name.removeprefix("layer_")): value for name, value in tensors.items()}
    for layer, value in means.items():
        if value.ndim != 1 or not value.is_floating_point() or not torch.isfinite(value).all():
            raise FileFormatError(f"{path} is damaged: expected a finite vector in layer_{layer}, got {value.dtype} "
                                  f"of shape {tuple(value.shape)}")  # fmt: skip
    if means and "hidden_dim" in header:
        width = parse_count(header["hidden_dim"], f"hidden_dim in {path}")
        if any(len(value) != width for value in means.values()):
            raise FileFormatError(f"{path} is damaged: expected vectors of width {width}, as hidden_dim says")
    if "layer_indices" in header and _layers(header["layer_indices"], path) != sorted(means):
        raise FileFormatError(f"{path} is damaged: expected the layers {header['layer_indices']:.60}, got "
                              f"{sorted(means)}")  # fmt: skip
    return {layer: value.float() for layer, value in means.items()}


def _layers(text: str, path: Path) -> list[int]:
    try:
        return sorted(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise FileFormatError(f"expected a list of layers for layer_indices in {path}, got {text:.60}") from error
