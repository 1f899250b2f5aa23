"""Reconstruct vectors from their descriptions by a trained way back, and fit one in closed form."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_token_vectors
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.regression import Moments, low_rank_factors, penalized_covariance, ridge_fit
from interp_toolkit.settings import whole_number
from interp_toolkit.sites import PlaceLike, Site, SiteStack, parse_place
from interp_toolkit.spans import contents
from interp_toolkit.torch_defaults import plain_defaults
from interp_toolkit.way_back import TEXT, VIEWS, WayBack

WORDING = f"Tell me about {TEXT}."
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# Texts whose tokens' states are held at a time.
_BLOCK = 512
# One in so many texts chooses the penalty.
_HELD_OUT = 10


@plain_defaults()
def text_features(
    model: Any, texts: Iterable[str], site: PlaceLike, wording: str = WORDING, *, progress: bool = False
) -> Float[Tensor, "n features"]:
    """Read what the frozen model makes of texts: residual streams over each text alone, without any vector.

    Each text is read as plain text in its wording. At each site, the state of the last token and the mean over the
    text's tokens are each scaled to length one, so that no layer outweighs another. Equal texts are read once.

    Args:
        model: the hooked model.
        texts: none empty.
        site: where to read, at one site or a stack of them.
        wording: what the model reads, with ``{text}`` in place of the text. Words before the text keep the first
            token, whose state is hardly of the text, out of the mean.
        progress: whether to show a bar, in texts.

    Returns:
        float32 [texts, 2 * d_model for each site]: of each site the last token's and then the mean.

    Raises:
        InterpToolkitError: no text, an empty one, one longer than the model's context, a wording without ``{text}``,
            or a site that the model does not have.

    Example:
        >>> text_features(model, ["Baseball", "the history of Poland"], SiteStack([12, 23])).shape
        torch.Size([2, 2304])
    """
    model, place, texts = as_hooked_model(model), parse_place(site), list(texts)
    if wording.count(TEXT) != 1:
        raise InterpToolkitError(f"expected a wording with {TEXT} once, got {wording!r:.60}")
    for row, text in enumerate(texts):
        if not text.strip():
            raise InterpToolkitError(f"text {row} is empty, and there is nothing to read; leave it out")
    unique = list(dict.fromkeys(text.strip() for text in texts))
    number = {text: i for i, text in enumerate(unique)}
    blocks = []
    with tqdm(total=len(unique), desc="reading texts", unit="text", disable=not progress) as bar:
        for start in range(0, len(unique), _BLOCK):
            block = unique[start : start + _BLOCK]
            prompts = prompt_ids(model.tokenizer, [_worded(wording, text) for text in block], chat=False)
            spans = contents(model.tokenizer, prompts, False, lambda text: _worded(wording, text))
            positions = [[*range(*span), len(row) - 1] for row, span in zip(prompts, spans)]
            states = read_token_vectors(model, prompts, place, positions)
            views = [torch.stack([x[-1], x[:-1].mean(0)]) for x in states.split([len(at) for at in positions])]
            by_site = torch.stack(views).unflatten(-1, (len(place.sites), -1)).transpose(1, 2)
            blocks.append(torch.nn.functional.normalize(by_site, dim=-1).flatten(1))
            bar.update(len(block))
    if not blocks:
        raise InterpToolkitError("expected at least one text, got none")
    return torch.cat(blocks)[torch.tensor([number[text.strip()] for text in texts])]


@plain_defaults()
def fit_way_back(
    model: Any,
    texts: Sequence[str],
    vectors: Float[Tensor, "n width"],
    site: PlaceLike | None = None,
    rank: int = 64,
    penalty: float | Sequence[float] = PENALTIES,
    *,
    wording: str = WORDING,
    seed: int = 0,
    progress: bool = False,
) -> WayBack:
    """Fit the way back from descriptions to vectors: ridge regression in closed form, of low rank.

    The penalty is the one of ``penalty`` that explains the most of the vectors of a tenth of the texts, held out by
    ``seed``; the map is then fitted to all of them. Among the maps of its rank it has the least penalised squared
    error (reduced-rank ridge regression, Mukherjee and Zhu 2011).

    Args:
        model: the hooked model, whose states over the texts are the features; see `text_features`.
        texts: one per vector, such as titles or descriptions; a text may stand for several vectors.
        vectors: training vectors, centred as the adapter's contract says, of width d_model for each site.
        site: where the texts are read; by default after a block in the middle and one at three quarters of the depth.
        rank: of the map.
        penalty: one, or several to choose from, relative to the mean variance of the features.
        wording: in which the texts are read, see `text_features`.
        seed: of the tenth that chooses the penalty.
        progress: whether to show a bar.

    Returns:
        the way back, for `Contract.way_back`.

    Raises:
        InterpToolkitError: counts that differ, fewer than two different texts (or than ten, to choose a penalty), a
            width that is not of this model, a vector that is zero at a site or not finite, a rank beyond the number of
            features or the width, or a penalty that is not positive.

    Example:
        >>> way_back = fit_way_back(model, titles, pairs.vectors, rank=64)
        >>> adapter.contract = dataclasses.replace(adapter.contract, way_back=way_back)
    """
    model, texts = as_hooked_model(model), list(texts)
    facts = model_facts(model)
    place = _default_place(facts.n_layers) if site is None else parse_place(site)
    penalties = [float(x) for x in (penalty if isinstance(penalty, Sequence) else [penalty])]
    if not penalties or any(not (0 < x < math.inf) for x in penalties):
        raise InterpToolkitError(f"expected a positive penalty, or several, got {penalty!r:.60}")
    _check_pairs(texts, vectors, facts.d_model)
    width, features = vectors.shape[1], VIEWS * facts.d_model * len(place.sites)
    if not 1 <= (rank := whole_number(rank, "rank")) <= min(width, features):
        raise InterpToolkitError(f"expected a rank from 1 to {min(width, features)}, got {rank}")
    unique = sorted(set(map(str.strip, texts)))
    if len(unique) < (fewest := _HELD_OUT if len(penalties) > 1 else 2):
        raise InterpToolkitError(f"expected at least {fewest} different texts to fit to, got {len(unique)}")
    directions = unit_by_site(vectors, width // facts.d_model)
    drawn = set(random.Random(seed).sample(unique, len(unique) // _HELD_OUT) if len(penalties) > 1 else ())
    held_out = [i for i, text in enumerate(texts) if text.strip() in drawn]
    train = [i for i, text in enumerate(texts) if text.strip() not in drawn]
    x = text_features(model, texts, place, wording, progress=progress)
    moments = Moments(features, width)
    _add(moments, x, directions, train)
    if held_out:
        penalties.sort(key=lambda value: _squared_error(moments, value, x[held_out], directions[held_out]))
        _add(moments, x, directions, held_out)
    chosen = penalties[0]
    left, right = low_rank_factors(ridge_fit(moments, chosen), penalized_covariance(moments, chosen), rank)
    tensors = dict(U=left, V=right, feature_mean=moments.input_mean, vector_mean=moments.output_mean)
    return WayBack(place, wording, **{k: v.float() for k, v in tensors.items()}, penalty=chosen, n=len(texts))


@plain_defaults()
def reconstruct(
    model: Any, way_back: WayBack, texts: Sequence[str], *, normalize: bool = True, progress: bool = False
) -> Float[Tensor, "n width"]:
    """Turn texts into the vectors that they describe.

    Args:
        model: the hooked model that the way back was fitted with.
        way_back: of an adapter's contract, or from `fit_way_back`.
        texts: descriptions. An empty one says nothing of its vector, and gives the mean vector.
        normalize: whether each site's part has length one; else vectors are as the regression gives them, whose
            squared distance to the directions of the vectors is the least.
        progress: whether to show a bar, in texts.

    Returns:
        float32 [texts, width], centred.

    Raises:
        InterpToolkitError: as `text_features` has it.

    Example:
        >>> reconstruct(model, adapter.contract.require_way_back(), ["Baseball", "a river in Poland"]).shape
        torch.Size([2, 2304])
    """
    texts = [text.strip() for text in texts]
    vectors = way_back.vector_mean.repeat(len(texts), 1)
    if some := [i for i, text in enumerate(texts) if text]:
        read = text_features(model, [texts[i] for i in some], way_back.site, way_back.wording, progress=progress)
        vectors[some] = way_back.map_features(read)
    return unit_by_site(vectors, len(vectors[0]) // model_facts(model).d_model) if normalize and texts else vectors


@plain_defaults()
def reconstruction_scores(
    model: Any, adapter: Adapter, vectors: Float[Tensor, "n width"], descriptions: Sequence[str]
) -> Float[Tensor, " n"]:
    """Score descriptions by how near the vector that they reconstruct is to the vector that they describe.

    Args:
        model: the hooked model.
        adapter: whose contract has a way back.
        vectors: centred as the contract says. Sites whose part is zero are left out.
        descriptions: one per vector.

    Returns:
        cosines, averaged over sites, float32 [n]; NaN for an empty description and for a vector that is all zero.

    Raises:
        InterpToolkitError: an adapter without contract or way back, counts that differ, or another width.
        ContractError: an adapter for another model.

    Example:
        >>> rows = self_explain(vectors, model=model, adapter=adapter)
        >>> reconstruction_scores(model, adapter, vectors, [row.description for row in rows])
    """
    contract = adapter.require_contract(model_facts(as_hooked_model(model)))
    way_back = contract.require_way_back()
    require_one_each(descriptions, vectors, len(way_back.vector_mean))
    if not len(vectors):
        return torch.zeros(0)
    sites = len(way_back.vector_mean) // contract.d_model
    scores = site_cosine(reconstruct(model, way_back, descriptions), vectors.cpu(), sites)
    empty = torch.tensor([not text.strip() for text in descriptions])
    return scores.masked_fill(empty, torch.nan)


def require_one_each(descriptions: Sequence[str], vectors: Tensor, width: int) -> None:
    """Refuse descriptions that are not one for each vector, and vectors of another width.

    Args:
        descriptions: texts.
        vectors: [n, width].
        width: that is expected.

    Raises:
        InterpToolkitError: they are.
    """
    if len(descriptions) != len(vectors) or (vectors.ndim, vectors.shape[-1]) != (2, width):
        raise InterpToolkitError(
            f"expected one description for each vector of width {width}, got {len(descriptions)} descriptions for "
            f"vectors of shape {tuple(vectors.shape)}"
        )


def unit_by_site(vectors: Float[Tensor, "n width"], sites: int) -> Float[Tensor, "n width"]:
    """Directions, float32: each site's part of a vector scaled to length one by itself; zero stays zero."""
    return torch.nn.functional.normalize(vectors.float().unflatten(-1, (sites, -1)), dim=-1).flatten(-2)


def site_cosine(vectors: Float[Tensor, "n width"], others: Float[Tensor, "n width"], sites: int) -> Float[Tensor, " n"]:
    """Cosine of each vector with another, averaged over the sites at which neither is zero; NaN where there are none.

    Args:
        vectors: [n, d_model for each site].
        others: as many.
        sites: how many.
    """
    one, other = (unit_by_site(x, sites).unflatten(-1, (sites, -1)) for x in (vectors, others))
    present = one.any(-1) & other.any(-1)
    return (one * other).sum((-1, -2)) / present.sum(-1)


def _default_place(n_layers: int) -> SiteStack | Site:
    """After a block in the middle, and after one at three quarters of the depth."""
    layers = sorted({n_layers * 2 // 5, n_layers * 3 // 4})
    return SiteStack(layers) if len(layers) > 1 else Site.after(layers[0])


def _worded(wording: str, text: str) -> str:
    return wording.replace(TEXT, text)


def _check_pairs(texts: Sequence[str], vectors: Tensor, d_model: int) -> None:
    if vectors.ndim != 2 or len(texts) != len(vectors) or vectors.shape[1] % d_model or not vectors.shape[1]:
        raise InterpToolkitError(
            f"expected a text for each vector of width {d_model} for each site, got {len(texts)} texts for vectors of "
            f"shape {tuple(vectors.shape)}"
        )
    by_site = vectors.unflatten(-1, (-1, d_model))
    usable = (torch.isfinite(by_site).all(-1) & by_site.any(-1)).all(-1)
    if not usable.all():
        row = int((~usable).nonzero()[0])
        raise InterpToolkitError(
            f"expected finite vectors other than zero at each site, and vector {row} is not; leave it out"
        )


def _add(moments: Moments, features: Tensor, directions: Tensor, rows: Sequence[int]) -> None:
    for start in range(0, len(rows), _BLOCK):
        block = list(itertools.islice(rows, start, start + _BLOCK))
        moments.add(features[block], directions[block])


def _squared_error(moments: Moments, penalty: float, features: Tensor, directions: Tensor) -> float:
    """That of the ridge regression of full rank on rows that it was not fitted to."""
    predicted = (features.double() - moments.input_mean) @ ridge_fit(moments, penalty) + moments.output_mean
    return float((predicted - directions.cpu().double()).square().sum())
