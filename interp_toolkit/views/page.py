"""Views, and the self-contained HTML page that shows them."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from interp_toolkit.files import whole_file
from interp_toolkit.tables import escaped
from interp_toolkit.views.libraries import library_script

# The page loads nothing from elsewhere, even if a text in it contains markup. The libraries need `unsafe-eval`.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, repr=False)
class View:
    """A piece of HTML with a title: shown by a notebook, written as a file by `save`, or part of a `report`.

    Attributes:
        title: what it shows.
        body: its HTML. Text from users or models must be escaped (`interp_toolkit.tables.escaped`).
        needs: names of the JavaScript libraries it needs, of `interp_toolkit.views.libraries`.
        height: height in a notebook, in pixels.

    Example:
        >>> view = token_view(grid.cells)
        >>> view.save("tokens.html")
    """

    title: str
    body: str
    needs: frozenset[str] = frozenset()
    height: int = 440

    def __str__(self) -> str:
        """Return the whole page with all it needs."""
        # The page runs a library only when a view that needs it scrolls into sight, so that the page opens at once.
        libraries = "\n".join(
            f'<script type="text/plain" data-library="{name}">{library_script(name)}</script>'
            for name in sorted(self.needs)
        )
        return (
            "<!doctype html>\n"
            f'<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{escaped(self.title)}</title>'
            f'<link rel="icon" href="data:,"><style>{_asset("page.css")}</style></head>\n'
            f"<body><main>{self.body}</main>\n"
            "<noscript><p>Tables and charts are drawn by JavaScript, which is turned off.</p></noscript>\n"
            f"{libraries}<script>{_asset('elements.js')}{_asset('page.js')}</script></body></html>\n"
        )

    def __repr__(self) -> str:
        return f"View: {self.title}; .save(path) writes it as one HTML file"

    def _repr_html_(self) -> str:
        # An iframe separates the page's style from the notebook's.
        return (
            f'<iframe title="{escaped(self.title)}" srcdoc="{html.escape(str(self))}" sandbox="allow-scripts" '
            f'style="width:100%;height:{self.height}px;border:0;resize:vertical;overflow:auto"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Write the page as one HTML file; an interrupted call leaves no partial file.

        Returns:
            the path of the file.
        """
        with whole_file(path := Path(path)) as draft:
            draft.write_text(str(self), encoding="utf-8")
        return path


def widget(kind: str, data: Any, title: str, caption: bool = True) -> str:
    """Write the HTML of a figure that the page's script draws from data.

    Args:
        kind: name of the drawing function in ``page.js``.
        data: a value that JSON can hold.
        title: caption of the figure, and its name for screen readers.
        caption: whether the title is visible.

    Returns:
        a ``figure`` element.
    """
    # The element holds JSON, not a script: only `<` could end it early.
    json_text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    caption_html = f"<figcaption>{escaped(title)}</figcaption>" if caption else ""
    return (
        f'<figure class="view" data-view="{kind}" aria-label="{escaped(title)}">{caption_html}'
        f'<script type="application/json">{json_text}</script></figure>'
    )


@cache
def _asset(name: str) -> str:
    return (Path(__file__).with_name("assets") / name).read_text(encoding="utf-8")
