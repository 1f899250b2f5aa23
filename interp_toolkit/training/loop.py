"""The training loop."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, backend_of, model_facts
from interp_toolkit.models.dtype import fast_bfloat16
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.torch_defaults import plain_defaults
from interp_toolkit.training.checkpoint import Checkpoint
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.examples import Examples, batches, draw_validation
from interp_toolkit.training.interrupt import StopRequest, TrainingInterrupted
from interp_toolkit.training.log import RunLog
from interp_toolkit.training.objective import losses, validation_losses
from interp_toolkit.training.optimizer import make_optimizer, make_schedule
from interp_toolkit.training.run_record import make_run_record
from interp_toolkit.training.start import ridge_init


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training run leaves.

    Attributes:
        adapter: the trained adapter, with the weights of the best validation and its contract.
        best_step: the step of these weights.
        best_val_loss: their validation loss, in nats a token.
        last: an adapter with the weights of the last step.
        last_val_loss: their validation loss.
        history: one row a validation: ``step``, ``train_loss`` (mean since the one before), ``val_loss``,
            ``shuffled_loss`` (labels facing other vectors), ``scale``; in nats a token.
    """

    adapter: Adapter
    best_step: int
    best_val_loss: float
    last: Adapter
    last_val_loss: float
    history: pd.DataFrame


@plain_defaults()
@torch.enable_grad()
def train_adapter(
    model: Any,
    pairs: VectorLabelPairs,
    adapter: Adapter,
    config: TrainConfig | None = None,
    *,
    soft_prompt: SoftPrompt | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train an adapter on vector-label pairs, with the model frozen.

    AdamW over the adapter's parameters alone; linear warm-up, then a cosine to zero; gradients clipped; validated every
    few steps on held-out vectors, and the best weights kept (arXiv 2602.10352, section 3 and table 5).

    Args:
        model: the hooked model; nothing of it changes, its dtype included (`load_model` sets that).
        pairs: the training rows are trained on, the validation rows choose the weights.
        adapter: trained in place; it gets the contract of this run.
        config: settings; by default `TrainConfig`'s.
        soft_prompt: by default the paper's wording in the model's chat template, and a plain text with a few examples
            where it has none (see `SoftPrompt.for_tokenizer`).
        folder: of the run: ``best`` and ``last`` (adapters), ``log.jsonl``, and ``checkpoint.pt``, from which a run
            that was stopped goes on with the same numbers. One of other pairs, settings, starting weights, another
            prompt, site or model is refused.
        progress: whether to show a bar, with descriptions of some validation vectors.

    Returns:
        `TrainResult`.

    Raises:
        InterpToolkitError: widths differ, nothing to train, no training or validation rows, a folder of another run, a
            loss or gradient that is not finite (the best weights so far stay in the adapter, as after any error).
        TrainingInterrupted: Ctrl-C; the state is saved in the folder.

    Example:
        >>> adapter = Adapter.create("scalar_affine", d_model=576)
        >>> result = train_adapter(model, pairs, adapter, TrainConfig(lr=0.02), folder="runs/first")
        >>> result.adapter.save("my-adapter")
    """
    config = config or TrainConfig()
    model = as_hooked_model(model)
    facts = model_facts(model)
    made = adapter.config
    if made.d_model != facts.d_model or made.width != pairs.width:
        raise InterpToolkitError(
            f"expected one width for model, adapter and vectors, got d_model {facts.d_model} of the model, "
            f"{made.d_model} of the adapter for {made.sites} site{'s' * (made.sites > 1)}, and vectors of width "
            f"{pairs.width}; make the adapter with d_model={facts.d_model} and as many sites as vectors were read at"
        )
    rows = len(backend_of(model).embedding_weight)
    soft_prompt = soft_prompt or SoftPrompt.for_tokenizer(model.tokenizer, made.tokens, vocabulary=rows)
    run = PromptRun(model, soft_prompt, config.gradient_checkpointing)
    _leave_inference_mode(model, adapter)
    adapter.to(run.backend.device).train()
    try:
        training = _Training(run, pairs, adapter, config, Path(folder) if folder else None, progress)
        # Pairs of other origin than `topic_pairs` do not say how their prompts were read.
        chat = {"True": True, "False": False}.get(pairs.origin.get("chat", ""))
        adapter.contract = Contract.of(facts, pairs.site, run.soft_prompt, pairs.mean, adapter.config.normalize, chat)
        return training.finish()
    finally:
        adapter.requires_grad_(False).eval()


def _leave_inference_mode(model: Any, adapter: Adapter) -> None:
    """Make an adapter of inference mode one that can be trained, in place; refuse such a model."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InterpToolkitError(
            "expected a model that gradients can pass through, got one whose weights were made under "
            "torch.inference_mode; load it outside of that (torch.no_grad does no harm)"
        )
    for name, parameter in list(adapter.named_parameters()):
        if parameter.is_inference():
            setattr(adapter, name, torch.nn.Parameter(parameter.clone()))


class _Training:
    """One run: what it is made of, and where it stands."""

    def __init__(
        self,
        run: PromptRun,
        pairs: VectorLabelPairs,
        adapter: Adapter,
        config: TrainConfig,
        folder: Path | None,
        progress: bool,
    ) -> None:
        self.run, self.adapter, self.config, self.folder, self.progress = run, adapter, config, folder, progress
        self.device = run.backend.device
        self.origin = dict(pairs.origin)
        train, held = pairs.split("train"), pairs.split("val")
        self.train = Examples.of(train, run)
        self.held = Examples.of(held, run, draw_validation(held, train, config.val_examples, config.seed))
        steps = config.epochs * math.ceil(len(self.train) / config.batch_size)
        self.total = min(steps, config.max_steps or steps)
        path = folder / "checkpoint.pt" if folder else None
        record = make_run_record(run, pairs, (self.train, self.held), adapter, config)
        if config.ridge_init is not None and not (path and path.exists()):
            ridge_init(run, adapter, self.train, config.ridge_init)
        self.optimizer = make_optimizer(adapter, config)
        self.factor = make_schedule(self.total, config.warmup_steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.factor)
        self.state = Checkpoint(path, record, adapter, self.optimizer, self.schedule)
        self.state.resume()

    def finish(self) -> TrainResult:
        """Train to the end, from wherever the run stands."""
        state, config = self.state, self.config
        path = self.folder / "log.jsonl" if self.folder else None
        log = RunLog(path, config.tracker, state.step, self._facts())
        # Counted rather than computed: one batch of each epoch may be smaller, and stands anywhere among the last.
        pairs = sum(map(len, batches(self.train, config, self.total, 0)))
        bar = tqdm(total=pairs, initial=state.seen, desc="training", unit="pair", disable=not self.progress)
        with StopRequest() as stop, bar, self._best_kept():
            for batch in batches(self.train, config, self.total, state.step):
                if self._exhausted():
                    break
                # Before the step, which moves the schedule on to the next one's.
                rates = self._learning_rates()
                start = time.perf_counter()
                value, norm = self._step(batch)
                speed = len(batch) / (time.perf_counter() - start)
                log.tell("step", state.step, loss=value, gradient_norm=norm, **rates, pairs_per_second=speed)
                if state.step % config.eval_every == 0 or state.step == self.total:
                    self._validate(log, bar)
                bar.update(len(batch))
                bar.set_postfix(loss=f"{value:.3f}", val=f"{state.best_val_loss:.3f}", refresh=False)
                if stop.asked:
                    state.write()
                    log.tell("interrupted", state.step)
                    log.close()
                    raise TrainingInterrupted(self._how_to_go_on())
        result = self._result()
        log.tell("end", state.step, best_step=state.best_step, best_val_loss=state.best_val_loss)
        log.close()
        return result

    @contextmanager
    def _best_kept(self) -> Iterator[None]:
        """After an error the adapter has the best weights so far, with which the same call goes on."""
        try:
            yield
        except TrainingInterrupted:
            raise
        except BaseException:
            self.state.keep_best()
            raise

    def _learning_rates(self) -> dict[str, float]:
        """What ``lr`` has come to at this step, and each trained parameter's own rate, by its name."""
        groups = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        return dict(lr=self.config.lr * self.factor(self.state.step)) | groups

    def _step(self, batch: list[int]) -> tuple[float, float]:
        """One step of the optimiser; gives the loss and the gradient's norm before clipping."""
        config, total = self.config, 0.0
        weight = sum(self.train.weights[i] for i in batch)
        size = math.ceil(len(batch) / config.gradient_accumulation_steps)
        self.optimizer.zero_grad(set_to_none=True)
        for part in (batch[i : i + size] for i in range(0, len(batch), size)):
            value = self._loss(part, weight)
            self._require_finite("loss", value.item(), batch)
            value.backward()
            total += value.item()
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), config.max_grad_norm).item()
        self._require_finite("norm of the gradient", norm, batch)
        self.optimizer.step()
        self.schedule.step()
        self.state.step += 1
        self.state.seen += len(batch)
        self.state.recent.append(total)
        return total, norm

    def _loss(self, numbers: Sequence[int], weight: float) -> torch.Tensor:
        """What these examples add to the weighted mean over a batch of that weight."""
        config, train = self.config, self.train
        vectors = train.vectors(numbers, self.device)
        targets = [train.targets[i] for i in numbers]
        each = losses(self.run, self.adapter, vectors, targets, config.label_smoothing, config.max_token_loss)
        return (each * each.new_tensor([train.weights[i] for i in numbers])).sum() / weight

    def _require_finite(self, what: str, value: float, batch: list[int]) -> None:
        if math.isfinite(value):
            return
        rows = sorted({self.train.rows[i] for i in batch})
        raise InterpToolkitError(
            f"the {what} is {value} in batch {self.state.step + 1} (training vectors {', '.join(map(str, rows[:8]))}"
            f"{', ...' if len(rows) > 8 else ''}); the adapter keeps its weights of step {self.state.best_step}; try a "
            f"lower lr (now {self.config.lr}) or init_scale (now {self.adapter.config.init_scale})"
        )

    def _validate(self, log: RunLog, bar: Any) -> None:
        held = self.held
        vectors = held.pairs.vectors.to(self.device)
        row = self.state.record(*validation_losses(self.run, self.adapter, vectors, held.targets, held.rows))
        shown = self._describe(vectors[: self.config.log_samples], [labels[0] for labels in held.pairs.labels])
        log.tell("validation", **row, descriptions=shown)
        if self.progress:
            said = "; ".join(f"{told['label']} -> {told['description']}" for told in shown)
            bar.write(f"step {row['step']}: validation loss {row['val_loss']:.3f}. {said}", file=sys.stderr)
        self.state.write()

    def _describe(self, vectors: torch.Tensor, labels: list[str]) -> list[dict[str, str]]:
        with torch.no_grad():
            texts = generate(self.run, self.adapter(vectors))
        return [dict(label=label, description=row[0].text) for label, row in zip(labels, texts)]

    def _exhausted(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience

    def _result(self) -> TrainResult:
        state, adapter = self.state, self.adapter
        last = copy.deepcopy(adapter).requires_grad_(False).eval()
        last_loss = state.history[-1]["val_loss"]
        state.keep_best()
        adapter.metadata.update(self._metadata("best", state.best_step, state.best_val_loss))
        last.metadata.update(self._metadata("last", state.step, last_loss))
        if self.folder:
            adapter.save(self.folder / "best")
            last.save(self.folder / "last")
        return TrainResult(adapter, state.best_step, state.best_val_loss, last, last_loss, pd.DataFrame(state.history))

    def _facts(self) -> dict[str, Any]:
        facts = model_facts(self.run.model)
        return dict(
            model=facts.model_id,
            revision=facts.revision,
            dtype=str(self.run.backend.dtype),
            device=str(self.device),
            fast_bfloat16=fast_bfloat16(self.device),
            adapter=self.adapter.config.to_dict(),
            parameters=self.adapter.parameter_count,
            train_examples=len(self.train),
            val_examples=len(self.held),
            steps=self.total,
            config=self.config.to_dict(),
            origin=self.origin,
        )

    def _metadata(self, which: str, step: int, val_loss: float) -> dict[str, str]:
        measured = dict(
            weights=which,
            global_step=step,
            val_loss=f"{val_loss:.5f}",
            best_val_loss=f"{self.state.best_val_loss:.5f}",
            train_vectors=len(self.train.pairs),
            train_examples=len(self.train),
            val_examples=len(self.held),
            dtype=str(self.run.backend.dtype),
        )
        settings = {key: value for key, value in self.config.to_dict().items() if key != "log_samples"}
        # Provenance comes from others and may use any name; what was measured here has the last word.
        told = {**self.origin, **settings, **measured}
        return {key: str(value) for key, value in told.items() if value is not None}

    def _how_to_go_on(self) -> str:
        done = f"training was interrupted after step {self.state.step} of {self.total}"
        if self.folder is None:
            return f"{done}; nothing was saved: name a folder to be able to go on"
        return f"{done}; all is saved in {self.folder}: the same call or command goes on from there"
