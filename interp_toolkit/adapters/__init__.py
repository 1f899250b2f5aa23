"""Adapters: the maps from vectors to soft tokens, and their files."""

from typing import TYPE_CHECKING

from interp_toolkit.lazy import lazy_names

if TYPE_CHECKING:
    from interp_toolkit.adapters.config import AdapterConfig
    from interp_toolkit.adapters.family import Adapter  # with it all kinds of ours are defined
    from interp_toolkit.adapters.mean_vectors import read_mean_vectors, write_mean_vectors
    from interp_toolkit.adapters.spans import soft_tokens_of
    from interp_toolkit.adapters.truncation import set_low_rank, truncated
    from interp_toolkit.adapters.untrained import untrained_adapter

__all__ = [
    "Adapter",
    "AdapterConfig",
    "read_mean_vectors",
    "set_low_rank",
    "soft_tokens_of",
    "truncated",
    "untrained_adapter",
    "write_mean_vectors",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AdapterConfig": "config",
        "Adapter": "family",
        "read_mean_vectors": "mean_vectors",
        "write_mean_vectors": "mean_vectors",
        "soft_tokens_of": "spans",
        "set_low_rank": "truncation",
        "truncated": "truncation",
        "untrained_adapter": "untrained",
    },
)
