"""`train_adapter`: what a run is made of, checked and put together."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, backend_of, model_facts
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.runtime import PromptRun
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.torch_defaults import plain_defaults
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.loop import TrainingRun
from interp_toolkit.training.objective import Objective, mean_cross_entropy
from interp_toolkit.training.ranks import Ranks
from interp_toolkit.training.result import TrainResult


@plain_defaults()
@torch.enable_grad()
def train_adapter(
    model: Any,
    pairs: VectorLabelPairs,
    adapter: Adapter,
    config: TrainConfig | None = None,
    *,
    soft_prompt: SoftPrompt | None = None,
    objective: Objective = mean_cross_entropy,
    folder: str | Path | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train an adapter on vector-label pairs, with the model frozen.

    AdamW over the adapter's parameters alone; linear warm-up, then a cosine to zero; gradients clipped; validated every
    few steps on held-out vectors, and the best weights kept (arXiv 2602.10352, section 3 and table 5).

    Processes that torchrun started train one adapter together: each takes a share of every batch, with the numbers of
    one process but for rounding, and the first writes and shows.

    Args:
        model: the hooked model; nothing of it changes, its dtype and modes included (`load_model` sets the dtype).
        pairs: the training rows are trained on, the validation rows choose the weights. Where they have questions,
            the labels of a vector are learnt as the answers to its question (see `SoftPrompt.about`). Of spans every
            vector has slots of its own (see `SoftPrompt.with_room`).
        adapter: where training starts; it stays as it is.
        config: settings; by default `TrainConfig`'s.
        soft_prompt: by default the paper's wording in the model's chat template, and a plain text with a few examples
            where it has none (see `SoftPrompt.for_tokenizer`).
        objective: the loss of each example; by default its mean cross-entropy. Validation is by cross-entropy in any
            case. A run's folder records it by its name.
        folder: of the run: ``best`` and ``last`` (adapters), ``log.jsonl``, and ``checkpoint.pt``, from which a run
            that was stopped goes on with the same numbers. One of other pairs, settings, starting weights, another
            prompt, site or model is refused.
        progress: whether to show a bar, with descriptions of some validation vectors.

    Returns:
        The trained adapters, new ones with the contract of this run, and the run's history.

    Raises:
        InterpToolkitError: widths differ, nothing to train, no training or validation rows, a folder of another run, a
            loss or gradient that is not finite (the best weights so far are then in ``best``, as after any error).
        TrainingInterrupted: Ctrl-C; the state is saved in the folder.

    Example:
        >>> adapter = Adapter.create("scalar_affine", d_model=576)
        >>> result = train_adapter(model, pairs, adapter, TrainConfig(lr=0.02), folder="runs/first")
        >>> result.adapter.save_pretrained("my-adapter")
    """
    config = config or TrainConfig()
    model = as_hooked_model(model)
    facts = model_facts(model)
    shape = adapter.config
    if shape.d_model != facts.d_model or shape.width != pairs.width:
        raise InterpToolkitError(
            f"expected one width for model, adapter and vectors, got d_model {facts.d_model} of the model, "
            f"{shape.d_model} of the adapter for {shape.sites} site{'s' * (shape.sites > 1)}, and vectors of width "
            f"{pairs.width}; make the adapter with d_model={facts.d_model} and as many sites as vectors were read at"
        )
    rows = len(backend_of(model).embedding_weight)
    soft_prompt = soft_prompt or SoftPrompt.for_tokenizer(model.tokenizer, shape.tokens, vocabulary=rows)
    if any(pairs.questions):
        soft_prompt = soft_prompt.with_questions(model.tokenizer)
    run = PromptRun(model, soft_prompt.with_room(pairs.stored.span), config.gradient_checkpointing)
    _require_gradients(model)
    adapter = _trainable_copy(adapter).to(run.backend.device).train()
    path = Path(folder) if folder else None
    training = TrainingRun(run, pairs, adapter, config, objective, path, progress, Ranks.joined())
    # Pairs of other origin than `topic_pairs` do not say how their prompts were read.
    chat = {"True": True, "False": False}.get(pairs.origin.get("chat", ""))
    adapter.contract = Contract.from_facts(facts, pairs.site, soft_prompt, pairs.mean, shape.normalize, chat)
    return training.finish()


def _require_gradients(model: Any) -> None:
    """Refuse a model of inference mode."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InterpToolkitError(
            "expected a model that gradients can pass through, got one whose weights were made under "
            "torch.inference_mode; load it outside of that (torch.no_grad does no harm)"
        )


def _trainable_copy(adapter: Adapter) -> Adapter:
    """A copy that shares nothing with the adapter; parameters of inference mode, which cannot be trained, are plain."""
    adapter = copy.deepcopy(adapter)
    for name, parameter in list(adapter.named_parameters()):
        if parameter.is_inference():
            setattr(adapter, name, torch.nn.Parameter(parameter.clone()))
    return adapter
