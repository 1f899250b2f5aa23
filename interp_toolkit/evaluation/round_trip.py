"""The round trip: a description is turned back into a vector, and compared with the one that it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import Contract
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.retrieval import recall_table, retrieval_ranks
from interp_toolkit.explain import self_explain
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.statistics import mean_interval
from interp_toolkit.torch_defaults import plain_defaults

# An empty description says nothing; it goes back as this, since the topic prompt needs some text.
_EMPTY = "-"


@plain_defaults()
def round_trip(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    descriptions: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """How near the vector of a description is to the vector that it describes: a score that needs no label.

    The model is asked about the description as about a topic (see `topic_vectors`), at the site where the adapter's
    vectors were read, and the adapter's mean is taken off. Cosines of several sites are averaged.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: centred as the contract says.
        descriptions: one a vector.
        titles: what each vector is really of, as a ceiling: 1 where the vectors are the topic vectors of these titles.
        texts: for a description, texts that name it, for a second way back: the mean of their vectors, each read at
            its end, as the adapter's prompts are.
        progress: whether to show bars.

    Returns:
        one row a vector: columns ``vector`` (its number), ``description``, ``cosine``, ``rank`` (of this vector among
        all given, by its cosine to the description's; 1 for the nearest), and as controls ``shuffled`` (cosine to the
        description half-way round the list) and ``null`` (cosine to what the adapter says of the null vector); with
        titles ``title``; with texts ``texts`` and ``texts_shuffled``, NaN where a description has none.

    Raises:
        ContractError: an adapter for another model.
        InterpToolkitError: an adapter without a site, fewer than two vectors, or counts that differ.

    Example:
        >>> table = round_trip(model, adapter, vectors, [row.description for row in self_explain(vectors)])
        >>> round_trip_summary(table)
    """
    contract, n = adapter.contract, len(vectors)
    if contract is None or contract.site is None:
        raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
    counts = dict(descriptions=len(descriptions)) | ({} if titles is None else dict(titles=len(titles)))
    if n < 2 or any(count != n for count in counts.values()):
        came = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise InterpToolkitError(f"expected one for each of at least two vectors, got {n} vectors, {came}")
    sites = contract.site.sites
    own = _directions(vectors.cpu(), len(sites))
    (nothing,) = self_explain(vectors[:0], model=model, adapter=adapter, include_null=True)

    def back(topics: Sequence[str]) -> Tensor:
        """Directions of topics, each different one read once."""
        number = {text: i for i, text in enumerate(dict.fromkeys(topics))}
        asked = list(number)
        raw = topic_vectors(model, asked, contract.site, chat=contract.chat, progress=progress)  # type: ignore[arg-type]
        return _directions(contract.centre(raw), len(sites))[torch.tensor([number[text] for text in topics])]

    def cosine(told: Tensor) -> list[float]:
        return ((told * own).sum(-1) / len(sites)).tolist()

    *told, null = back([text.strip() or _EMPTY for text in (*descriptions, nothing.description)])
    told = torch.stack(told)
    columns: dict[str, Sequence[Any]] = dict(
        vector=range(n),
        description=list(descriptions),
        cosine=cosine(told),
        rank=retrieval_ranks(told, own, torch.arange(n)).tolist(),
        shuffled=cosine(_shuffled(told)),
        null=cosine(null),
    )
    if titles is not None:
        columns["title"] = cosine(back(titles))
    if texts is not None:
        told = _directions(_means(model, contract, descriptions, texts, progress), len(sites))
        columns |= dict(texts=cosine(told), texts_shuffled=cosine(_shuffled(told)))
    return pd.DataFrame(columns)


def round_trip_summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Means of a `round_trip` table with 95% bootstrap intervals over vectors.

    Args:
        table: see `round_trip`.
        seed: of the bootstrap.

    Returns:
        columns ``measure``, ``value``, ``low``, ``high``, ``n``, ``seed``. Measures are the mean cosines under the
        names of their columns; what the own description is nearer than the controls, paired by vector (``cosine -
        shuffled``, ``cosine - null``, and so on); and ``recall@k`` and ``mrr`` of the vector among all by its
        description.
    """
    measures = {name: table[name] for name in table.columns if name not in ("vector", "description", "rank")}
    for name, control in (("cosine", "shuffled"), ("cosine", "null"), ("texts", "texts_shuffled")):
        if name in measures:
            measures[f"{name} - {control}"] = table[name] - table[control]
    there = {name: x.dropna().to_numpy() for name, x in measures.items()}
    rows = [
        dict(measure=name) | mean_interval(values, seed=seed).to_dict() for name, values in there.items() if len(values)
    ]
    found = recall_table(torch.tensor(table["rank"].to_numpy()), seed=seed)
    return pd.concat([pd.DataFrame(rows).drop(columns="clusters"), found], ignore_index=True)


def _means(
    model: Any, contract: Contract, descriptions: Sequence[str], texts: Mapping[str, Sequence[str]], progress: bool
) -> Tensor:
    """Mean vector of each description's texts, centred; NaN where it has none."""
    place = contract.site
    assert place is not None
    listed = {
        text: i for i, text in enumerate(dict.fromkeys(x for one in set(descriptions) for x in texts.get(one, ())))
    }
    out = torch.full((len(descriptions), contract.d_model * len(place.sites)), torch.nan)
    if not listed:
        return out
    values = contract.centre(
        read_activations(model, list(listed), place, chat=contract.chat, progress=progress).vectors
    )
    for i, one in enumerate(descriptions):
        if texts.get(one):
            out[i] = values[[listed[text] for text in texts[one]]].mean(0)
    return out


def _shuffled(told: Tensor) -> Tensor:
    """Each vector faces the description half-way round the list."""
    return told.roll(len(told) // 2, 0)


def _directions(vectors: Tensor, sites: int) -> Tensor:
    """x^, each site's part alone."""
    return torch.nn.functional.normalize(vectors.float().unflatten(-1, (sites, -1)), dim=-1).flatten(-2)
