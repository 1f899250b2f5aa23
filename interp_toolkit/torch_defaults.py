"""Torch's global settings (default dtype, default device, inference mode), held still while the library works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_lock = threading.Lock()
_depth = 0
_users_dtype = torch.float32


@contextmanager
def plain_defaults() -> Iterator[None]:
    """For the length of a call, new tensors are float32, on the CPU and not of inference mode, unless code says else.

    What the user has set is set again afterwards. Numbers are the same whatever a user's defaults are.

    Example:
        >>> @plain_defaults()
        ... def read_vectors(): ...
    """
    with ExitStack() as stack:
        stack.enter_context(_float32())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            # Tensors of inference mode cannot be trained on later.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


@contextmanager
def _float32() -> Iterator[None]:
    # The default dtype is of the process, not of the thread: the first call in sets it, the last one out resets it.
    global _depth, _users_dtype
    with _lock:
        if _depth == 0:
            _users_dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                torch.set_default_dtype(_users_dtype)
