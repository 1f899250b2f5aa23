"""The explorer's page and files, which `interp_toolkit.serve` sends to a browser."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

_FOLDER = Path(__file__).with_name("assets")


@cache
def _asset(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


ASSETS: dict[str, tuple[str, Callable[[], bytes]]] = {
    name: (kind, partial(_asset, name))
    for name, kind in {
        "page.css": "text/css; charset=utf-8",
        "explorer.css": "text/css; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
        "elements.js": "text/javascript; charset=utf-8",
        "explorer.js": "text/javascript; charset=utf-8",
        "endpoints.js": "text/javascript; charset=utf-8",
    }.items()
}
"""The files of the page, with their media types; no other can be asked for."""


def explorer_page() -> bytes:
    """The page itself, in which everything else is named by its address on the same server."""
    return _asset("explorer.html")


def endpoints_page() -> bytes:
    """The page that shows the server's OpenAPI document."""
    return _asset("endpoints.html")
