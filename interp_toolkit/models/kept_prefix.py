"""Tokens that rows begin with, run once for as long as the model stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp_toolkit.models.backend import Backend
from interp_toolkit.models.kv import KV


class KeptPrefix:
    """Tokens that rows of many passes begin with, run at the first use.

    Their keys and values are kept as long as the model's weights stay and no hooks of the user's are on it.

    Args:
        backend: of the model.
        ids: of the tokens, at least one.
    """

    def __init__(self, backend: Backend, ids: Sequence[int]) -> None:
        self._backend, self._ids = backend, list(ids)
        self._kept: tuple[tuple[str | None, bytes] | None, KV | None] = (None, None)

    @property
    def past(self) -> KV:
        """The tokens, one row that all rows share; see `Backend.prefix`."""
        state = self._backend.look()
        kept_state, past = self._kept
        if past is None or state != kept_state:
            past = self._backend.prefix(torch.tensor([self._ids], device=self._backend.device))
            self._kept = state, past
        return past
