"""Reconstruction by a trained way back: variance explained by descriptions, and choosing a sample by its vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import (
    EVIDENCE,
    GREEDY,
    ORACLE,
    SAMPLES,
    SEED,
    Descriptions,
    EvalContext,
)
from interp_toolkit.evaluation.held_out import HeldOut
from interp_toolkit.evaluation.retrieval import best_by_answer, best_by_evidence, recall_table
from interp_toolkit.reconstruct import reconstruct, site_cosine, unit_by_site
from interp_toolkit.statistics import mean_interval, paired_difference, ratio_interval
from interp_toolkit.torch_defaults import plain_defaults
from interp_toolkit.way_back import WayBack

# Held-out titles that a way back is measured on.
_MEASURED = 1000
FIRST, RECONSTRUCTION = "first of six", "best of six by reconstruction"


@plain_defaults()
def fve_table(
    vectors: Float[Tensor, "n width"],
    reconstructed: Mapping[str, Float[Tensor, "n width"]],
    mean: Float[Tensor, " width"],
    sites: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate how much of vectors their reconstructions explain, with 95% bootstrap intervals over vectors.

    The fraction of variance explained is 1 - sum |x - y|^2 / sum |x - m|^2, over directions x (each site's part of
    length one), reconstructions y at the scale that the regression gives them, and the mean direction m of the vectors
    that it was fitted to. So m itself explains 0, and another vector's description less than nothing.

    Args:
        vectors: held-out, centred.
        reconstructed: by the name of what was turned into vectors, from `reconstruct` with ``normalize=False``.
        mean: `WayBack.vector_mean`.
        sites: at how many sites each vector was read.
        seed: of the bootstrap.

    Returns:
        two rows per name, ``measure`` ``fve`` and ``cosine`` (averaged over sites, without a scale), with columns
        ``text`` (the name), ``measure``, ``value``, ``low``, ``high``, ``n`` and ``seed``.

    Raises:
        InterpToolkitError: other shapes than those of the vectors, or no vectors.

    Example:
        >>> y = reconstruct(model, way_back, descriptions, normalize=False)
        >>> fve_table(vectors, dict(description=y, shuffled=y.roll(len(y) // 2, 0)), way_back.vector_mean, sites=4)
    """
    shapes = {name: tuple(y.shape) for name, y in reconstructed.items()}
    if not len(vectors) or {*shapes.values(), (len(vectors), len(mean))} != {tuple(vectors.shape)}:
        raise InterpToolkitError(
            f"expected reconstructions and a mean of the shape of the vectors, {tuple(vectors.shape)}, and at least "
            f"one vector, got {shapes} and a mean of {len(mean)}"
        )
    x = unit_by_site(vectors.cpu(), sites).double()
    variance = _squared_distance(x, mean[None])
    rows = []
    for name, y in reconstructed.items():
        # Of the two sums only their ratio has an interval that knows that rows are paired.
        ratio = ratio_interval(_squared_distance(x, y), variance, seed=seed)
        explained = dict(value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low)
        cosine = site_cosine(y.cpu(), vectors.cpu(), sites)
        nearness = mean_interval(cosine.nan_to_num(nan=0.0), seed=seed)
        for measure, values in (
            ("fve", explained),
            ("cosine", dict(value=nearness.value, low=nearness.low, high=nearness.high)),
        ):
            rows.append(dict(text=name, measure=measure) | values | dict(n=len(x), seed=seed))
    return pd.DataFrame(rows)


@plain_defaults()
def sample_scores(
    vectors: Float[Tensor, "n width"], reconstructed: Float[Tensor, "n samples width"], sites: int = 1
) -> Float[Tensor, "n samples"]:
    """Score samples by how much nearer their vector is to the one they describe than to a wrong one.

    What a reconstruction has in common with every vector so counts for nothing.

    Args:
        vectors: centred; the wrong one of each is half a list away.
        reconstructed: the vectors of each one's samples.
        sites: at how many sites each vector was read.

    Returns:
        cosine to the vector less that to the wrong one, averaged over sites.
    """
    n, samples = reconstructed.shape[:2]
    flat = reconstructed.flatten(0, 1)
    matched, wrong = (
        site_cosine(flat, x.cpu().repeat_interleave(samples, 0), sites) for x in (vectors, shuffled(vectors))
    )
    return (matched - wrong).view(n, samples)


def shuffled(rows: Tensor) -> Tensor:
    """For each row the one half a list away."""
    return rows.roll(len(rows) // 2, 0)


def way_back_settings(adapter: Adapter) -> dict[str, Any]:
    """Settings that name an adapter's way back; none where it has none, so that earlier results stay finished."""
    way_back = adapter.require_contract().way_back
    return {} if way_back is None else dict(way_back=way_back.digest, samples=SAMPLES, reconstructed=_MEASURED)


def way_back_tables(
    context: EvalContext, adapter: Adapter, held_out: HeldOut, greedy: Descriptions
) -> dict[str, pd.DataFrame | list[dict[str, Any]]]:
    """Measure what the trained way back makes of the descriptions of held-out titles.

    Args:
        context: with the model and the index.
        adapter: with its contract.
        held_out: titles with their vectors.
        greedy: one description of each.

    Returns:
        nothing where the contract has no way back; else the tables ``fve`` (see `fve_table`: of descriptions, those of
        another vector, that of the null vector, the mean vector and the title itself) and
        ``choosing_by_reconstruction`` (recall of the title by the sample that each rule chooses, and the paired
        difference of reconstruction and evidence).
    """
    contract = adapter.require_contract()
    way_back = contract.way_back
    if way_back is None:
        return {}
    # Six samples of each title take long, and intervals over so many are narrow enough.
    titles, texts = held_out.titles[:_MEASURED], greedy.texts[:_MEASURED]
    sites, vectors = len(contract.require_site().sites), held_out.vectors[:_MEASURED].cpu()
    sampled = context.describe(adapter, vectors, SAMPLES)
    ((null,),) = context.describe_null(adapter, 1).texts
    vector_of = _vectors_by_text(
        context,
        way_back,
        [null, *titles, *(text for row in (*texts, *sampled.texts) for text in row)],
    )
    described = torch.stack([vector_of[text] for (text,) in texts])
    explained = fve_table(
        vectors,
        dict(
            description=described,
            shuffled=shuffled(described),
            null=vector_of[null].expand_as(described),
            mean=way_back.vector_mean.expand_as(described),
            title=torch.stack([vector_of[title] for title in titles]),
        ),
        way_back.vector_mean,
        sites,
        SEED,
    )
    by_sample = torch.stack([torch.stack([vector_of[text] for text in texts]) for texts in sampled.texts])
    empty = torch.tensor([[not text.strip() for text in texts] for texts in sampled.texts])
    scores = sample_scores(vectors, by_sample, sites).masked_fill(empty, torch.nan)
    answers = context.answers(titles)
    ranks = context.ranks(sampled.texts, answers)
    chosen = {
        GREEDY: context.ranks(texts, answers)[:, 0],
        FIRST: ranks[:, 0],
        EVIDENCE: best_by_evidence(ranks, sampled.evidence),
        RECONSTRUCTION: best_by_evidence(ranks, scores),
        ORACLE: best_by_answer(ranks),
    }
    return dict(fve=explained, choosing_by_reconstruction=choice_rows(chosen))


def choice_rows(chosen: Mapping[str, Tensor], seed: int = SEED) -> list[dict[str, Any]]:
    """Recall and mean reciprocal rank under each choice, and how much more choosing by reconstruction finds.

    Args:
        chosen: by the name of the choice the rank of the right title for each vector; by reconstruction, by evidence
            and greedy among them.
        seed: of the bootstrap.

    Returns:
        rows with ``choice``, ``measure``, ``value``, ``low``, ``high``, ``n`` and ``seed``; paired differences under
        the names of both choices, with ``p`` as well.
    """
    rows: list[dict[str, Any]] = []
    for choice, ranks in chosen.items():
        rows += [dict(choice=choice) | row for row in recall_table(ranks, seed=seed).to_dict("records")]
    for other in (EVIDENCE, GREEDY):
        for measure, of in (("recall@1", lambda x: x <= 1), ("mrr", lambda x: 1 / x.double())):
            gain = paired_difference(of(chosen[RECONSTRUCTION]), of(chosen[other]), seed=seed).to_dict()
            del gain["clusters"]
            rows.append(dict(choice=f"{RECONSTRUCTION} - {other}", measure=measure) | gain)
    return rows


def _vectors_by_text(context: EvalContext, way_back: WayBack, texts: Sequence[str]) -> dict[str, Tensor]:
    """The vector of each different text, as the regression gives it."""
    unique = list(dict.fromkeys(texts))
    vectors = reconstruct(context.model, way_back, unique, normalize=False, progress=context.progress)
    return dict(zip(unique, vectors))


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y.cpu().double()).square().sum(-1)
