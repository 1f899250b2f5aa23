"""The one way in which a soft prompt goes through the frozen model: `score` and `generate`, and what they make."""

from interp_toolkit.runtime.answers import plain_answers, sampled_answers
from interp_toolkit.runtime.evidence import evidence
from interp_toolkit.runtime.generate import Generation, generate
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.runtime.score import Scores, score

__all__ = [
    "Generation",
    "PromptRun",
    "Scores",
    "evidence",
    "generate",
    "plain_answers",
    "sampled_answers",
    "score",
]
