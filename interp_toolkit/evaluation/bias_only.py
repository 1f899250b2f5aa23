"""An adapter with nothing but a bias, trained for another adapter's soft prompt and sites: a control for both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.evaluation.held_out import centred_vectors
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.training import TrainConfig, train_adapter

# A bias has few numbers and needs few titles: eight of the shards in which training reads its titles.
_TITLES = 8 * 256
_TRAINING = TrainConfig(epochs=4, batch_size=32, lr=0.02, eval_every=32, val_examples=200, log_samples=0, seed=SEED)


def train_bias_only(context: EvalContext, adapter: Adapter) -> Adapter:
    """Train an adapter with nothing but a bias for this adapter's soft prompt; it is stored in ``runs/bias_only``.

    Raises:
        InterpToolkitError: an adapter without a site.
        TrainingInterrupted: Ctrl-C; the same call goes on.
    """
    contract, config = adapter.require_contract(), adapter.config
    site = contract.require_site()
    train, dev = context.titles.train[:_TITLES], context.titles.dev[: _TRAINING.val_examples]
    facts = model_facts(context.model)
    pairs = VectorLabelPairs.from_tensors(
        centred_vectors(context, adapter, [*train, *dev]),
        [*train, *dev],
        splits=["train"] * len(train) + ["val"] * len(dev),
        site=site,
        mean=contract.mean,
        origin=dict(
            model=facts.model_id,
            revision=facts.revision,
            chat=str(contract.chat),
            source="contrastive topic vectors",
        ),
    )
    bias_only = Adapter.create("bias_only", config.d_model, sites=config.sites, tokens=config.tokens)
    trial = "" if context.limit is None else f"-limit-{context.limit}"
    folder = Path("runs") / "bias_only" / f"{adapter.digest}{trial}"
    result = train_adapter(context.model, pairs, bias_only, _TRAINING, soft_prompt=contract.soft_prompt, folder=folder)
    return result.adapter


def bias_training(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Settings of `train_bias_only`: all that decides its adapter beside the model and the titles."""
    contract = adapter.require_contract()
    return _TRAINING.to_dict() | dict(
        titles=len(context.titles.train[:_TITLES]),
        site=str(contract.site),
        tokens=adapter.config.tokens,
        soft_prompt=contract.require_soft_prompt().to_dict(),
    )
