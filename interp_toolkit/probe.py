"""What an adapter's model gives for a few texts: by it a model that runs elsewhere is known to be the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp_toolkit.errors import FileFormatError
from interp_toolkit.settings import settings_from


@dataclass(frozen=True)
class Probe:
    """Log-probabilities of a few texts behind an adapter's soft prompt.

    Attributes:
        texts: ids of the tokens of each text.
        log_probs: of all these tokens one after another, in nats; first behind the null vector's soft token, then
            behind that of the vector that `interp_toolkit.runtime.probe_soft_tokens` makes.
        dtype: of the model that gave them, such as ``"float32"``.
    """

    texts: tuple[tuple[int, ...], ...]
    log_probs: tuple[float, ...]
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return dict(
            texts=[list(text) for text in self.texts],
            log_probs=[round(value, 6) for value in self.log_probs],
            dtype=self.dtype,
        )


def parse_probe(data: Any) -> Probe:
    """The inverse of `Probe.to_dict`.

    Raises:
        FileFormatError: it is none.
    """
    try:
        values = dict(
            texts=tuple(tuple(map(int, text)) for text in data["texts"]),
            log_probs=tuple(map(float, data["log_probs"])),
        )
    except (TypeError, KeyError, ValueError) as error:
        raise FileFormatError(f"expected a probe in the contract, got {data!r:.80}; save the adapter again") from error
    probe: Probe = settings_from(Probe, {**(data if isinstance(data, Mapping) else {}), **values}, "the probe")
    tokens = sum(map(len, probe.texts))
    if not tokens or len(probe.log_probs) != 2 * tokens or not all(map(math.isfinite, probe.log_probs)):
        raise FileFormatError(
            f"expected two finite log-probabilities for each of the probe's {tokens} tokens, got "
            f"{len(probe.log_probs)}; the file is damaged, save the adapter again"
        )
    return probe
