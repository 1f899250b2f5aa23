"""How good an SAE is: what it explains, how sparse it is, and what the model loses when it is spliced in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import Backend, backend_of
from interp_toolkit.models.batches import padded_batches
from interp_toolkit.models.kv import Edit
from interp_toolkit.sae.encode import Encoder
from interp_toolkit.sae.facts import OnMismatch, check_sae, flags_renamed, require_site
from interp_toolkit.sae.loading import for_inference
from interp_toolkit.sae.passages import TokenRows
from interp_toolkit.sae.store import ActivationStore
from interp_toolkit.sites import Site
from interp_toolkit.statistics import bootstrap_interval
from interp_toolkit.torch_defaults import plain_defaults

# Tokens of neutral text from which a feature's 99th percentile is computed.
_NEUTRAL = 100_000
# Tokens in one pass, each of which needs logits over the whole vocabulary.
_TOKENS = 1024


@dataclass
class _Sums:
    """Per passage: sums of squares, losses and counts, from which the measures are computed."""

    residual: np.ndarray
    total: np.ndarray
    active: np.ndarray
    tokens: np.ndarray
    clean: np.ndarray
    spliced: np.ndarray
    zero: np.ndarray
    predicted: np.ndarray


@flags_renamed
@plain_defaults()
@torch.no_grad()
def sae_quality(
    model: Any,
    sae: Any,
    rows: TokenRows,
    *,
    on_mismatch: OnMismatch = "error",
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure how well an SAE reconstructs the residual stream, and what the model loses by its reconstruction.

    Take passages that it was not trained on. The first position of each row is neither reconstructed nor counted.
    Intervals are of 95%, by the bootstrap over passages (`bootstrap_interval`).

    Args:
        model: the hooked model.
        sae: an SAE of one of its sites.
        rows: tokens of the passages, see `token_rows`.
        on_mismatch: as `check_sae` takes it.
        seed: of the intervals.
        progress: whether to show a bar.

    Returns:
        columns ``metric value low high n seed`` with these rows; n counts passages:
        ``explained_variance``: 1 - squared error / squared distance from the mean over these tokens;
        ``l0``: features active on a token;
        ``dead_share``: features active on none of these tokens, without an interval;
        ``loss_clean``, ``loss_spliced``, ``loss_zero``: cross-entropy of the next tokens in nats per token, with the
        stream as it is, with the SAE's reconstruction in its place, with zeros in its place;
        ``loss_recovered``: (zero - spliced) / (zero - clean).

    Raises:
        ContractError: as `check_sae`.
        InterpToolkitError: no passage, or an SAE that cannot be run on this model.
    """
    check_sae(sae, model, on_mismatch=on_mismatch)
    site = require_site(sae)
    if not len(rows):
        raise InterpToolkitError("expected at least one passage, got none")
    sums, active = _sums(model, for_inference(sae), site, rows, progress)
    measures: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
        "explained_variance": (lambda residual, total: 1 - residual / total, [sums.residual, sums.total]),
        "l0": (_ratio, [sums.active, sums.tokens]),
        "loss_clean": (_ratio, [sums.clean, sums.predicted]),
        "loss_spliced": (_ratio, [sums.spliced, sums.predicted]),
        "loss_zero": (_ratio, [sums.zero, sums.predicted]),
        "loss_recovered": (_recovered, [sums.clean, sums.spliced, sums.zero]),
    }
    n = len(sums.tokens)
    dead = float((~active).float().mean())
    metrics = [dict(metric="dead_share", value=dead, low=np.nan, high=np.nan, n=n, seed=seed)]
    for name, (measure, columns) in measures.items():
        with np.errstate(divide="ignore", invalid="ignore"):  # of passages without a predicted token
            value = float(measure(*(column.sum() for column in columns)))
            low, high = bootstrap_interval(measure, *columns, seed=seed)
        metrics.append(dict(metric=name, value=value, low=low, high=high, n=n, seed=seed))
    order = ["explained_variance", "l0", "dead_share", "loss_clean", "loss_spliced", "loss_zero", "loss_recovered"]
    return pd.DataFrame(metrics).set_index("metric").loc[order].reset_index()


@plain_defaults()
def feature_quantiles(
    sae: Any, vectors: Float[Tensor, "n d_model"], features: Sequence[int], share: float = 0.99
) -> Float[Tensor, " features"]:
    """The activation that each feature exceeds on no more than 1 - share of these tokens, zeros counted.

    Args:
        sae: an SAE.
        vectors: of neutral tokens (`ActivationStore.sample`).
        features: numbers.
        share: of the tokens, from 0 to 1.

    Returns:
        one activation per feature, in their order.

    Raises:
        InterpToolkitError: no vector, or a share out of its range.
    """
    if not len(vectors) or not 0 <= share <= 1:
        raise InterpToolkitError(f"expected vectors and a share from 0 to 1, got {len(vectors)} vectors and {share}")
    # torch.quantile refuses more than 2^24 values, and this needs no interpolation.
    activations = Encoder(sae, features)(vectors)
    return activations.kthvalue(max(1, round(share * len(activations))), dim=0).values


def neutral_thresholds(sae: Any, store: ActivationStore, features: Sequence[int], seed: int = 0) -> dict[int, float]:
    """The 99th percentile of features on neutral text, above which `generation_scores` counts a text as a strict hit.

    Args:
        sae: an SAE.
        store: activations at its site of text that neither the SAE nor the labels were made of.
        features: numbers.
        seed: of the draw of tokens.

    Returns:
        by feature its threshold, from at most 100,000 tokens.

    Raises:
        InterpToolkitError: a feature that the SAE does not have.
    """
    quantiles = feature_quantiles(sae, store.sample(_NEUTRAL, seed), features)
    return dict(zip(features, quantiles.tolist()))


def _ratio(over: Any, under: Any) -> Any:
    return over / under


def _recovered(clean: Any, spliced: Any, zero: Any) -> Any:
    return (zero - spliced) / (zero - clean)


def _sums(model: Any, sae: Any, site: Site, rows: TokenRows, progress: bool) -> tuple[_Sums, Tensor]:
    backend = backend_of(model)
    backend.look()
    numbers = {passage: place for place, passage in enumerate(dict.fromkeys(rows.passage))}
    sums = _Sums(*(np.zeros(len(numbers)) for _ in range(8)))
    # Squares are taken about a mean that is known at the end only.
    vectors = torch.zeros(len(numbers), backend.d_model, dtype=torch.float64)
    ever_active = torch.zeros(sae.W_dec.shape[0], dtype=torch.bool)
    batches = list(padded_batches(backend, [len(row) for row in rows.ids], tokens=_TOKENS))
    for batch in tqdm(batches, desc="quality", unit="batch", disable=not progress):
        ids = [rows.ids[i] for i in batch]
        places = [numbers[rows.passage[i]] for i in batch]
        read: list[Tensor] = []
        clean = _losses(backend, ids, site, lambda x, read=read: read.append(x.float().cpu()))
        rebuilt = []
        for place, row, stream in zip(places, ids, read[0]):
            seen = stream[1 : len(row)]
            acts = sae.encode(seen.to(sae.W_dec.device))
            rebuilt.append(sae.decode(acts).float().cpu())
            active = (acts.to_dense() > 0).cpu()
            ever_active |= active.any(0)
            vectors[place] += seen.sum(0, dtype=torch.float64)
            sums.total[place] += float(seen.double().square().sum())
            sums.residual[place] += float((seen - rebuilt[-1]).square().sum())
            sums.active[place] += float(active.sum())
            sums.tokens[place] += len(seen)
            sums.predicted[place] += len(row) - 2

        def splice(x: Tensor, rebuilt: list[Tensor] = rebuilt) -> Tensor:
            x = x.clone()
            for row, vectors in enumerate(rebuilt):
                x[row, 1 : len(vectors) + 1] = vectors.to(x)
            return x

        spliced = _losses(backend, ids, site, splice)
        zero = _losses(backend, ids, site, lambda x: torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], dim=1))
        for sums_of_losses, losses in ((sums.clean, clean), (sums.spliced, spliced), (sums.zero, zero)):
            for place, loss in zip(places, losses):
                sums_of_losses[place] += float(loss.sum())
    mean = vectors.sum(0) / sums.tokens.sum()
    sums.total += -2 * (vectors @ mean).numpy() + sums.tokens * float(mean.square().sum())
    return sums, ever_active


def _losses(backend: Backend, ids: Sequence[Sequence[int]], site: Site, edit: Edit) -> list[Tensor]:
    """The losses of each row's tokens from the third on: the third is the first that the edited stream predicts."""
    padded = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    for row, row_ids in enumerate(ids):
        padded[row, : len(row_ids)] = torch.tensor(row_ids)
    hidden, _ = backend.hidden(padded.to(backend.device), None, {site: edit})
    targets = torch.tensor([token for row_ids in ids for token in row_ids[2:]], device=hidden.device, dtype=torch.long)
    lengths = [len(row_ids) - 2 for row_ids in ids]
    if not len(targets):
        return list(torch.zeros(0).split(lengths))
    logits = backend.logits(torch.cat([hidden[row, 1 : len(row_ids) - 1] for row, row_ids in enumerate(ids)]))
    return list(torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().split(lengths))
