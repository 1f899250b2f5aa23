"""Names of the evaluations, apart from what runs them, so that the command line knows them at once."""

EVALUATIONS = (
    "bias",
    "bridges",
    "controls",
    "mixtures",
    "privileged",
    "prompted_baseline",
    "reconstruction",
    "selective_prediction",
)
"""Evaluations by name, each the module of this package with an ``EVALUATION``."""

OLD_NAMES = {"abstention": "selective_prediction", "knowledge": "prompted_baseline", "round_trip": "reconstruction"}
"""Names of version 0.1, and what they are called now."""
