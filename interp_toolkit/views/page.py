"""One page that needs nothing beside itself, and the views that it is made of."""

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

# Nothing is fetched, whatever a text in the page may ask for. The libraries make code of texts of their own.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, repr=False)
class View:
    """Something to look at: in a notebook by itself, as a file by `save`, or among others in a report.

    Attributes:
        title: what it shows.
        body: its HTML, in which all given text is escaped.
        needs: the libraries it draws with.
        height: in a notebook, in pixels.

    Example:
        >>> view = token_view(grid.cells)
        >>> view.save("tokens.html")
    """

    title: str
    body: str
    needs: frozenset[str] = frozenset()
    height: int = 440

    def __str__(self) -> str:
        """The whole page, with all it needs."""
        # A library is text until something that needs it comes into sight, so that the page opens at once.
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
            f"{libraries}<script>{_asset('page.js')}</script></body></html>\n"
        )

    def __repr__(self) -> str:
        return f"View: {self.title}; .save(path) writes it as one HTML file"

    def _repr_html_(self) -> str:
        # A frame of its own keeps the page's style and the notebook's apart.
        return (
            f'<iframe title="{escaped(self.title)}" srcdoc="{html.escape(str(self))}" sandbox="allow-scripts" '
            f'style="width:100%;height:{self.height}px;border:0;resize:vertical;overflow:auto"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Write the page as one HTML file, whole or not at all.

        Returns:
            where it is.
        """
        with whole_file(path := Path(path)) as draft:
            draft.write_text(str(self), encoding="utf-8")
        return path


def widget(kind: str, data: Any, title: str, caption: bool = True) -> str:
    """The HTML of something that the page's script draws from data.

    Args:
        kind: the drawing function in ``page.js``.
        data: what JSON can hold.
        title: its caption, and its name to a screen reader.
        caption: whether the title is to be seen.
    """
    # Data is no script: only what could end its element needs care.
    told = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    named = f"<figcaption>{escaped(title)}</figcaption>" if caption else ""
    return (
        f'<figure class="view" data-view="{kind}" aria-label="{escaped(title)}">{named}'
        f'<script type="application/json">{told}</script></figure>'
    )


@cache
def _asset(name: str) -> str:
    return (Path(__file__).with_name("assets") / name).read_text(encoding="utf-8")
