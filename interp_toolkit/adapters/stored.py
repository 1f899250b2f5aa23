"""An adapter as files hold it, which needs no torch to be read, checked and described."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.kinds import facts_of_kind
from interp_toolkit.contract import Contract
from interp_toolkit.errors import FileFormatError


@dataclass(frozen=True, eq=False)
class StoredAdapter:
    """An adapter as files hold it, whatever their format.

    Attributes:
        config: shape and start.
        parameters: by name, float32.
        contract: what it was trained with; its parts may be None where a published file does not say. Where it was
            read only to be described, arrays of numpy stand in it for tensors.
        metadata: everything else that the file says, as strings.
    """

    config: AdapterConfig
    parameters: Mapping[str, np.ndarray]
    contract: Contract | None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(values.size for values in self.parameters.values())

    @property
    def digest(self) -> str:
        """`Adapter.digest` of the adapter."""
        return adapter_digest(self.config, facts_of_kind(self.config.kind).settings, self.parameters.items())

    def check_parameters(self, path: Path) -> None:
        """Refuse parameters of other names or shapes than the kind has, and NaN and infinity.

        Raises:
            FileFormatError: the text names ``path``.
        """
        config, shapes = self.config, {name: values.shape for name, values in self.parameters.items()}
        expected = facts_of_kind(config.kind).parameter_shapes(config)
        if expected != shapes:
            raise FileFormatError(
                f"{path} does not hold an adapter of kind {config.kind!r} with d_model {config.d_model}: "
                f"expected tensors {expected}, got {shapes}"
            )
        if bad := [name for name, values in self.parameters.items() if not np.isfinite(values).all()]:
            raise FileFormatError(f"{path} holds NaN or infinity in {', '.join(bad)}; the file is damaged")


def adapter_digest(
    config: AdapterConfig, settings: Mapping[str, Any], parameters: Iterable[tuple[str, np.ndarray]]
) -> str:
    """16 hexadecimal digits that name an adapter's weights.

    Args:
        config: of the adapter.
        settings: the further settings that its kind declares, with their defaults.
        parameters: by name, in any order.
    """
    always = dict(kind=config.kind, d_model=config.d_model, rank=config.rank)
    # Settings at their defaults are left out, so that a setting added later renames no adapter.
    defaults = {field.name: field.default for field in fields(config)} | dict(settings) | always
    changed = {name: value for name, value in config.to_dict().items() if value != defaults[name]}
    hasher = hashlib.sha256(json.dumps([*always.values(), changed], sort_keys=True).encode())
    for name, values in sorted(parameters, key=lambda parameter: parameter[0]):
        hasher.update(name.encode() + values.tobytes())
    return hasher.hexdigest()[:16]
