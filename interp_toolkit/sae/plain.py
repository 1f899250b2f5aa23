"""SAEs of a folder without sae-lens, which TransformerLens 4 locks out: the same weights, and the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interp_toolkit.errors import FileFormatError, first_line
from interp_toolkit.json_lines import read_json
from interp_toolkit.sae.checks import CONFIG, WEIGHTS, check_folder, check_weights

# Of each architecture the weights beside W_enc, W_dec and b_dec, with a number for each feature.
_WEIGHTS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
# In their training form, architectures that are used as JumpReLU SAEs.
_BATCH_TOP_K = ("batchtopk", "matryoshka_batchtopk")
_SCALINGS = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm", "covariance_whitening")
_EPSILON = 1e-5
# What configs of before sae-lens 6 call what metadata names now.
_OLD_NAMES = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index"}
_METADATA = (
    *("model_name", "hook_name", "hook_name_out", "neuronpedia_id", "prepend_bos", "context_size", "dataset_path"),
    *("model_fingerprint", "model_block_signs", "sae_lens_version"),
)


class _Metadata(SimpleNamespace):
    """What a config says of the SAE; None for whatever it does not hold."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@dataclass
class PlainConfig:
    """The settings of a `PlainSAE`, by the names that sae-lens gives them.

    Attributes:
        kind: the architecture: ``"standard"``, ``"topk"``, ``"jumprelu"`` or ``"gated"``.
        d_in: width of what it reads.
        d_sae: number of its features.
        dtype: of its weights.
        device: of its weights.
        apply_b_dec_to_input: whether the decoder's bias is taken off what it reads.
        normalize_activations: how what it reads is scaled.
        k: how many features of a token are active; None for other than top-k SAEs.
        rescale_acts_by_decoder_norm: whether these are chosen in units of the decoder's rows; likewise.
        metadata: what else the config says.
    """

    kind: str
    d_in: int
    d_sae: int
    dtype: str = "float32"
    device: str = "cpu"
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    k: int | None = None
    rescale_acts_by_decoder_norm: bool | None = None
    metadata: Any = field(default_factory=_Metadata)

    def architecture(self) -> str:
        """The architecture."""
        return self.kind


class PlainSAE(nn.Module):
    """A sparse autoencoder for inference, with the weights and numbers of sae-lens's.

    Args:
        cfg: its settings; weights are empty until a state is loaded.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    # Those that the architecture has, see `_WEIGHTS`.
    b_enc: nn.Parameter
    threshold: nn.Parameter
    b_gate: nn.Parameter
    b_mag: nn.Parameter
    r_mag: nn.Parameter

    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.cfg, self.device = cfg, torch.device(cfg.device)
        shapes = dict(W_enc=(cfg.d_in, cfg.d_sae), W_dec=(cfg.d_sae, cfg.d_in), b_dec=(cfg.d_in,))
        for name, shape in {**shapes, **{name: (cfg.d_sae,) for name in _WEIGHTS[cfg.kind]}}.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=self.device), requires_grad=False))

    def encode(self, x: Tensor) -> Tensor:
        """Activations of all features, [..., features].

        Args:
            x: what it reads, [..., d_in].
        """
        scaled, _, _ = self._scaled(x.to(self.W_enc.dtype))
        read = scaled - self.b_dec if self.cfg.apply_b_dec_to_input else scaled
        if self.cfg.kind == "gated":
            active = read @ self.W_enc + self.b_gate > 0
            return active * (read @ (self.W_enc * self.r_mag.exp()) + self.b_mag).relu()
        before = read @ self.W_enc + self.b_enc
        if self.cfg.kind == "jumprelu":
            return before.relu() * (before > self.threshold)
        if self.cfg.kind == "topk":
            if self.cfg.rescale_acts_by_decoder_norm:
                before = before * self.W_dec.norm(dim=-1)
            assert self.cfg.k is not None
            values, where = before.topk(self.cfg.k, dim=-1, sorted=False)
            return torch.zeros_like(before).scatter_(-1, where, values.relu())
        return before.relu()

    def decode(self, activations: Tensor, x: Tensor | None = None) -> Tensor:
        """What features add up to, [..., d_in].

        Args:
            activations: of all features, [..., features].
            x: what was read, where each token is scaled by itself.
        """
        if self.cfg.rescale_acts_by_decoder_norm:
            activations = activations * (1 / self.W_dec.norm(dim=-1))
        out = activations @ self.W_dec + self.b_dec
        if x is not None:
            _, shift, scale = self._scaled(x.to(self.W_enc.dtype))
            out = out * scale + shift
        return out

    def forward(self, x: Tensor) -> Tensor:
        """What the SAE makes of what it reads."""
        return self.decode(self.encode(x), x)

    def _scaled(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is read as the encoder takes it, and by what the output is shifted and scaled back."""
        zero, one = x.new_zeros(()), x.new_ones(())
        if self.cfg.normalize_activations == "constant_norm_rescale":
            factor = self.cfg.d_in**0.5 / x.norm(dim=-1, keepdim=True)
            return x * factor, zero, 1 / factor
        if self.cfg.normalize_activations == "layer_norm":
            mean = x.mean(dim=-1, keepdim=True)
            deviation = (x - mean).std(dim=-1, keepdim=True)
            return (x - mean) / (deviation + _EPSILON), mean, deviation
        return x, zero, one


def read_plain_sae(folder: Path, device: str = "cpu") -> PlainSAE:
    """Read an SAE of a folder, float32, frozen: of the architectures standard, topk, jumprelu, gated and batchtopk.

    Args:
        folder: with ``cfg.json`` and ``sae_weights.safetensors``, as sae-lens writes them.
        device: where to put it.

    Raises:
        FileFormatError: a file is missing, damaged, or of an architecture that takes sae-lens.
    """
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise FileFormatError(f"expected a folder with {CONFIG} and {WEIGHTS} at {folder}, which has no {missing[0]}")
    check_folder(folder)
    described = read_json(folder / CONFIG, "the config of an SAE")
    try:
        state = {name: value.float() for name, value in load_file(folder / WEIGHTS, device=device).items()}
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"{folder / WEIGHTS} is damaged: {first_line(error)}") from error
    try:
        config = _config(described)
        _fold(config, state, described, folder)
        config.device = "meta"
        sae = PlainSAE(config)
        sae.load_state_dict(state, assign=True)
    except FileFormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"the SAE at {folder} is damaged or of an unknown kind: {first_line(error)}") from error
    config.device, sae.device = device, torch.device(device)
    check_weights(sae, folder)
    return sae.requires_grad_(False).eval()


def _config(described: dict[str, Any]) -> PlainConfig:
    kwargs = described.get("activation_fn_kwargs") or {}
    old_top_k = "topk" in (described.get("activation_fn"), described.get("activation_fn_str"))
    kind = "topk" if old_top_k else described.get("architecture", "standard")
    if kind not in (*_WEIGHTS, *_BATCH_TOP_K):
        raise FileFormatError(
            f"expected an SAE of the architecture {', '.join(_WEIGHTS)} or batchtopk, got {kind!r:.60}; for others "
            f"install sae-lens: pip install 'interp-toolkit[sae]'"
        )
    scaling = described.get("normalize_activations") or "none"
    scaling = "expected_average_only_in" if scaling is True else scaling
    if scaling not in _SCALINGS or described.get("reshape_activations", "none") not in ("none", None):
        raise FileFormatError(
            f"expected activations of the residual stream, scaled by one of {', '.join(_SCALINGS)}, got "
            f"{scaling!r:.60} and reshape_activations {described.get('reshape_activations')!r:.60}; install sae-lens: "
            f"pip install 'interp-toolkit[sae]'"
        )
    named = {_OLD_NAMES.get(name, name): value for name, value in described.items()}
    stated = {name: named[name] for name in _METADATA if name in named} | (described.get("metadata") or {})
    return PlainConfig(
        kind=kind,
        d_in=described["d_in"],
        d_sae=described["d_sae"],
        apply_b_dec_to_input=bool(described.get("apply_b_dec_to_input", True)),
        normalize_activations=scaling,
        k=int(kwargs.get("k") or described["k"]) if kind == "topk" else None,
        rescale_acts_by_decoder_norm=bool(described.get("rescale_acts_by_decoder_norm")) if "topk" in kind else None,
        metadata=_Metadata(**stated),
    )


def _fold(config: PlainConfig, state: dict[str, Tensor], described: dict[str, Any], folder: Path) -> None:
    """Bring weights of training and of old folders into the form of inference."""
    factor = state.pop("scaling_factor", None)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        if not described.get("finetuning_scaling_factor"):
            raise FileFormatError(
                f"the SAE at {folder} holds a scaling of features (scaling_factor), and its cfg.json does not say "
                f"that it is in use; put finetuning_scaling_factor: true there if it is, or take it out of the weights"
            )
        state["W_dec"] = state["W_dec"] * factor[:, None]
    if "log_threshold" in state:
        state["threshold"] = state.pop("log_threshold").exp()
    scaler = folder / "activation_scaler.json"
    if scaler.exists():
        stored = read_json(scaler, "the scaling of an SAE's activations")
        scale = stored.get("scaling_factor") if isinstance(stored, dict) else None
        if config.normalize_activations == "expected_average_only_in" and scale is not None:
            state["W_enc"] = state["W_enc"] * float(scale)
            state["W_dec"], state["b_dec"] = state["W_dec"] / float(scale), state["b_dec"] / float(scale)
            if "topk_threshold" in state and config.rescale_acts_by_decoder_norm:
                state["topk_threshold"] = state["topk_threshold"] / float(scale)
            config.normalize_activations = "none"
    if config.kind in _BATCH_TOP_K:
        if config.rescale_acts_by_decoder_norm:
            norms = state["W_dec"].norm(dim=-1)
            state["W_enc"], state["b_enc"] = state["W_enc"] * norms, state["b_enc"] * norms
            state["W_dec"] = state["W_dec"] / norms[:, None]
        state["threshold"] = torch.ones_like(state["b_enc"]) * state.pop("topk_threshold")
        config.kind, config.rescale_acts_by_decoder_norm = "jumprelu", None
