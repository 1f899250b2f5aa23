"""Deprecated: topics are in `interp_toolkit.pairs`, SAEs in `interp_toolkit.sae`."""

from interp_toolkit.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "SAEFacts": "interp_toolkit.sae:SAEFacts",
        "SAELabels": "interp_toolkit.sae:SAELabels",
        "SAEVectors": "interp_toolkit.sae:SAEVectors",
        "Topics": "interp_toolkit.pairs:Topics",
        "check_sae": "interp_toolkit.sae:check_sae",
        "load_sae": "interp_toolkit.sae:load",
        "read_labels": "interp_toolkit.sae:labels",
        "read_titles": "interp_toolkit.pairs:read_titles",
        "read_topics": "interp_toolkit.pairs:read_topics",
        "sae_digest": "interp_toolkit.sae:sae_digest",
        "sae_facts": "interp_toolkit.sae:sae_facts",
        "sae_pairs": "interp_toolkit.sae:pairs",
        "sae_vectors": "interp_toolkit.sae:sae_vectors",
        "topic_pairs": "interp_toolkit.pairs:topic_pairs",
        "topic_vectors": "interp_toolkit.pairs:topic_vectors",
        "topic_vectors_by_site": "interp_toolkit.pairs:topic_vectors_by_site",
        "topics_from_dataset": "interp_toolkit.pairs:topics_from_dataset",
    },
)
