"""Reading torch's own files without running anything in them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.errors import FileFormatError, first_line


def read_torch_file(path: Path, *, called: str, holds: str, instead: str) -> Any:
    """What a ``.pt`` file holds, on the CPU; mapped rather than read where its format allows.

    Args:
        path: a file that is there.
        called: what an error calls it, path included.
        holds: what it may hold.
        instead: what to ask its author for, where it holds anything else.

    Raises:
        FileFormatError: damaged, or holding objects that would have to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of old pickle protocols, which are refused or read anyway
            # Only the format that torch has written since 1.6, an archive, can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise FileFormatError(
            f"{path} holds pickled objects other than {holds}, which are never run; ask its author for {instead} "
            f"({first_line(error):.120})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise FileFormatError(f"{called} is damaged: {first_line(error):.160}") from error
