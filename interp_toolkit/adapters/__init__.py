"""Adapters: the maps from vectors to soft tokens, and their files."""

from interp_toolkit.adapters import family as family
from interp_toolkit.adapters.adapter import Adapter
from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.mean_vectors import read_mean_vectors, write_mean_vectors
from interp_toolkit.adapters.truncation import set_low_rank, truncated
from interp_toolkit.adapters.untrained import untrained_adapter

__all__ = [
    "Adapter",
    "AdapterConfig",
    "read_mean_vectors",
    "set_low_rank",
    "truncated",
    "untrained_adapter",
    "write_mean_vectors",
]
