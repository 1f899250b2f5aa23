"""Places in the residual stream, as values."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from interp_toolkit.errors import InterpToolkitError

_PATTERN = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|in|out)")
_PLUS = " + "
# The bridge's own names for the two ends of a block.
_SYNONYMS = {"in": "resid_pre", "out": "resid_post"}


@dataclass(frozen=True, order=True)
class Site:
    """One place in the residual stream: a layer and a stream.

    Sites are ordered by depth, and print as TransformerLens hook names.

    Attributes:
        layer: index of the block, from 0; -1 for the embedding.
        stream: 0 for ``resid_pre``, 1 for ``resid_mid``, 2 for ``resid_post``: the order in which a block has them.

    Example:
        >>> site = Site.parse("blocks.24.hook_resid_post")
        >>> site.layer, str(site), Site.embedding() < site
        (24, 'blocks.24.hook_resid_post', True)
    """

    layer: int
    stream: int

    STREAMS: ClassVar[tuple[str, ...]] = ("resid_pre", "resid_mid", "resid_post")

    @classmethod
    def embedding(cls) -> Site:
        """The token embeddings (``hook_embed``), after Gemma's scaling and before any positions."""
        return cls(-1, 0)

    @classmethod
    def after(cls, layer: int) -> Site:
        """The residual stream after block ``layer`` (``blocks.{layer}.hook_resid_post``)."""
        return cls.parse(f"blocks.{layer}.hook_resid_post")

    @classmethod
    def parse(cls, value: SiteLike) -> Site:
        """A site from its hook name; a plain layer number means the stream after that block.

        Raises:
            InterpToolkitError: the text names no place in the residual stream.
        """
        if isinstance(value, Site):
            return value
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0:
            return cls(operator.index(value), cls.STREAMS.index("resid_post"))
        if value == "hook_embed":
            return cls.embedding()
        match = _PATTERN.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise InterpToolkitError(
                f"expected a site such as 'blocks.12.hook_resid_post', 'blocks.0.hook_resid_pre' or 'hook_embed', "
                f"or a layer number from 0, got {value!r}"
            )
        stream = _SYNONYMS.get(match[2], match[2])
        return cls(int(match[1]), cls.STREAMS.index(stream))

    @property
    def sites(self) -> tuple[Site, ...]:
        """This site alone, as a `SiteStack` gives several."""
        return (self,)

    @property
    def is_embedding(self) -> bool:
        """Whether this is the embedding, below every block."""
        return self.layer < 0

    def require_in(self, n_layers: int) -> Site:
        """This site, where a model of ``n_layers`` blocks has it.

        Raises:
            InterpToolkitError: the model has no such layer.
        """
        if self.layer >= n_layers:
            raise InterpToolkitError(
                f"{self} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}; "
                f"choose one of these"
            )
        return self

    def __str__(self) -> str:
        return "hook_embed" if self.is_embedding else f"blocks.{self.layer}.hook_{self.STREAMS[self.stream]}"


SiteLike = Site | str | int | np.integer


@dataclass(frozen=True)
class SiteStack:
    """Several sites that are read at the same token, their vectors side by side as one.

    Different layers hold different things of one token, and together they hold more than any of them.

    Attributes:
        sites: at least two, none twice, in the order in which their vectors stand.

    Example:
        >>> stack = parse_place([4, 10])
        >>> str(stack), len(stack.sites)
        ('blocks.4.hook_resid_post + blocks.10.hook_resid_post', 2)
    """

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if len(self.sites) < 2 or len(set(self.sites)) < len(self.sites):
            raise InterpToolkitError(
                f"expected at least two sites and none twice, got {_PLUS.join(map(str, self.sites)) or 'none'}"
            )

    def require_in(self, n_layers: int) -> SiteStack:
        """These sites, where a model of ``n_layers`` blocks has all of them.

        Raises:
            InterpToolkitError: the model lacks one.
        """
        for site in self.sites:
            site.require_in(n_layers)
        return self

    def __str__(self) -> str:
        return _PLUS.join(map(str, self.sites))


Place = Site | SiteStack
"""Where a vector is read: at one site, or at several of the same token."""
PlaceLike = Place | SiteLike | Sequence[SiteLike] | np.ndarray


def parse_place(value: PlaceLike) -> Place:
    """A `Site`, or a `SiteStack` of a list or of names with pluses between.

    Raises:
        InterpToolkitError: no site, the same twice, or a text that names no place in the residual stream.
    """
    if isinstance(value, SiteStack):
        return value
    if isinstance(value, str):
        value = [part.strip() for part in value.split("+")]
    sites = parse_sites(value)
    return sites[0] if len(sites) == 1 else SiteStack(tuple(sites))


def parse_sites(value: PlaceLike) -> list[Site]:
    """The sites of one or several, in the order given, those of a stack apart.

    Raises:
        InterpToolkitError: what names no place in the residual stream.
    """
    if isinstance(value, SiteStack):
        return list(value.sites)
    several: Any = np.atleast_1d(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, (Site, str)) or not isinstance(value, Iterable):
        several = [value]
    return [Site.parse(site) for site in several]
