"""Places in a model where vectors are read and soft tokens written, as values."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

import numpy as np

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError

_PATTERN = re.compile(r"blocks\.(\d+)\.((?:\w+\.)*hook_\w+)")
_PLUS = " + "
# The hook points directly in a block that have the stream's width, in the order in which a block computes them.
_HOOKS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
# The bridge's own names for some of them.
_SYNONYMS = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
}


@total_ordering
@dataclass(frozen=True)
class Site:
    """One place in a model: a hook point whose vectors have the width of the residual stream.

    That is the stream itself, before, in the middle of or after a block; what attention or the MLP add to it
    (``hook_attn_out``, ``hook_mlp_out``: after a norm of their own where a family has one, before a factor); or any
    other hook point of a block that is of this width, such as ``ln1.hook_normalized``. Sites are ordered by depth,
    and print as TransformerLens hook names.

    Attributes:
        layer: index of the block, from 0; -1 for the embedding.
        hook: name of the hook point within the block; ``"hook_embed"`` for the embedding.

    Example:
        >>> site = Site.parse("blocks.24.hook_resid_post")
        >>> site.layer, str(site), Site.embedding() < site
        (24, 'blocks.24.hook_resid_post', True)
        >>> Site.parse("blocks.3.hook_attn_out") < Site.after(3)
        True
    """

    layer: int
    hook: str

    def __post_init__(self) -> None:
        if not isinstance(self.hook, str):
            raise InterpToolkitError(
                f"expected the name of a hook point such as 'hook_resid_post', got {self.hook!r}; "
                f"Site.parse('blocks.{self.layer}.hook_resid_post') makes a site of its whole name"
            )

    @classmethod
    def embedding(cls) -> Site:
        """The token embeddings (``hook_embed``), after Gemma's scaling and before any positions."""
        return cls(-1, "hook_embed")

    @classmethod
    def after(cls, layer: int) -> Site:
        """The residual stream after block ``layer`` (``blocks.{layer}.hook_resid_post``)."""
        return cls.parse(f"blocks.{layer}.hook_resid_post")

    @classmethod
    def parse(cls, value: SiteLike) -> Site:
        """A site from its hook name; a plain layer number means the stream after that block.

        Whether a model has the hook point, and of which width, is known when it is used with the model.

        Raises:
            InterpToolkitError: the text names no hook point that can be a site.
        """
        if isinstance(value, Site):
            return value
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0:
            return cls(operator.index(value), "hook_resid_post")
        if value == "hook_embed":
            return cls.embedding()
        match = _PATTERN.fullmatch(value) if isinstance(value, str) else None
        hook = _SYNONYMS.get(match[2], match[2]) if match else ""
        if match is None or ("." not in hook and hook not in _HOOKS):
            raise InterpToolkitError(
                f"expected a site such as 'blocks.12.hook_resid_post', 'blocks.0.hook_resid_pre', "
                f"'blocks.3.hook_attn_out' or 'hook_embed', or a layer number from 0, got {value!r}"
            )
        return cls(int(match[1]), hook)

    @property
    def sites(self) -> tuple[Site, ...]:
        """This site alone, as a `SiteStack` gives several."""
        return (self,)

    @property
    def is_embedding(self) -> bool:
        """Whether this is the embedding, below every block."""
        return self.layer < 0

    @property
    def in_stream(self) -> bool:
        """Whether this is the residual stream itself, which every model has."""
        return self.is_embedding or self.hook.startswith("hook_resid")

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

    def __lt__(self, other: object) -> bool:
        return self._depth < other._depth if isinstance(other, Site) else NotImplemented

    @property
    def _depth(self) -> tuple[int, int, str]:
        # Where in its block a hook point of another name comes is not known; it is listed before the end.
        return (self.layer, _HOOKS.index(self.hook if self.hook in _HOOKS else "hook_mlp_out"), self.hook)

    def __str__(self) -> str:
        return self.hook if self.is_embedding else f"blocks.{self.layer}.{self.hook}"


SiteLike = Site | str | int | np.integer


@dataclass(frozen=True)
class SiteStack:
    """Several sites that are read at the same token, their vectors side by side as one.

    Different layers hold different things of one token, and together they hold more than any of them. A list of sites
    is a grid, in which each is read on its own.

    Attributes:
        sites: at least two, none twice, in the order in which their vectors stand; hook names and layer numbers are
            taken too.

    Raises:
        InterpToolkitError: fewer, one twice, or a name of no site.

    Example:
        >>> stack = SiteStack([4, 10])
        >>> str(stack), len(stack.sites)
        ('blocks.4.hook_resid_post + blocks.10.hook_resid_post', 2)
    """

    sites: tuple[Site, ...]

    def __init__(self, sites: Sequence[SiteLike] | np.ndarray) -> None:
        object.__setattr__(self, "sites", tuple(map(Site.parse, sites)))
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
    """A `Site`, or a `SiteStack` from its name, with pluses between its sites.

    A list of several sites is taken as their stack with a warning, since it means a grid elsewhere.

    Raises:
        InterpToolkitError: no site, the same twice, or a text that names no site.
    """
    if isinstance(value, SiteStack):
        return value
    if isinstance(value, str) and "+" in value:
        return SiteStack([part.strip() for part in value.split("+")])
    sites = parse_sites(value)
    if len(sites) == 1:
        return sites[0]
    stack = SiteStack(sites)
    warn_renamed(f"a list for the stack {stack}", f"SiteStack({[*map(str, sites)]})", stacklevel=4)
    return stack


def parse_sites(value: PlaceLike) -> list[Site]:
    """The sites of one or several, in the order given, those of a stack apart.

    Raises:
        InterpToolkitError: what names no site.
    """
    if isinstance(value, SiteStack):
        return list(value.sites)
    several: Any = np.atleast_1d(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, (Site, str)) or not isinstance(value, Iterable):
        several = [value]
    return [Site.parse(site) for site in several]
