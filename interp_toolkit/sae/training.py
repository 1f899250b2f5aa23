"""Training a top-k SAE with sae-lens on stored activations."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.contract import ModelFacts
from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_folder, with_digest
from interp_toolkit.sae import loading
from interp_toolkit.sae.loading import SPARSITY, sae_lens
from interp_toolkit.sae.store import ActivationStore
from interp_toolkit.torch_defaults import plain_defaults

# Tokens from which the activations' mean and length are estimated.
_ESTIMATED_ON = 50_000
# The learning rate falls to zero over the last part of the training, in which activation rates are counted too.
_DECAY = 0.2
_RUN = "run.json"
_WEIGHTS = "sae_weights.safetensors"


@renamed_fields(warm_up="warmup_steps")
@dataclass(frozen=True)
class SAEConfig:
    """Settings of an SAE's training.

    Attributes:
        features: how many.
        k: how many are active on a token.
        tokens: how many to train on, rounded down to whole batches; None for every stored token once, more than there
            are for several epochs.
        batch_size: tokens per step.
        lr: learning rate of Adam.
        warmup_steps: steps over which the learning rate rises from zero.
        dead_window: steps without activation after which a feature counts as dead and is trained on the error that the
            others leave.
        bfloat16: multiply matrices in bfloat16, which is faster where the hardware has it.
        checkpoint_every: steps between checkpoints: what an interruption can lose.
        seed: of the start and the order.
    """

    features: int = 4096
    k: int = 32
    tokens: int | None = None
    batch_size: int = 2048
    lr: float = 1e-3
    warmup_steps: int = 100
    dead_window: int = 200
    bfloat16: bool = False
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "k", "batch_size", "checkpoint_every", "dead_window"):
            if getattr(self, name) < 1:
                raise InterpToolkitError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.k > self.features:
            raise InterpToolkitError(f"expected k of at most the {self.features} features, got {self.k}")
        if self.tokens is not None and self.tokens < self.batch_size:
            raise InterpToolkitError(f"expected tokens for at least one batch of {self.batch_size}, got {self.tokens}")
        if not self.lr > 0:
            raise InterpToolkitError(f"expected lr above 0, got {self.lr}")


@plain_defaults()
@torch.enable_grad()  # the caller may have switched gradients off
def train(
    store: ActivationStore, config: SAEConfig, folder: str | Path, *, facts: ModelFacts, progress: bool = False
) -> Any:
    """Train a top-k SAE (arXiv 2406.04093) with sae-lens, and save it in a folder.

    Activations are scaled to a mean length of sqrt(d_model), and the decoder's bias begins at their mean; both are
    folded into the weights at the end, so that the SAE takes activations as they are. An interrupted training goes on
    from its last checkpoint, to the same result.

    Args:
        store: the activations.
        config: the settings.
        folder: gets ``sae/``, which `load` reads, in float16; an SAE that is there from the same run is returned.
        facts: of the model that the activations are from (`model_facts`); the SAE carries its name and fingerprint.
        progress: whether to show a bar.

    Returns:
        the SAE as the folder has it, float32.

    Raises:
        InterpToolkitError: a store smaller than a batch, or a folder with another run.

    Example:
        >>> sae = interp_toolkit.sae.train(store, SAEConfig(), "runs/sae", facts=model_facts(model))
    """
    library = sae_lens()
    folder = Path(folder).expanduser()
    run = _run_name(store, config)
    checkpoint, final = folder / "checkpoint", folder / "sae"
    if _same_run(final, run):
        return loading.load(final)
    # It refuses a store that is too small before anything is estimated.
    next(store.batches(config.batch_size))
    steps = (config.tokens or store.tokens) // config.batch_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if _same_run(checkpoint, run):
            sae = library.TrainingSAE.load_from_disk(checkpoint, device="cpu", dtype="float32")
            trainer = _trainer(sae, config, steps)
            trainer.load_trainer_state(checkpoint)
        else:
            sae = _new_sae(store, config, facts)
            trainer = _trainer(sae, config, steps)
            _scale(trainer, store, config)
        _train(trainer, store, config, steps, checkpoint, run, progress)
    trainer.sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.set_final_sae_metadata()
    trainer.sae.cfg.metadata.training = {**asdict(config), "steps": steps, "activations": store.digest}
    with whole_folder(final) as draft:
        trainer.sae.save_inference_model(draft)
        _halve(draft)
        save_file({"sparsity": trainer.log_feature_sparsity.contiguous()}, draft / SPARSITY)
        (draft / _RUN).write_text(json.dumps({"run": run}))
    shutil.rmtree(checkpoint, ignore_errors=True)
    return loading.load(final)


def _train(
    trainer: Any, store: ActivationStore, config: SAEConfig, steps: int, checkpoint: Path, run: str, progress: bool
) -> None:
    size = config.batch_size
    done = trainer.n_training_steps
    batches = store.batches(size, config.seed, skip=done)
    with tqdm(
        total=steps * size, initial=done * size, desc="SAE", unit="token", unit_scale=True, disable=not progress
    ) as bar:
        for step in range(done, steps):
            if step == steps - max(1, int(steps * _DECAY)):
                trainer.act_freq_scores.zero_()
                trainer.n_frac_active_samples = 0
            out = trainer.step(next(batches))
            trainer.n_training_steps += 1
            bar.update(size)
            if (step + 1) % config.checkpoint_every == 0 and step + 1 < steps:
                bar.set_postfix(loss=f"{out.loss.item():.3g}", dead=int(trainer.dead_neurons.sum()))
                with whole_folder(checkpoint) as draft:
                    trainer.sae.save_model(draft)
                    trainer.save_trainer_state(draft)
                    (draft / _RUN).write_text(json.dumps({"run": run}))


def _new_sae(store: ActivationStore, config: SAEConfig, facts: ModelFacts) -> Any:
    library = sae_lens()
    sae_config = library.TopKTrainingSAEConfig(
        d_in=store.d_model,
        d_sae=config.features,
        k=config.k,
        normalize_activations="expected_average_only_in",
        device="cpu",
    )
    sae = library.TrainingSAE.from_dict(sae_config.to_dict())
    metadata = sae.cfg.metadata
    metadata.model_name, metadata.model_fingerprint = facts.model_id, facts.fingerprint
    metadata.model_block_signs = list(facts.block_signs)
    metadata.hook_name = str(store.site)
    metadata.context_size = max(map(len, store.rows.ids))
    return sae


def _trainer(sae: Any, config: SAEConfig, steps: int) -> Any:
    module = importlib.import_module("sae_lens.training.sae_trainer")
    settings = importlib.import_module("sae_lens.config").SAETrainerConfig(
        total_training_samples=steps * config.batch_size,
        train_batch_size_samples=config.batch_size,
        lr=config.lr,
        lr_end=config.lr,
        lr_warm_up_steps=min(config.warmup_steps, steps // 2),
        lr_decay_steps=int(steps * _DECAY),
        dead_feature_window=config.dead_window,
        autocast=config.bfloat16,
        device="cpu",
    )
    # Batches are handed over one by one, so that a training that goes on finds its place.
    return module.SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))


@torch.no_grad()
def _scale(trainer: Any, store: ActivationStore, config: SAEConfig) -> None:
    sample = store.sample(_ESTIMATED_ON, config.seed)
    scale = store.d_model**0.5 / float(sample.norm(dim=1).mean())
    trainer.activation_scaler.scaling_factor = scale
    trainer.sae.b_dec.copy_(sample.mean(0) * scale)


def _halve(folder: Path) -> None:
    """Matrices in float16, which is what makes an SAE small; biases are few and stay as they are."""
    state = load_file(folder / _WEIGHTS)
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise InterpToolkitError("the training of the SAE went to infinity; take a lower lr")
    halved = {name: _half(value) for name, value in state.items()}
    save_file(halved, folder / _WEIGHTS, with_digest({"format": "pt"}, halved))


def _half(value: Tensor) -> Tensor:
    return value.half() if value.ndim > 1 else value


def _run_name(store: ActivationStore, config: SAEConfig) -> str:
    # How often it is saved changes nothing in the result; runs of version 0.1 are known by the names of its settings.
    names = {"warmup_steps": "warm_up"}
    settings = {names.get(key, key): value for key, value in asdict(config).items() if key != "checkpoint_every"}
    return hashlib.sha256(json.dumps([store.digest, settings]).encode()).hexdigest()[:16]


def _same_run(folder: Path, run: str) -> bool:
    """Whether a folder holds something of this run; another run is refused."""
    if not folder.exists():
        return False
    try:
        saved = json.loads((folder / _RUN).read_text())["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"expected an SAE in training at {folder}, and it is none: {error}") from None
    if saved != run:
        raise InterpToolkitError(
            f"{folder} holds an SAE of other settings or activations; name another folder, or delete it"
        )
    return True
