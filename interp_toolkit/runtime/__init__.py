"""How a soft prompt runs through the frozen model: `score`, `generate`, and what else is made of them."""

from typing import Any

from interp_toolkit.deprecation import moved_names
from interp_toolkit.runtime.answers import plain_answers, sampled_answers
from interp_toolkit.runtime.evidence import evidence
from interp_toolkit.runtime.generate import Generation, generate
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.probe import make_probe, probe_soft_tokens
from interp_toolkit.runtime.sampling import Sampling
from interp_toolkit.runtime.score import Scores, score
from interp_toolkit.runtime.steering import steered_answers

__all__ = [
    "Generation",
    "PromptRun",
    "Sampling",
    "Scores",
    "evidence",
    "generate",
    "make_probe",
    "plain_answers",
    "probe_soft_tokens",
    "sampled_answers",
    "score",
    "steered_answers",
]

_moved = moved_names(
    __name__,
    {name: f"interp_toolkit.engines:{name}" for name in ("Capability", "Engine", "LocalEngine", "as_engine")},
)


def __getattr__(name: str) -> Any:
    return _moved(name)
