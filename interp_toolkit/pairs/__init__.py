"""Vector-label pairs: what adapters are trained on."""

from typing import Any

from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.pairs.context import context_pairs
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.ranges import with_common_mean, with_sites_alone
from interp_toolkit.pairs.reworded import reworded_topic_pairs
from interp_toolkit.pairs.topic_lists import Topics, read_titles, read_topics, topics_from_dataset
from interp_toolkit.pairs.topics import topic_pairs, topic_vectors, topic_vectors_by_site

__all__ = [
    "Topics",
    "VectorLabelPairs",
    "context_pairs",
    "pairs_from_frame",
    "pairs_from_json",
    "read_titles",
    "read_topics",
    "reworded_topic_pairs",
    "topic_pairs",
    "topic_vectors",
    "topic_vectors_by_site",
    "topics_from_dataset",
    "with_common_mean",
    "with_sites_alone",
]


def pairs_from_frame(*args: Any, **kwargs: Any) -> VectorLabelPairs:
    """Make pairs from a data frame, by the old name of `VectorLabelPairs.from_frame`."""
    warn_renamed("pairs_from_frame", "VectorLabelPairs.from_frame")
    return VectorLabelPairs.from_frame(*args, **kwargs)


def pairs_from_json(*args: Any, **kwargs: Any) -> VectorLabelPairs:
    """Read published pairs, by the old name of `VectorLabelPairs.from_json`."""
    warn_renamed("pairs_from_json", "VectorLabelPairs.from_json")
    return VectorLabelPairs.from_json(*args, **kwargs)
