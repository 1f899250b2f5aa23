"""Where vector-label pairs come from."""

from interp_toolkit.vectors.sae import SAEFacts, SAEVectors, check_sae, sae_digest, sae_facts, sae_vectors
from interp_toolkit.vectors.sae_files import load_sae
from interp_toolkit.vectors.sae_labels import SAELabels, read_labels, sae_pairs
from interp_toolkit.vectors.topic_lists import Topics, read_titles, read_topics, topics_from_dataset
from interp_toolkit.vectors.topics import topic_pairs, topic_vectors, topic_vectors_by_site

__all__ = [
    "SAEFacts",
    "SAELabels",
    "SAEVectors",
    "Topics",
    "check_sae",
    "load_sae",
    "read_labels",
    "read_titles",
    "read_topics",
    "sae_digest",
    "sae_facts",
    "sae_pairs",
    "sae_vectors",
    "topic_pairs",
    "topic_vectors",
    "topic_vectors_by_site",
    "topics_from_dataset",
]
