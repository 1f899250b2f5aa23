"""Conditions: ways of asking about the same rows, by what each row is given and whose label it faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.runtime import PromptRun, generate, score
from interp_toolkit.torch_defaults import plain_defaults

OWN, NULL, BIAS, UNTRAINED = "own vectors", "null vector", "bias only", "untrained"


@dataclass(frozen=True, eq=False)
class Condition:
    """One way of asking about the rows: what each is given, and whose label it is to account for.

    Attributes:
        name: what it is called in tables.
        adapter: with its contract.
        vectors: what is given, [different ones, width].
        given: for each row the number of its vector among these.
        faced: for each row the row whose label it faces: itself, but for random labels.
        scale: of the untrained direction; None for trained adapters.
    """

    name: str
    adapter: Adapter
    vectors: Tensor
    given: tuple[int, ...]
    faced: tuple[int, ...]
    scale: float | None = None

    @property
    def of_nothing(self) -> bool:
        """Whether all rows are given the null vector."""
        return not self.vectors.any()

    def take(self, rows: Sequence[int]) -> Condition:
        """The same for some rows, which face the labels that they did."""
        used = sorted({self.given[row] for row in rows})
        given = tuple(used.index(self.given[row]) for row in rows)
        return replace(self, vectors=self.vectors[used], given=given, faced=tuple(self.faced[row] for row in rows))

    @torch.no_grad()
    def losses(self, model: Any, labels: Sequence[str]) -> Float[Tensor, " n"]:
        """Mean loss over each row's label, in nats a token; ``labels`` are those of all rows."""
        run = PromptRun(model, self.adapter.require_contract().require_soft_prompt())
        targets = run.soft_prompt.targets(run.model.tokenizer, [labels[row] for row in self.faced])
        soft_tokens = _soft_tokens(run, self.adapter, self.vectors)
        return -score(run, soft_tokens, targets, owners=self.given).mean().cpu()


def own_vectors(adapter: Adapter, vectors: Tensor, labels: Sequence[str]) -> Condition:
    """Each row given its own vector."""
    adapter.require_contract().require_soft_prompt()
    if len(vectors) != len(labels) or len(labels) < 2:
        raise InterpToolkitError(
            f"expected one label for each of at least two vectors, got {len(vectors)} vectors and {len(labels)} labels"
        )
    rows = tuple(range(len(labels)))
    return Condition(OWN, adapter, vectors, rows, rows)


def half_round(own: Condition) -> Condition:
    """Each row given the vector of the one half-way round the list."""
    n = len(own.faced)
    return replace(own, given=tuple((i - n // 2) % n for i in range(n)))


def null_vector(adapter: Adapter, n: int) -> Condition:
    """Each of n rows given the null vector, so that only the adapter's bias speaks."""
    return Condition(NULL, adapter, torch.zeros(1, adapter.config.width), (0,) * n, tuple(range(n)))


def bias_alone(adapter: Adapter, bias_only: Adapter, n: int) -> Condition:
    """Each of n rows given what an adapter has to say that was trained with nothing but a bias."""
    if (
        bias_only.kind != "bias_only"
        or bias_only.require_contract().require_soft_prompt() != adapter.require_contract().require_soft_prompt()
    ):
        raise InterpToolkitError(
            f"expected an adapter of kind 'bias_only' that was trained with the adapter's own soft prompt, got "
            f"{bias_only!r}; train one with soft_prompt=adapter.contract.soft_prompt"
        )
    return replace(null_vector(bias_only, n), name=BIAS)


def untrained(adapter: Adapter, vectors: Tensor, scale: float) -> Condition:
    """Each row given its own direction, untrained, with this length, in every slot of the adapter's soft prompt.

    Of vectors of several sites the deepest is taken, since several side by side are no direction of the model's.
    """
    contract, config = adapter.require_contract(), adapter.config
    places = contract.site.sites if contract.site else ()
    deepest = places.index(max(places)) if places else config.sites - 1
    own = vectors.unflatten(-1, (config.sites, -1))[:, deepest]
    made = Adapter.create("identity", config.d_model, normalize=False)
    site = places[deepest] if places else None
    made.contract = replace(contract, site=site, mean=None, normalize=False, threshold=None)
    rows = tuple(range(len(vectors)))
    return Condition(UNTRAINED, made, torch.nn.functional.normalize(own, dim=-1) * scale, rows, rows, scale)


@plain_defaults()
def random_directions(vectors: Float[Tensor, "n width"], sites: int = 1, seed: int = 0) -> Float[Tensor, "n width"]:
    """Random directions, each of the norm of its vector; for vectors of several sites, of each site's own.

    Args:
        vectors: centred.
        sites: how many vectors stand side by side in each.
        seed: of the directions.
    """
    own = vectors.unflatten(-1, (sites, -1))
    drawn = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed)).to(own)
    return (drawn / drawn.norm(dim=-1, keepdim=True) * own.norm(dim=-1, keepdim=True)).flatten(-2)


def greedy(model: Any, adapter: Adapter, vectors: Tensor) -> list[str]:
    """A greedy description of each vector."""
    run = PromptRun(model, adapter.require_contract().require_soft_prompt())
    return [texts[0].text for texts in generate(run, _soft_tokens(run, adapter, vectors))]


def describe_each(asked: Sequence[Condition], describe: Callable[[Adapter, Tensor], list[str]]) -> list[list[str]]:
    """For each condition a description a row, where ``describe`` gives one for each vector, as `greedy` does.

    What is given to one adapter is described together, and once where only its order or the labels differ; the null
    vector alone.
    """
    groups: dict[tuple[str, bool], dict[int, Condition]] = {}
    for condition in asked:
        groups.setdefault(_group(condition), {}).setdefault(id(condition.vectors), condition)
    told: dict[tuple[tuple[str, bool], int], list[str]] = {}
    for group, members in groups.items():
        adapter = next(iter(members.values())).adapter
        texts = iter(describe(adapter, torch.cat([member.vectors for member in members.values()])))
        told |= {(group, key): [next(texts) for _ in member.vectors] for key, member in members.items()}
    return [[told[_group(condition), id(condition.vectors)][i] for i in condition.given] for condition in asked]


def _group(condition: Condition) -> tuple[str, bool]:
    return condition.adapter.digest, condition.of_nothing


@torch.no_grad()
def _soft_tokens(run: PromptRun, adapter: Adapter, vectors: Tensor) -> Tensor:
    device = run.backend.device
    return adapter.to(device)(vectors.to(device))
