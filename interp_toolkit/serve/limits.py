"""How much a server takes from one client, and from all together."""

from __future__ import annotations

from dataclasses import dataclass

# Of one text and of one request, whatever an operator allows: a body is parsed before it is measured.
MOST_TEXTS = 64
MOST_CHARACTERS = 100_000
MOST_SAMPLES = 16
MOST_NEW_TOKENS = 256
MOST_LENS_TOKENS = 20


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; past them a request is refused with a sentence that names the bound.

    Attributes:
        body_bytes: of one request.
        client_seconds: until a body has come whole, and until a client has taken what was written to it.
        text_tokens: of the texts of one request together, the chat template's tokens included.
        cells: vectors that one request may have described, each token at each site being one.
        waiting_cells: vectors that may wait for the model, of all requests together.
        waiting_requests: requests that may wait for the model.
        batch_cells: vectors described in one batch. More give more vectors per second, fewer let a small request
            through sooner.
    """

    body_bytes: int = 8 * 2**20
    client_seconds: float = 30.0
    text_tokens: int = 2048
    cells: int = 8192
    waiting_cells: int = 32_768
    waiting_requests: int = 64
    batch_cells: int = 32
