"""Where vector-label pairs come from."""

from interp_toolkit.vectors.topic_lists import Topics, read_titles, read_topics, topics_from_dataset
from interp_toolkit.vectors.topics import topic_pairs, topic_vectors, topic_vectors_by_site

__all__ = [
    "Topics",
    "read_titles",
    "read_topics",
    "topic_pairs",
    "topic_vectors",
    "topic_vectors_by_site",
    "topics_from_dataset",
]
