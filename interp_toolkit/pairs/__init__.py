"""Vector-label pairs: what adapters are trained on."""

from interp_toolkit.pairs.imports import pairs_from_frame, pairs_from_json
from interp_toolkit.pairs.pairs import VectorLabelPairs
from interp_toolkit.pairs.topic_lists import Topics, read_titles, read_topics, topics_from_dataset
from interp_toolkit.pairs.topics import topic_pairs, topic_vectors, topic_vectors_by_site

__all__ = [
    "Topics",
    "VectorLabelPairs",
    "pairs_from_frame",
    "pairs_from_json",
    "read_titles",
    "read_topics",
    "topic_pairs",
    "topic_vectors",
    "topic_vectors_by_site",
    "topics_from_dataset",
]
