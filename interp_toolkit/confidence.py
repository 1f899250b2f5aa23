"""Confidence: the probability that a description is right, from what is known of it without labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.sites import Place, parse_place

TokenKind = Literal["last", "text", "direction"]
"""Which token a vector is from: the last of a chat prompt, behind the template, any token of a text itself, or none.

Of the first a description is right that names what the turn is about, of the second one that names the token's word, of
a direction, such as a feature of an SAE, one that names a word at which it is most active.
"""
READ_BACK = ("cosine_title", "cosine_last", "soft_cosine_title", "soft_cosine_last")
"""What `interp_toolkit.read_back` measures of a description."""
FEATURES = ("evidence", "log_prob", "probability", "tokens", "words", *READ_BACK)
"""What a `ConfidenceModel` weighs of a description that stands alone; of several samples also ``agreement``."""
AGREEMENT = "agreement"

_WORD = re.compile(r"\w+")
_KEYS = frozenset(["site", "token", "several", "intercept", "weights", "n", "seed"])


@dataclass(frozen=True)
class ConfidenceModel:
    """A logistic model of the probability that a description is right (Platt 1999), for one kind of vectors.

    Attributes:
        site: where the vectors are read.
        token: which tokens they are of.
        several: whether it is for several samples of each vector, at the paper's temperature, or for one greedy
            description.
        intercept: of the linear part.
        weights: of the linear part, by the name of the feature.
        n: descriptions that it was fitted on.
        seed: of the vectors and samples.
    """

    site: Place
    token: TokenKind
    several: bool
    intercept: float
    weights: Mapping[str, float]
    n: int
    seed: int

    def __post_init__(self) -> None:
        expected = (*FEATURES, AGREEMENT) if self.several else FEATURES
        if set(self.weights) != set(expected) or not all(map(np.isfinite, [self.intercept, *self.weights.values()])):
            raise InterpToolkitError(
                f"expected a finite weight for each of {', '.join(expected)} in a model of confidence, got "
                f"{dict(self.weights)!r:.200} and the intercept {self.intercept!r:.40}"
            )
        if self.token not in get_args(TokenKind):
            raise InterpToolkitError(
                f"expected {', '.join(get_args(TokenKind))} for the tokens of a confidence, got {self.token!r:.80}"
            )

    def probability(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probability that each description is right, [n]; 0 for an empty one.

        Args:
            features: see `description_features`.
        """
        from scipy.special import expit  # only here: it is slow to import

        linear = self.intercept + sum(weight * features[name] for name, weight in self.weights.items())
        return np.where(np.isnan(linear), 0.0, expit(linear))

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return dict(
            site=str(self.site),
            token=self.token,
            several=self.several,
            intercept=float(self.intercept),
            weights={name: float(weight) for name, weight in self.weights.items()},
            n=self.n,
            seed=self.seed,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConfidenceModel:
        """The inverse of `to_dict`.

        Raises:
            FileFormatError: a part is missing or unknown.
        """
        if set(data) != _KEYS:
            raise FileFormatError(
                f"expected {', '.join(sorted(_KEYS))} in a model of confidence, got "
                f"{', '.join(sorted(map(str, data)))}; the file is damaged, save the adapter again"
            )
        return cls(**{**data, "site": parse_place(data["site"]), "weights": dict(data["weights"])})


def description_features(
    samples: Sequence[Sequence[str]],
    log_probs: Sequence[float] | np.ndarray,
    evidences: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    read_back: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """What is known of descriptions without labels, as a `ConfidenceModel` takes it.

    Args:
        samples: the descriptions of each vector; one behind the other they stand in the order of all that follows.
        log_probs: mean log-probability per token of each description, in nats.
        evidences: in nats per token.
        tokens: length of each, in tokens.
        read_back: cosines of each, see `interp_toolkit.read_back.read_back`.

    Returns:
        an array [descriptions] for each name in `FEATURES`, and ``agreement``: the mean `word_overlap` of a description
        with each other one of its vector; 0 for one alone.

    Example:
        >>> description_features([["Baseball"]], [-0.2], [3.1], [4], cosines)["probability"]
        array([0.81873075])
    """
    log_prob = np.asarray(log_probs, dtype=float)
    return {
        "evidence": np.asarray(evidences, dtype=float),
        "log_prob": log_prob,
        "probability": np.exp(log_prob),
        "tokens": np.asarray(tokens, dtype=float),
        "words": np.array([len(_WORD.findall(text)) for texts in samples for text in texts], dtype=float),
        **{name: np.asarray(read_back[name], dtype=float) for name in READ_BACK},
        AGREEMENT: np.array([value for texts in samples for value in _agreement(texts)], dtype=float),
    }


def word_overlap(one: str, other: str) -> float:
    """The share of words that both texts have, of those that either has (Jaccard); without regard to case.

    Example:
        >>> word_overlap("Names of rivers", "rivers and lakes")
        0.2
    """
    first, second = (set(_WORD.findall(text.casefold())) for text in (one, other))
    return len(first & second) / len(first | second) if first | second else 0.0


def _agreement(texts: Sequence[str]) -> list[float]:
    return [
        float(np.mean([word_overlap(text, other) for j, other in enumerate(texts) if j != i] or [0.0]))
        for i, text in enumerate(texts)
    ]
