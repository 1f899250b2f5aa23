"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import load_model, model_facts
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.runtime import PromptRun
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.training.checkpoint import Checkpoint
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.objective import epoch_batches, loss, validation_losses


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training run leaves.

    Attributes:
        adapter: the trained adapter, with the weights of the best validation and its contract.
        history: one row a validation: ``step``, ``train_loss`` (mean since the one before), ``val_loss``,
            ``shuffled_loss`` (labels facing other vectors), ``scale``; in nats a token.
        best_step: the step whose weights were kept.
        best_val_loss: its validation loss.
    """

    adapter: Adapter
    history: pd.DataFrame
    best_step: int
    best_val_loss: float


def train_adapter(
    model: Any,
    pairs: VectorLabelPairs,
    adapter: Adapter,
    config: TrainConfig | None = None,
    *,
    soft_prompt: SoftPrompt | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train an adapter on vector-label pairs, with the model frozen.

    AdamW over the adapter's parameters alone; linear warm-up, then a cosine to zero; gradients clipped; validated every
    few steps on held-out vectors, and the best weights kept (arXiv 2602.10352, section 3 and table 5).

    Args:
        model: the hooked model; nothing of it changes.
        pairs: the training rows are trained on, the validation rows choose the weights.
        adapter: trained in place; it gets the contract of this run.
        config: settings; by default `TrainConfig`'s.
        soft_prompt: by default the paper's wording in the model's chat template.
        checkpoint: a file that is written at every validation, and gone on from where it exists.
        progress: whether to show a bar.

    Returns:
        `TrainResult`.

    Raises:
        InterpToolkitError: widths differ, an adapter with nothing to train, no training or validation rows, a loss
            that is not finite (the last good weights stay in the adapter).

    Example:
        >>> adapter = Adapter.create("scalar_affine", d_model=576)
        >>> result = train_adapter(model, pairs, adapter, TrainConfig(lr=0.02))
        >>> result.adapter.save("my-adapter")
    """
    config = config or TrainConfig()
    model = load_model(model)  # a model of the user's own may still be in training mode, with gradients
    facts = model_facts(model)
    _check(pairs, adapter, facts.d_model)
    run = PromptRun(model, soft_prompt or SoftPrompt.for_chat(model.tokenizer))
    adapter.contract = Contract.of(facts, pairs.site, run.soft_prompt, pairs.mean, adapter.config.normalize)
    device = run.backend.device
    adapter.to(device).requires_grad_(True).train()

    train, held = (_Examples(part, run, device) for part in (pairs.split("train"), pairs.split("val")))
    held = held.first(config.val_examples)
    steps_an_epoch = math.ceil(len(train.targets) / config.batch_size)
    total = min(config.epochs * steps_an_epoch, config.max_steps or math.inf)
    optimizer = _optimizer(adapter, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(int(total), config.warmup_steps))
    state = Checkpoint(checkpoint, config, adapter, optimizer, schedule)
    state.resume()

    bar = tqdm(total=int(total), initial=state.step, desc="training", unit="step", disable=not progress)
    recent: list[float] = []
    for batch in _batches(train, config, int(total), state.step):
        value = loss(run, adapter, train.vectors[train.rows_of(batch)], [train.targets[i] for i in batch])
        if not math.isfinite(value.item()):
            state.keep_best()
            raise InterpToolkitError(
                f"the loss is {value.item()} at step {state.step + 1}; the adapter keeps its weights of step "
                f"{state.best_step}; try a lower lr (now {config.lr}) or init_scale (now {adapter.config.init_scale})"
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        state.step += 1
        recent.append(value.item())
        bar.update()
        if state.step % config.validate_every == 0 or state.step == total:
            own, other = validation_losses(run, adapter, held.vectors, held.targets, held.rows)
            state.record(sum(recent) / len(recent), own, other)
            recent.clear()
        bar.set_postfix(loss=f"{value.item():.3f}", val=f"{state.best_val_loss:.3f}", refresh=False)
    bar.close()
    state.keep_best()
    adapter.requires_grad_(False).eval()
    adapter.metadata.update(
        best_val_loss=f"{state.best_val_loss:.5f}",
        global_step=str(state.best_step),
        train_vectors=str(len(train.vectors)),
        val_examples=str(len(held.targets)),
        seed=str(config.seed),
    )
    return TrainResult(adapter, pd.DataFrame(state.history), state.best_step, state.best_val_loss)


class _Examples:
    """The examples of one side: vectors on the device, and every label's tokens, made once."""

    def __init__(self, pairs: VectorLabelPairs, run: PromptRun, device: torch.device) -> None:
        if not len(pairs):
            raise InterpToolkitError("expected training and validation rows in the pairs, and one side has none")
        examples = pairs.examples
        self.vectors = pairs.vectors.to(device)
        self.rows = [row for row, _ in examples]
        self.targets = run.soft_prompt.targets(run.model.tokenizer, [label for _, label in examples])

    def rows_of(self, batch: list[int]) -> torch.Tensor:
        return torch.tensor([self.rows[i] for i in batch], device=self.vectors.device)

    def first(self, count: int) -> _Examples:
        self.rows, self.targets = self.rows[:count], self.targets[:count]
        self.vectors = self.vectors[: max(self.rows) + 1]
        return self


def _check(pairs: VectorLabelPairs, adapter: Adapter, d_model: int) -> None:
    if not pairs.d_model == adapter.config.d_model == d_model:
        raise InterpToolkitError(
            f"expected one width for model, adapter and vectors, got d_model {d_model}, {adapter.config.d_model} and "
            f"{pairs.d_model}; make the adapter with d_model={d_model} and read the vectors from this model"
        )
    if not adapter.parameter_count:
        raise InterpToolkitError(f"a {adapter.config.kind!r} adapter has nothing to train; choose another kind")


def _optimizer(adapter: Adapter, config: TrainConfig) -> torch.optim.Optimizer:
    groups = []
    for name, parameter in adapter.named_parameters():
        own = {"log_scale": config.scale_lr, "bias": None}.get(name, config.matrix_lr)
        groups.append(
            dict(
                params=[parameter],
                lr=config.lr if own is None else own,
                weight_decay=0.0 if name == "log_scale" else config.weight_decay,
            )
        )
    return torch.optim.AdamW(groups)


def _schedule(total: int, warmup: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return factor


def _batches(train: _Examples, config: TrainConfig, total: int, done: int) -> Iterator[list[int]]:
    """The batches of all epochs from step ``done`` on: the order depends on the seed alone, so a run can go on."""
    step = epoch = 0
    lengths = [len(target) for target in train.targets]
    while step < total:
        for batch in epoch_batches(lengths, config.batch_size, config.seed, epoch):
            if done <= step < total:
                yield batch
            step += 1
        epoch += 1
