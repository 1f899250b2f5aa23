"""Confidence: the probability that a description is right, from what is known of it without labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.sites import Place, parse_place

TokenKind = Literal["last", "text"]
"""Which token a vector is from: the last of a chat prompt, behind the template, or any token of a text itself.

Of the first a description is right that names what the turn is about, of the second one that names the token's word.
"""
FEATURES = ("evidence", "log_prob", "probability", "tokens")
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
                f"expected 'last' or 'text' for the tokens of a confidence, got {self.token!r:.80}"
            )

    def probability(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probability that each description is right, [n]; 0 for an empty one.

        Args:
            features: see `description_features`.
        """
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
    log_probs: Sequence[float] | np.ndarray,
    evidences: Sequence[float] | np.ndarray,
    tokens: Sequence[int] | np.ndarray,
    samples: Sequence[Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    """What is known of descriptions without labels, as a `ConfidenceModel` takes it.

    Args:
        log_probs: mean log-probability per token of each description, in nats.
        evidences: in nats per token.
        tokens: length of each, in tokens.
        samples: where descriptions are samples of vectors, those of each vector; they stand in this order above.

    Returns:
        an array [descriptions] for each name in `FEATURES`, and ``agreement`` for samples: the mean share of words that
        a sample has in common with each other sample of its vector (Jaccard), from 0 to 1.

    Example:
        >>> description_features([-0.2], [3.1], [4])["probability"]
        array([0.81873075])
    """
    log_prob = np.asarray(log_probs, dtype=float)
    features = dict(
        evidence=np.asarray(evidences, dtype=float),
        log_prob=log_prob,
        probability=np.exp(log_prob),
        tokens=np.asarray(tokens, dtype=float),
    )
    if samples is not None:
        features[AGREEMENT] = np.array([value for texts in samples for value in _agreement(texts)], dtype=float)
    return features


def _agreement(texts: Sequence[str]) -> list[float]:
    words = [frozenset(_WORD.findall(text.lower())) for text in texts]
    return [
        float(np.mean([_overlap(one, other) for j, other in enumerate(words) if j != i] or [0.0]))
        for i, one in enumerate(words)
    ]


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0
