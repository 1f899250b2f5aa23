"""Things that belong to a model in memory, held on the model itself."""

from __future__ import annotations

from typing import Any


class Kept:
    """Holds a thing in the ``__dict__`` of a model, so that both are freed together; a copy of the model has its own.

    nn.Module does not see it there, and takes it for no part of the model.
    """

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()
