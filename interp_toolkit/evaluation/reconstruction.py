"""Reconstruction: a description is turned back into a vector, which is compared with the vector it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import bootstrap
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.confidence import auroc
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.evaluation.driver import Evaluation
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks
from interp_toolkit.evaluation.trained_reconstruction import shuffled, way_back_settings, way_back_tables
from interp_toolkit.explain import self_explain
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.reconstruct import reconstruction_scores, unit_by_site
from interp_toolkit.statistics import mean_interval
from interp_toolkit.torch_defaults import plain_defaults

# An empty description is read as this, since the topic prompt needs some text.
_EMPTY = "-"
# A description is right if its title is among so many.
_WITHIN = (1, 10)
_EXAMPLES = 12
_RESAMPLES = 999


@plain_defaults()
def reconstruction_table(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    descriptions: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare the vector of each description with the vector that it describes: a score that needs no label.

    The model reads the description as a topic (see `topic_vectors`), at the site where the adapter's vectors were
    read, and the adapter's mean is subtracted. Cosines of several sites are averaged.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the contract says.
        descriptions: one per vector.
        titles: the right topic of each vector, as a ceiling: 1 where the vectors are the topic vectors of these titles.
        texts: for a description, texts that name it, for a second reconstruction: the mean of their vectors, each read
            at its end, as the adapter's prompts are.
        progress: whether to show bars.

    Returns:
        one row per vector: columns ``vector`` (its number), ``description``, ``cosine``, ``rank`` (of this vector among
        all, by its cosine to the description's; 1 for the nearest), and as controls ``shuffled`` (cosine to the
        description half a list away) and ``null`` (cosine to the description of the null vector); with
        titles ``title``; with texts ``texts`` and ``texts_shuffled``, NaN where a description has none.

    Raises:
        ContractError: an adapter for another model.
        InterpToolkitError: an adapter without a site, fewer than two vectors, or counts that differ.

    Example:
        >>> table = reconstruction_table(model, adapter, vectors, [row.description for row in self_explain(vectors)])
        >>> reconstruction_summary(table)
    """
    contract, n = adapter.require_contract(), len(vectors)
    site = contract.require_site()
    counts = dict(descriptions=len(descriptions)) | ({} if titles is None else dict(titles=len(titles)))
    if n < 2 or any(count != n for count in counts.values()):
        came = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise InterpToolkitError(f"expected one for each of at least two vectors, got {n} vectors, {came}")
    n_sites = len(site.sites)
    originals = unit_by_site(vectors.cpu(), n_sites)
    (null_description,) = self_explain(vectors[:0], model=model, adapter=adapter, include_null=True)

    def directions_of(topics: Sequence[str]) -> Tensor:
        """Directions of topics, each different one read once."""
        number = {text: i for i, text in enumerate(dict.fromkeys(topics))}
        raw = topic_vectors(model, list(number), site, chat=contract.chat, progress=progress)
        return unit_by_site(contract.centre(raw), n_sites)[torch.tensor([number[text] for text in topics])]

    def cosine(directions: Tensor) -> list[float]:
        return ((directions * originals).sum(-1) / n_sites).tolist()

    read = directions_of([text.strip() or _EMPTY for text in (*descriptions, null_description.description)])
    described, null = read[:-1], read[-1]
    columns: dict[str, Sequence[Any]] = dict(
        vector=range(n),
        description=list(descriptions),
        cosine=cosine(described),
        rank=retrieval_ranks(described, originals, torch.arange(n)).tolist(),
        shuffled=cosine(shuffled(described)),
        null=cosine(null),
    )
    if titles is not None:
        columns["title"] = cosine(directions_of(titles))
    if texts is not None:
        by_texts = unit_by_site(_means(model, contract, descriptions, texts, progress), n_sites)
        columns |= dict(texts=cosine(by_texts), texts_shuffled=cosine(shuffled(by_texts)))
    return pd.DataFrame(columns)


def reconstruction_summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise a table of `reconstruction_table` by means with 95% bootstrap intervals over vectors.

    Args:
        table: see `reconstruction_table`.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high``, ``n``, ``seed``. Measures are the mean cosines under the
        names of their columns; how much nearer the description is than the controls, paired by vector (``cosine -
        shuffled``, ``cosine - null``, and so on); and ``recall@k`` and ``mrr`` of the vector among all by its
        description.
    """
    measures = {name: table[name] for name in table.columns if name not in ("vector", "description", "rank")}
    for name, control in (("cosine", "shuffled"), ("cosine", "null"), ("texts", "texts_shuffled")):
        if name in measures:
            measures[f"{name} - {control}"] = table[name] - table[control]
    known = {name: values.dropna().to_numpy() for name, values in measures.items()}
    rows = [
        dict(measure=name) | mean_interval(values, seed=seed).to_dict() for name, values in known.items() if len(values)
    ]
    recall = recall_table(torch.tensor(table["rank"].to_numpy()), seed=seed)
    return pd.concat([pd.DataFrame(rows).drop(columns="clusters"), recall], ignore_index=True)


def _means(
    model: Any, contract: Contract, descriptions: Sequence[str], texts: Mapping[str, Sequence[str]], progress: bool
) -> Tensor:
    """Mean vector of each description's texts, centred; NaN where it has none."""
    site = contract.require_site()
    unique = dict.fromkeys(text for description in set(descriptions) for text in texts.get(description, ()))
    number = {text: i for i, text in enumerate(unique)}
    means = torch.full((len(descriptions), contract.d_model * len(site.sites)), torch.nan)
    if not number:
        return means
    raw = read_activations(model, list(number), site, chat=contract.chat, progress=progress).vectors
    vectors = contract.centre(raw)
    for i, description in enumerate(descriptions):
        if texts.get(description):
            means[i] = vectors[[number[text] for text in texts[description]]].mean(0)
    return means


def _settings(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    settings = dict(
        task="reconstruction",
        adapter=adapter.digest,
        n=len(context.titles.held_out),
        protocol=GREEDY,
        within=list(_WITHIN),
    )
    return context.facts | settings | way_back_settings(adapter)


def _measure(context: EvalContext, adapter: Adapter) -> dict[str, Any]:
    """Turn one greedy description of each held-out title back into a vector.

    Returns:
        ``tables``: ``round_trip`` (see `reconstruction_summary`) and ``telling`` (the chance that a right description
        scores higher than a wrong one, by its cosine, its evidence and, with a way back, the cosine of
        `reconstruction_scores`; no row where all are right or all wrong), and those of `way_back_tables`; ``failed``
        rows; and ``examples``.
    """
    held_out = HeldOut.read(context, adapter)
    greedy = context.describe(adapter, held_out.vectors, 1)
    described = [text for (text,) in greedy.texts]
    table = reconstruction_table(
        context.model, adapter, held_out.vectors, described, titles=held_out.titles, progress=context.progress
    )
    ranks = context.ranks(greedy.texts, context.answers(held_out.titles))[:, 0].numpy()
    scores = dict(
        cosine=table["cosine"].to_numpy(),
        # An empty description has no evidence.
        evidence=greedy.evidence[:, 0].nan_to_num(nan=-torch.inf).numpy(),
    )
    if adapter.require_contract().way_back is not None:
        trained = reconstruction_scores(context.model, adapter, held_out.vectors, described)
        scores["trained cosine"] = trained.nan_to_num(nan=-torch.inf).numpy()
    areas = [
        dict(score=name, right=f"within {k}") | _auroc(score, ranks <= k)
        for k in _WITHIN
        for name, score in scores.items()
        if 0 < (ranks <= k).sum() < len(ranks)
    ]
    examples = table.head(_EXAMPLES).drop(columns=["vector", "title"]).to_dict("records")
    return dict(
        tables=dict(round_trip=reconstruction_summary(table, SEED), telling=areas)
        | way_back_tables(context, adapter, held_out, greedy),
        failed=held_out.failed,
        examples=[dict(title=title) | row for title, row in zip(held_out.titles, examples)],
    )


def _auroc(scores: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """The area under the ROC curve (Mann-Whitney's U over the number of pairs), with a bootstrap interval."""

    def area(scores: np.ndarray, right: np.ndarray) -> float:
        # A draw of one kind alone says nothing.
        return 0.5 if (right > 0).all() or (right == 0).all() else auroc(scores, right)

    interval = bootstrap(
        (scores, right.astype(float)),
        area,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=SEED,
    ).confidence_interval
    return dict(
        value=float(area(scores, right)), low=float(interval.low), high=float(interval.high), n=len(scores), seed=SEED
    )


EVALUATION = Evaluation(_settings, _measure)
