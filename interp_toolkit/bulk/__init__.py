"""Bulk work: files larger than memory, in parts that several processes share and that survive interruptions."""

from interp_toolkit.bulk.describe import describe_file, read_descriptions
from interp_toolkit.bulk.vector_files import VectorFile, open_vectors

__all__ = ["VectorFile", "describe_file", "open_vectors", "read_descriptions"]
