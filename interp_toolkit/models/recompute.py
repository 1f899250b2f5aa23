"""Gradient checkpointing: blocks whose insides are computed anew in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputing(blocks: Sequence[nn.Module], again: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """For the length of the block, each of ``blocks`` keeps its input alone for the backward pass.

    Args:
        blocks: of the model, in any order.
        again: makes what surrounded the forward pass (hooks, a shared prefix), for it is gone when blocks run anew.
    """

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            return checkpoint(
                forward,
                *arguments,
                use_reentrant=False,
                preserve_rng_state=False,  # a frozen model in evaluation mode draws no numbers
                context_fn=lambda: (nullcontext(), again()),
                **named,
            )

        return run

    try:
        for block in blocks:
            # Past the bridge's own __setattr__, which hands new attributes on to the module it wraps.
            block.__dict__["forward"] = wrapped(block.forward)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
