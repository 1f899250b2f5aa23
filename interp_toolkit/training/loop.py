"""The training loop."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from interp_toolkit.adapters import Adapter, soft_tokens_of
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import model_facts
from interp_toolkit.models.dtype import fast_bfloat16
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.training.checkpoint import Checkpoint
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.examples import Examples, batches, by_question, draw_validation, steps_of_epoch
from interp_toolkit.training.interrupt import StopRequest, TrainingInterrupted
from interp_toolkit.training.log import RunLog
from interp_toolkit.training.objective import Objective, losses, mean_cross_entropy, objective_name, validation_losses
from interp_toolkit.training.optimizer import make_optimizer, make_schedule
from interp_toolkit.training.ranks import Ranks
from interp_toolkit.training.result import TrainResult
from interp_toolkit.training.run_record import make_run_record
from interp_toolkit.training.start import ridge_init


class TrainingRun:
    """One run: what it is made of, and where it stands.

    Args:
        run: the soft prompt on its model.
        pairs: to train and to validate on.
        adapter: with its starting weights; trained in place.
        config: settings.
        objective: the loss of each example.
        folder: of the run, or None.
        progress: whether to show a bar.
        ranks: the processes that train together; the first writes and shows.

    Raises:
        InterpToolkitError: nothing to train, no training or validation rows, or a folder of another run.
    """

    def __init__(
        self,
        run: PromptRun,
        pairs: VectorLabelPairs,
        adapter: Adapter,
        config: TrainConfig,
        objective: Objective,
        folder: Path | None,
        progress: bool,
        ranks: Ranks,
    ) -> None:
        self.run, self.adapter, self.config, self.objective = run, adapter, config, objective
        self.ranks = ranks
        self.folder, self.progress = folder, progress and ranks.first
        self.output = folder if ranks.first else None
        self.device = run.backend.device
        self.origin = dict(pairs.origin)
        train, held = pairs.split("train"), pairs.split("val")
        self.train = Examples.from_pairs(train, run)
        self.held = Examples.from_pairs(held, run, draw_validation(held, train, config.val_examples, config.seed))
        steps = config.epochs * steps_of_epoch(self.train, config.batch_size)
        self.total = min(steps, config.max_steps or steps)
        path = folder / "checkpoint.pt" if folder else None
        record = make_run_record(run, pairs, (self.train, self.held), adapter, config, objective)
        if config.ridge_init is not None and not (path and path.exists()):
            ridge_init(run, adapter, self.train, config.ridge_init)
        ranks.same_weights(adapter)
        self.optimizer = make_optimizer(adapter, config)
        self.factor = make_schedule(self.total, config.warmup_steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.factor)
        self.state = Checkpoint(path, record, adapter, self.optimizer, self.schedule)
        self.state.resume()

    def finish(self) -> TrainResult:
        """Train to the end, from wherever the run stands."""
        state, config = self.state, self.config
        path = self.output / "log.jsonl" if self.output else None
        log = RunLog(path, config.tracker if self.ranks.first else None, state.step, self._facts())
        # Counted rather than computed: one batch of each epoch may be smaller, and stands anywhere among the last.
        pairs = sum(map(len, batches(self.train, config, self.total, 0)))
        bar = tqdm(total=pairs, initial=state.seen, desc="training", unit="pair", disable=not self.progress)
        with StopRequest() as stop, bar, self._best_saved():
            for batch in batches(self.train, config, self.total, state.step):
                if self._exhausted():
                    break
                # Before the step, which moves the schedule on to the next one's.
                rates = self._learning_rates()
                start = time.perf_counter()
                value, norm = self._step(batch)
                speed = len(batch) / (time.perf_counter() - start)
                log.write("step", state.step, loss=value, gradient_norm=norm, **rates, pairs_per_second=speed)
                if state.step % config.eval_every == 0 or state.step == self.total:
                    self._validate(log, bar)
                bar.update(len(batch))
                bar.set_postfix(loss=f"{value:.3f}", val=f"{state.best_val_loss:.3f}", refresh=False)
                # All end at the same step, whichever of them was asked to.
                if any(self.ranks.total(float(stop.requested))):
                    self._write_checkpoint()
                    log.write("interrupted", state.step)
                    log.close()
                    raise TrainingInterrupted(self._how_to_go_on())
        result = self._result()
        log.write("end", state.step, best_step=state.best_step, best_val_loss=state.best_val_loss)
        log.close()
        return result

    @contextmanager
    def _best_saved(self) -> Iterator[None]:
        """After an error the folder has the best weights so far."""
        try:
            yield
        except TrainingInterrupted:
            raise
        except BaseException:
            if self.output and self.state.best_step:
                self._best_adapter().save_pretrained(self.output / "best")
            raise

    def _learning_rates(self) -> dict[str, float]:
        """Return what ``lr`` has come to at this step, and the rate of each trained parameter, by its name."""
        groups = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        return dict(lr=self.config.lr * self.factor(self.state.step)) | groups

    def _step(self, batch: list[int]) -> tuple[float, float]:
        """Take one step of the optimiser; return the loss, and the gradient's norm before it is clipped."""
        config, total = self.config, 0.0
        weight = sum(self.train.weights[i] for i in batch)
        size = math.ceil(len(batch) / config.gradient_accumulation_steps)
        self.optimizer.zero_grad(set_to_none=True)
        for part in (batch[i : i + size] for i in range(0, len(batch), size)):
            numbers = list(self.ranks.share(part))
            # Processes that hold a model together make the same passes, even where one has no example of its own.
            padding = self.ranks.padding(part) if self.run.backend.sharded else 0
            value = self._loss(numbers + part[-1:] * padding, weight, padding) if numbers or padding else None
            (loss,) = self.ranks.total(0.0 if value is None else value.item())
            total += loss
            self._require_finite("loss", total, batch)
            if value is not None:
                value.backward()
        self.ranks.sum_gradients(self.adapter.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), config.max_grad_norm).item()
        self._require_finite("norm of the gradient", norm, batch)
        self.optimizer.step()
        self.schedule.step()
        self.state.step += 1
        self.state.seen += len(batch)
        self.state.recent.append(total)
        return total, norm

    def _loss(self, numbers: Sequence[int], weight: float, padding: int) -> torch.Tensor:
        """Compute what these examples but the last ``padding`` add to the weighted mean over a batch of that weight."""
        config, train = self.config, self.train
        vectors = train.vectors(numbers, self.device)
        targets = [train.targets[i] for i in numbers]
        run = self.run.about(train.questions[numbers[0]])  # all of a batch have one
        values = losses(
            run, self.adapter, vectors, targets, config.label_smoothing, config.max_token_loss, self.objective
        )
        weights = [train.weights[i] for i in numbers[: len(numbers) - padding]] + [0.0] * padding
        return (values * values.new_tensor(weights)).sum() / weight

    def _require_finite(self, what: str, value: float, batch: list[int]) -> None:
        if math.isfinite(value):
            return
        rows = sorted({self.train.rows[i] for i in batch})
        raise InterpToolkitError(
            f"the {what} is {value} in batch {self.state.step + 1} (training vectors {', '.join(map(str, rows[:8]))}"
            f"{', ...' if len(rows) > 8 else ''}); {self._what_is_saved()}; try a lower lr (now {self.config.lr}) or "
            f"init_scale (now {self.adapter.config.init_scale})"
        )

    def _validate(self, log: RunLog, bar: Any) -> None:
        held = self.held
        vectors = held.pairs.vectors.to(self.device)
        measured = validation_losses(self.run, self.adapter, vectors, held.targets, held.rows, held.questions)
        # Processors of two kinds round apart, and all have to agree on what is best.
        row = self.state.record(*(x / self.ranks.count for x in self.ranks.total(*measured)))
        # Texts may end at other lengths in another process, and then passes of a sharded model would wait for ever.
        samples = 0 if self.run.backend.sharded else self.config.log_samples
        shown = self._describe(vectors[:samples], held.pairs)
        log.write("validation", **row, descriptions=shown)
        if self.progress:
            samples = "; ".join(f"{sample['label']} -> {sample['description']}" for sample in shown)
            bar.write(f"step {row['step']}: validation loss {row['val_loss']:.3f}. {samples}", file=sys.stderr)
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        if self.ranks.first:
            self.state.write()

    def _describe(self, vectors: torch.Tensor, held: VectorLabelPairs) -> list[dict[str, str]]:
        """What is said of the first validation vectors, beside their first labels and what these answer."""
        texts: dict[int, str] = {}
        for question, rows in by_question(held.questions[: len(vectors)]).items():
            with torch.no_grad():
                written = generate(self.run.about(question), soft_tokens_of(self.adapter, vectors[rows]))
            texts |= {row: samples[0].text for row, samples in zip(rows, written)}
        return [
            dict(label=held.labels[row][0], description=texts[row])
            | (dict(question=held.questions[row]) if held.questions[row] else {})
            for row in range(len(vectors))
        ]

    def _exhausted(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience

    def _best_adapter(self) -> Adapter:
        """Put the best weights so far into the adapter, and return it as a finished one."""
        self.state.keep_best()
        self.adapter.metadata.update(self._metadata("best", self.state.best_step, self.state.best_val_loss))
        return self.adapter.requires_grad_(False).eval()

    def _result(self) -> TrainResult:
        state = self.state
        last = copy.deepcopy(self.adapter).requires_grad_(False).eval()
        last_loss = state.history[-1]["val_loss"]
        last.metadata.update(self._metadata("last", state.step, last_loss))
        best = self._best_adapter()
        if self.output:
            best.save_pretrained(self.output / "best")
            last.save_pretrained(self.output / "last")
        return TrainResult(best, state.best_step, state.best_val_loss, last, last_loss, pd.DataFrame(state.history))

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
        if self.objective is not mean_cross_entropy:
            settings["objective"] = objective_name(self.objective)
        # Provenance comes from others and may use any name; what was measured here has the last word.
        metadata = {**self.origin, **settings, **measured}
        return {key: str(value) for key, value in metadata.items() if value is not None}

    def _what_is_saved(self) -> str:
        step = self.state.best_step
        if self.folder is None or not step:
            return "nothing is saved: a run with a folder keeps its best weights from its first validation on"
        return f"the best weights, of step {step}, are in {self.folder / 'best'}"

    def _how_to_go_on(self) -> str:
        done = f"training was interrupted after step {self.state.step} of {self.total}"
        if self.folder is None:
            return f"{done}; nothing was saved: name a folder to be able to go on"
        return f"{done}; all is saved in {self.folder}: the same call or command goes on from there"
