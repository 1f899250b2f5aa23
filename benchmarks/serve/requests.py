"""Requests on passages that no adapter was trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import PASSAGES
from interp_toolkit.sae.passages import read_passages

SEED = 0


@dataclass(frozen=True)
class Request:
    """A text, and which of its tokens are described.

    Attributes:
        text: of a passage.
        positions: ``"last"`` or ``"content"``.
    """

    text: str
    positions: str

    @property
    def body(self) -> dict[str, Any]:
        """The body of ``/v1/explain``."""
        return dict(texts=[self.text], positions=self.positions, chat=True)


def read_texts(data: Path) -> list[str]:
    """The passages that are kept for measurements.

    Args:
        data: folder of the data.
    """
    return read_passages(data / PASSAGES, "eval")["text"].tolist()


def make_requests(data: Path, kind: str, count: int) -> list[Request]:
    """Requests in a fixed order.

    Args:
        data: folder of the data.
        kind: ``"one token"``, or ``"mixed"``: 70% one token, 20% a beginning of 12 words, 10% one of 60.
        count: of requests.
    """
    texts = read_texts(data)
    drawn = random.Random(SEED)
    requests = []
    for i in range(count):
        words = texts[i % len(texts)].split()
        share = drawn.random() if kind == "mixed" else 0.0
        length, positions = (8, "last") if share < 0.7 else (12, "content") if share < 0.9 else (60, "content")
        requests.append(Request(" ".join(words[:length]), positions))
    return requests
