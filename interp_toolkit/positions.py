"""Which tokens of a prompt are read: names, numbers, slices and masks, as positions from the first token."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError

Positions = (
    Literal["all", "content", "last"] | int | np.integer | slice | Sequence[int] | Sequence[bool] | np.ndarray | Tensor
)
"""``"all"``, ``"content"`` (a text's own tokens, not the template's), ``"last"``, one number or several (negative from
the end), a slice, or a mask with a value per token."""


def parse_positions(positions: Positions) -> Literal["all", "content", "last"] | slice | list[int] | list[bool]:
    """Positions in one of four forms, whatever they were given as.

    Raises:
        InterpToolkitError: no position, or what is none.
    """
    if isinstance(positions, slice):
        return positions
    if isinstance(positions, str) and positions in ("all", "content", "last"):
        return positions
    listed: Any = [positions]
    if isinstance(positions, Iterable) and not isinstance(positions, (str, Mapping)) and getattr(positions, "ndim", 1):
        listed = list(positions.tolist() if isinstance(positions, (np.ndarray, Tensor)) else positions)
    if not listed:
        raise InterpToolkitError("expected at least one position, got none; positions='last' reads the last token")
    if isinstance(positions, Iterable) and all(isinstance(value, (bool, np.bool_)) for value in listed):
        return [bool(value) for value in listed]
    try:
        if any(isinstance(value, (bool, np.bool_)) for value in listed):
            raise TypeError
        return [operator.index(value) for value in listed]
    except TypeError:
        raise InterpToolkitError(
            f"expected positions 'all', 'content', 'last' or a list of numbers (or one number, a slice, or a mask with "
            f"True or False for each token), got {positions!r:.80}"
        ) from None


def token_positions(positions: Positions, length: int, name: str) -> list[int]:
    """Positions in a prompt of ``length`` tokens, counted from its first.

    Args:
        positions: see `Positions`.
        length: of the prompt, in tokens.
        name: of the prompt, for errors, such as ``prompt 0``.

    Raises:
        InterpToolkitError: ``"content"``, a position that the prompt does not have, a slice or mask that chooses none
            of its tokens, or a mask of another length.

    Example:
        >>> token_positions([-1, 0], 12, "prompt 0")
        [11, 0]
    """
    chosen = parse_positions(positions)
    if chosen == "content":
        raise InterpToolkitError(f"expected 'all', 'last' or numbers for {name}, which is not known as a text")
    if isinstance(chosen, str):
        return list(range(length)) if chosen == "all" else [length - 1]
    if isinstance(chosen, slice):
        try:
            chosen_positions = list(range(length))[chosen]
        except (TypeError, ValueError) as error:
            raise InterpToolkitError(f"expected a slice of whole numbers for positions, got {chosen}") from error
    elif isinstance(chosen[0], bool):
        if len(chosen) != length:
            raise InterpToolkitError(
                f"expected a mask with a value for each of the {length} tokens of {name} (chat template included), "
                f"got {len(chosen)} values"
            )
        chosen_positions = [i for i, value in enumerate(chosen) if value]
    else:
        for position in chosen:
            if not -length <= position < length:
                raise InterpToolkitError(
                    f"position {position} does not exist in {name}, which has {length} tokens "
                    f"(chat template included); choose from {-length} to {length - 1}"
                )
        chosen_positions = [position % length for position in chosen]
    if not chosen_positions:
        raise InterpToolkitError(f"the positions choose none of the {length} tokens of {name}; choose at least one")
    return chosen_positions
