"""Vector-label pairs: what adapters are trained on."""

from interp_toolkit.pairs.imports import pairs_from_frame, pairs_from_json
from interp_toolkit.pairs.pairs import VectorLabelPairs

__all__ = ["VectorLabelPairs", "pairs_from_frame", "pairs_from_json"]
