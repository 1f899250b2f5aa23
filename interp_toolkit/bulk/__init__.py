"""Bulk work: files larger than memory, in parts that several processes share and that survive interruptions."""

from interp_toolkit.bulk.describe import describe_file, read_descriptions
from interp_toolkit.bulk.exports import label_graph, neuronpedia_rows, usable_labels, with_labels, write_neuronpedia
from interp_toolkit.bulk.on_ray import run_on_ray
from interp_toolkit.bulk.prompts import explain_file, read_prompts
from interp_toolkit.bulk.reading import load_activations, read_file
from interp_toolkit.bulk.sae_features import best_descriptions, describe_sae, read_feature_descriptions
from interp_toolkit.bulk.vector_files import VectorFile, open_vectors

__all__ = [
    "VectorFile",
    "best_descriptions",
    "describe_file",
    "describe_sae",
    "explain_file",
    "label_graph",
    "load_activations",
    "neuronpedia_rows",
    "open_vectors",
    "read_descriptions",
    "read_feature_descriptions",
    "read_file",
    "read_prompts",
    "run_on_ray",
    "usable_labels",
    "with_labels",
    "write_neuronpedia",
]
