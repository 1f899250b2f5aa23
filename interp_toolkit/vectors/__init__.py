"""Where vector-label pairs come from."""

from interp_toolkit.vectors.topics import read_titles, topic_pairs, topic_vectors

__all__ = ["read_titles", "topic_pairs", "topic_vectors"]
