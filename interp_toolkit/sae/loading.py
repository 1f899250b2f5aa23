"""SAEs as sae-lens has them: from folders, releases and objects."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp_toolkit.errors import FileFormatError, InterpToolkitError, first_line
from interp_toolkit.sae.checks import check_folder, check_weights
from interp_toolkit.sae.plain import PlainSAE, read_plain_sae

SPARSITY = "sparsity.safetensors"
# What sae-lens raises at a config or weights that it does not expect.
_SAE_LENS_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    SafetensorError,
)


def sae_lens() -> Any:
    """The library itself.

    Raises:
        InterpToolkitError: not installed, or not with this TransformerLens.
    """
    try:
        return importlib.import_module("sae_lens")
    except ImportError as error:
        raise InterpToolkitError(
            f"this takes sae-lens, with TransformerLens 3: pip install 'interp-toolkit[sae]' ({first_line(error)}); "
            f"without it SAEs are read of folders"
        ) from None


def load(source: Any, sae_id: str | None = None, *, device: str = "cpu") -> Any:
    """Load an SAE for inference, float32, frozen: of sae-lens, or without it where that is not installed.

    TransformerLens 4 locks sae-lens out. Folders of the architectures standard, topk, jumprelu, gated and batchtopk are
    then read without it, into a `PlainSAE` with the same numbers.

    An SAE in its training form is turned into the form for inference. Scaling or whitening of activations that a
    checkpoint folder holds is folded into the weights, which sae-lens itself does only at the end of training; so is
    the scaling of features that old folders hold. An SAE object is left as it is: what comes back is another one, which
    shares its weights where these are float32.

    Args:
        source: an SAE object; a folder with ``cfg.json`` and ``sae_weights.safetensors``; or a release that sae-lens
            knows, or a hub id, for which a network is needed.
        sae_id: which SAE of a release.
        device: where to put what is loaded.

    Returns:
        an ``SAE`` object of sae-lens, or a `PlainSAE`.

    Raises:
        FileFormatError: a folder that holds no SAE, or a damaged one.
        InterpToolkitError: nothing loadable has that name, or sae-lens is missing.

    Example:
        >>> sae = load("gemma-scope-9b-it-res-canonical", "layer_20/width_16k/canonical")
    """
    if isinstance(source, PlainSAE):
        return for_inference(source)
    if is_folder(source) and importlib.util.find_spec("sae_lens") is None:
        return read_plain_sae(Path(source).expanduser(), device)
    library = sae_lens()
    if isinstance(source, library.SAE):
        sae = source
    elif is_folder(source):
        sae = _from_folder(Path(source).expanduser(), device)
    elif isinstance(source, str):
        sae = _from_release(source, sae_id, device)
    else:
        raise InterpToolkitError(
            f"expected an SAE of sae-lens, a folder or a release, got {type(source).__name__}; load it with sae-lens"
        )
    if isinstance(sae, library.TrainingSAE):
        with tempfile.TemporaryDirectory() as folder:
            sae.save_inference_model(folder)
            sae = library.SAE.load_from_disk(folder, device=device, dtype="float32")
    return for_inference(sae)


def is_inference_sae(source: Any) -> bool:
    """Whether this is an SAE object, and not in its form for training."""
    if isinstance(source, PlainSAE):
        return True
    if importlib.util.find_spec("sae_lens") is None:
        return False
    library = sae_lens()
    return isinstance(source, library.SAE) and not isinstance(source, library.TrainingSAE)


def for_inference(sae: Any, features: Sequence[int] | None = None) -> Any:
    """An SAE with the same weights, in float32, frozen and in evaluation mode; the one passed in stays as it is.

    Args:
        sae: in its form for inference, of any dtype.
        features: those that the new one is to have, of an architecture that encodes each by its own column; None for
            all.
    """
    state = {name: value.detach().float() for name, value in sae.state_dict().items()}
    device = sae.W_dec.device
    if features is not None:
        keep = torch.tensor(list(features), dtype=torch.long, device=device)
        state = {
            name: value if name == "b_dec" else value[:, keep] if name == "W_enc" else value[keep]
            for name, value in state.items()
        }
    # It is built without memory, on the meta device, as sae-lens does when it loads one.
    count = len(state["W_dec"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which came when the first one was loaded
        new = type(sae)(replace(sae.cfg, dtype="float32", device="meta", d_sae=count))
    new.load_state_dict(state, assign=True)
    new.cfg.device, new.device = str(device), device
    return new.requires_grad_(False).eval()


def read_activation_rates(folder: str | Path) -> Float[Tensor, " features"] | None:
    """How often features were active in training, from a folder's ``sparsity.safetensors``; None where there is none.

    Raises:
        FileFormatError: damaged.
    """
    path = Path(folder).expanduser() / SPARSITY
    if not path.exists():
        return None
    try:
        rates = 10.0 ** load_file(path)["sparsity"].float()
        if rates.ndim != 1 or not torch.isfinite(rates).all():
            raise ValueError(f"expected a finite number per feature, got shape {tuple(rates.shape)}")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileFormatError(f"the activation rates {path} are damaged: {error}") from error
    # They are stored as log10(rate + 1e-10).
    return torch.where(rates < 2e-10, 0.0, rates)


def is_folder(source: Any) -> bool:
    """Whether this is a text or path that is meant as a folder, and not the name of a release or an SAE object."""
    if isinstance(source, str):
        return source.startswith((".", "/", "~")) or Path(source).is_dir()
    return isinstance(source, Path)


def _from_folder(folder: Path, device: str) -> Any:
    library = sae_lens()
    check_folder(folder)
    try:
        try:
            sae = library.SAE.load_from_disk(folder, device=device, dtype="float32", converter=_read_folder)
        except (KeyError, RuntimeError):  # architectures that have one form for training and another for inference
            sae = library.TrainingSAE.load_from_disk(folder, device=device, dtype="float32")
        _fold(sae, folder)
        check_weights(sae, folder)
        return sae
    except FileFormatError:
        raise
    except FileNotFoundError as error:
        raise FileFormatError(
            f"expected a folder with cfg.json and sae_weights.safetensors at {folder}: {first_line(error)}"
        ) from None
    except _SAE_LENS_ERRORS as error:
        raise FileFormatError(f"the SAE at {folder} is damaged or of an unknown kind: {first_line(error)}") from error


def _read_folder(*arguments: Any, **settings: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What sae-lens reads of a folder, with the scaling of features that old ones hold folded into the decoder.

    Until version 6 of sae-lens, activations were multiplied by it before they were decoded; it has no place for it now.
    """
    loaders = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")
    try:
        config, state = loaders.sae_lens_disk_loader(*arguments, **settings)
    except (KeyError, ValueError) as error:
        if "finetuning_scaling_factor" not in str(error):
            raise
        raise FileFormatError(
            f"the SAE at {arguments[0]} holds a scaling of features (scaling_factor), and its cfg.json does not say "
            f"that it is in use; put finetuning_scaling_factor: true there if it is, or take it out of the weights"
        ) from None
    factor = state.pop("finetuning_scaling_factor", None)
    if factor is not None:
        state["W_dec"] = state["W_dec"] * factor[:, None]
    return config, state


def _fold(sae: Any, folder: Path) -> None:
    """Fold the scaling of activations that a checkpoint holds into the weights."""
    path = folder / "activation_scaler.json"
    if not path.exists():
        return
    scaler = importlib.import_module("sae_lens.training.activation_scaler").ActivationScaler()
    scaler.load(path)
    if sae.cfg.normalize_activations == "expected_average_only_in" and scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if sae.cfg.normalize_activations == "covariance_whitening" and scaler.whitening is not None:
        whitening = scaler.whitening
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)


def _from_release(release: str, sae_id: str | None, device: str) -> Any:
    library = sae_lens()
    directory = importlib.import_module("sae_lens.loading.pretrained_saes_directory").get_pretrained_saes_directory()
    if release not in directory and "/" not in release:
        raise InterpToolkitError(
            f"expected a folder, a hub id or one of the {len(directory)} releases that sae-lens knows, got {release!r}"
        )
    ids = list(directory[release].saes_map) if release in directory else []
    if sae_id is None or (ids and sae_id not in ids):
        some = ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")
        raise InterpToolkitError(
            f"there is no folder {release!r}; expected the id of an SAE of the release of that name, got {sae_id!r}"
            + (f"; it has {some}" if ids else "")
        )
    try:
        return library.SAE.from_pretrained(release, sae_id, device=device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InterpToolkitError(
            f"could not load SAE {sae_id!r} of release {release!r}: {first_line(error)} (without a network, give a "
            f"folder)"
        ) from error
