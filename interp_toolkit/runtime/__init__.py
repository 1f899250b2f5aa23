"""How a soft prompt runs through the frozen model: `score`, `generate`, and engines that offer both."""

from interp_toolkit.runtime.answers import plain_answers, sampled_answers
from interp_toolkit.runtime.engine import Capability, Engine
from interp_toolkit.runtime.evidence import evidence
from interp_toolkit.runtime.generate import Generation, generate
from interp_toolkit.runtime.local import LocalEngine, as_engine
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.sampling import Sampling
from interp_toolkit.runtime.score import Scores, score

__all__ = [
    "Capability",
    "Engine",
    "Generation",
    "LocalEngine",
    "PromptRun",
    "Sampling",
    "Scores",
    "as_engine",
    "evidence",
    "generate",
    "plain_answers",
    "sampled_answers",
    "score",
]
