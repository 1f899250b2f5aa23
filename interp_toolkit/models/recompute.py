"""Gradient checkpointing: blocks whose insides are computed anew in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from interp_toolkit.models.state import replaced_forwards


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

    with replaced_forwards([(block, wrapped(block.forward)) for block in blocks]):
        yield
