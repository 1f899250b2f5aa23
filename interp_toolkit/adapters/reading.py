"""Reading an adapter, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from interp_toolkit.adapters import files, hub
from interp_toolkit.adapters.stored import StoredAdapter


def read_adapter(
    path_or_repo: str | Path,
    filename: str | None = None,
    revision: str | None = None,
    *,
    as_tensor: Callable[[np.ndarray], Any] = np.asarray,
) -> StoredAdapter:
    """Read and check an adapter as its files hold it, without torch where these are a folder of our own format.

    Args:
        path_or_repo: as in `Adapter.from_pretrained`.
        filename: as in `Adapter.from_pretrained`.
        revision: as in `Adapter.from_pretrained`.
        as_tensor: see `interp_toolkit.adapters.files.read`.

    Raises:
        FileFormatError: as `Adapter.from_pretrained`.
    """
    path = hub.locate(path_or_repo, filename, revision)
    folder = files.folder_of(path)
    if folder is not None:
        stored = files.read(folder, as_tensor)
        stored.check_parameters(path)
        files.check_digests(folder)
        return stored
    from interp_toolkit.adapters import published  # only here: it needs torch

    stored = published.read(path)
    stored.check_parameters(path)
    return stored
