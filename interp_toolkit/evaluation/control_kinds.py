"""Controls: for each row the vector that it is described by, and the label that it is scored on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.adapters import Adapter, untrained_adapter
from interp_toolkit.engines import Engine, as_engine, require_same_model
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.torch_defaults import plain_defaults

MATCHED, NULL, BIAS, UNTRAINED = "own vectors", "null vector", "bias only", "untrained"


@dataclass(frozen=True, eq=False)
class Control:
    """Which vector and which label each row has: matched, or one of them replaced.

    Attributes:
        name: as in tables.
        adapter: with its contract.
        vectors: the different vectors, [vectors, width].
        vector_index: for each row the number of its vector among these.
        target_index: for each row the row whose label is scored: itself, but for random labels.
        scale: of the untrained direction; None for trained adapters.
    """

    name: str
    adapter: Adapter
    vectors: Tensor
    vector_index: tuple[int, ...]
    target_index: tuple[int, ...]
    scale: float | None = None

    @property
    def is_null(self) -> bool:
        """Whether all rows have the null vector."""
        return not self.vectors.any()

    def take(self, rows: Sequence[int]) -> Control:
        """The same control for some rows; ``target_index`` still counts all rows."""
        used = sorted({self.vector_index[row] for row in rows})
        return replace(
            self,
            vectors=self.vectors[used],
            vector_index=tuple(used.index(self.vector_index[row]) for row in rows),
            target_index=tuple(self.target_index[row] for row in rows),
        )

    @torch.no_grad()
    def losses(self, model: Any, labels: Sequence[str]) -> Float[Tensor, " n"]:
        """Mean loss over each row's label, in nats per token.

        Args:
            model: the hooked model, or another engine, as of `self_explain`.
            labels: of all rows, also where this control has been taken for some.
        """
        engine, soft_prompt = as_engine(model), self.adapter.require_contract().require_soft_prompt()
        require_same_model(engine, self.adapter)
        targets = soft_prompt.targets(_tokenizer(engine), [labels[row] for row in self.target_index])
        soft_tokens = _soft_tokens(engine, self.adapter, self.vectors)
        return -engine.score(soft_prompt, soft_tokens, targets, self.vector_index).mean().cpu()


def matched_control(adapter: Adapter, vectors: Tensor, labels: Sequence[str]) -> Control:
    """Give each row its own vector.

    Args:
        adapter: with its contract.
        vectors: centred, [n, width].
        labels: one per vector.

    Raises:
        InterpToolkitError: no soft prompt in the contract, counts that differ, or fewer than two vectors.
    """
    adapter.require_contract().require_soft_prompt()
    if len(vectors) != len(labels) or len(labels) < 2:
        raise InterpToolkitError(
            f"expected one label for each of at least two vectors, got {len(vectors)} vectors and {len(labels)} labels"
        )
    rows = tuple(range(len(labels)))
    return Control(MATCHED, adapter, vectors, rows, rows)


def shifted_control(matched: Control) -> Control:
    """Give each row the vector of the row half a list away."""
    n = len(matched.target_index)
    return replace(matched, vector_index=tuple((i - n // 2) % n for i in range(n)))


def null_control(adapter: Adapter, n: int) -> Control:
    """Give each of n rows the null vector, so that only the adapter's bias is left."""
    return Control(NULL, adapter, torch.zeros(1, adapter.config.width), (0,) * n, tuple(range(n)))


def bias_control(adapter: Adapter, bias_only: Adapter, n: int) -> Control:
    """Give each of n rows to an adapter that was trained with a bias alone.

    Args:
        adapter: that is measured.
        bias_only: of kind ``bias_only``, trained with the same soft prompt.
        n: rows.

    Raises:
        InterpToolkitError: an adapter of another kind, or with another soft prompt.
    """
    if (
        bias_only.kind != "bias_only"
        or bias_only.require_contract().require_soft_prompt() != adapter.require_contract().require_soft_prompt()
    ):
        raise InterpToolkitError(
            f"expected an adapter of kind 'bias_only' that was trained with the adapter's own soft prompt, got "
            f"{bias_only!r}; train one with soft_prompt=adapter.contract.soft_prompt"
        )
    return replace(null_control(bias_only, n), name=BIAS)


def untrained_control(adapter: Adapter, vectors: Tensor, scale: float) -> Control:
    """Give each row its vector's direction without training, in every slot of the adapter's soft prompt.

    For vectors of several sites the deepest site's is taken, since several side by side are no direction of the model.

    Args:
        adapter: whose soft prompt and sites are used.
        vectors: centred, [n, width], or spans of them.
        scale: length of the direction.
    """
    contract, config = adapter.require_contract(), adapter.config
    places = contract.site.sites if contract.site else ()
    deepest = places.index(max(places)) if places else config.sites - 1
    at_site = vectors.unflatten(-1, (config.sites, -1))[..., deepest, :]
    rows = tuple(range(len(vectors)))
    directions = torch.nn.functional.normalize(at_site, dim=-1) * scale
    return Control(UNTRAINED, untrained_adapter(adapter, None), directions, rows, rows, scale)


@plain_defaults()
def random_directions(vectors: Float[Tensor, "n width"], sites: int = 1, seed: int = 0) -> Float[Tensor, "n width"]:
    """Draw random directions, each with the norm of its vector at each site.

    Args:
        vectors: centred.
        sites: how many sites each vector has side by side.
        seed: of the directions.
    """
    by_site = vectors.unflatten(-1, (sites, -1))
    drawn = torch.randn(by_site.shape, generator=torch.Generator().manual_seed(seed)).to(by_site)
    return (drawn / drawn.norm(dim=-1, keepdim=True) * by_site.norm(dim=-1, keepdim=True)).flatten(-2)


def greedy_descriptions(model: Any, adapter: Adapter, vectors: Tensor) -> list[str]:
    """Describe every vector greedily.

    Args:
        model: the hooked model, or another engine, as of `self_explain`.
        adapter: with its contract.
        vectors: centred, [n, width].

    Returns:
        one description per vector.

    Raises:
        InterpToolkitError: an adapter that has not been trained, or whose file names no soft prompt.
    """
    engine, soft_prompt = as_engine(model), adapter.require_contract().require_soft_prompt()
    require_same_model(engine, adapter)
    return [texts[0].text for texts in engine.generate(soft_prompt, _soft_tokens(engine, adapter, vectors))]


def describe_controls(controls: Sequence[Control], describe: Callable[[Adapter, Tensor], list[str]]) -> list[list[str]]:
    """Describe the vectors of several controls; one description per row of each control.

    Vectors of one adapter are described together, and once where controls differ in order or labels only; the null
    vector is described alone.

    Args:
        controls: of the same rows.
        describe: from an adapter and vectors to one description per vector, as `greedy_descriptions` is for a model.
    """
    groups: dict[tuple[str, bool], dict[int, Control]] = {}
    for control in controls:
        groups.setdefault(_group(control), {}).setdefault(id(control.vectors), control)
    described: dict[tuple[tuple[str, bool], int], list[str]] = {}
    for group, members in groups.items():
        adapter = next(iter(members.values())).adapter
        texts = iter(describe(adapter, torch.cat([member.vectors for member in members.values()])))
        described |= {(group, key): [next(texts) for _ in member.vectors] for key, member in members.items()}
    return [[described[_group(one), id(one.vectors)][i] for i in one.vector_index] for one in controls]


def _group(control: Control) -> tuple[str, bool]:
    return control.adapter.digest, control.is_null


@torch.no_grad()
def _soft_tokens(engine: Engine, adapter: Adapter, vectors: Tensor) -> Tensor:
    return adapter.to(engine.device)(vectors.to(engine.device))


def _tokenizer(engine: Engine) -> Any:
    if (tokenizer := getattr(engine, "tokenizer", None)) is None:
        raise InterpToolkitError(
            f"expected an engine with an attribute tokenizer, by which labels become targets, and "
            f"{type(engine).__name__} has none; set it to the model's tokenizer"
        )
    return tokenizer
