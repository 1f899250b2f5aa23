"""Values that belong to a model in memory and are stored on the model itself."""

from __future__ import annotations

from typing import Any


class Attached:
    """A value in the ``__dict__`` of a model, so that both are freed together; a copy of the model starts without one.

    nn.Module does not count what stands there among the modules and parameters.
    """

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Attached:
        return Attached()

    def __reduce__(self) -> tuple[type[Attached], tuple[()]]:
        return Attached, ()
