"""Adapters that come with the package, for the embedded model."""

from __future__ import annotations

from pathlib import Path

from interp_toolkit.adapters import Adapter
from interp_toolkit.contract import ModelFacts
from interp_toolkit.errors import InterpToolkitError

_FOLDER = Path(__file__).parent
# The first that fits a model is its default.
NAMES = ("smollm2_rank64", "smollm2_scalar_affine")


def find_adapter(name: str) -> Adapter:
    """A shipped adapter by its name, else what `Adapter.load` finds under it.

    Raises:
        FileFormatError: nothing loadable has that name.
    """
    return Adapter.load(_FOLDER / name if name in NAMES else name)


def default_adapter(facts: ModelFacts) -> Adapter:
    """The adapter that is used for a model when none is named.

    Raises:
        InterpToolkitError: none is shipped for this model.
    """
    for name in NAMES:
        adapter = Adapter.load(_FOLDER / name)
        assert adapter.contract is not None
        if adapter.contract.fingerprint == facts.fingerprint:
            return adapter
    raise InterpToolkitError(
        f"no adapter is shipped for {facts.model_id}; pass adapter=... (a path, a hub id or an Adapter), or train one "
        f"with interp_toolkit.train_adapter"
    )
