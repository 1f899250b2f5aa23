"""What the site's builder is told beyond its settings."""

import html
import json
import re
from pathlib import Path

from plotly.offline import get_plotlyjs

_PLOTLY = "application/vnd.plotly.v1+json"
_LIBRARY = "assets/plotly.min.js"
# The empty place that the converter leaves for an output it does not know.
_EMPTY = re.compile(r'(<div class="jp-OutputArea-child[^"]*">\s*<div class="jp-OutputPrompt[^>]*></div>)(\s*</div>)')


def on_page_content(text, page, **_):
    """In a notebook, let links to others lead to their pages, and draw the charts, which its converter leaves out."""
    if not page.file.src_uri.endswith(".ipynb"):
        return text
    text = re.sub(r'href="(?!\w+:)([\w./-]+)\.ipynb"', r'href="\1.html"', text)
    notebook = json.loads(Path(page.file.abs_src_path).read_text(encoding="utf-8"))
    charts = {cell["id"]: found for cell in notebook["cells"] if (found := _charts(cell))}
    return _drawn(text, charts)


def on_post_build(config, **_):
    """The library that draws the charts, once for all pages: nothing is fetched from elsewhere."""
    target = Path(config["site_dir"], _LIBRARY)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(get_plotlyjs(), encoding="utf-8")


def _charts(cell):
    return [out["data"][_PLOTLY] for out in cell.get("outputs", []) if _PLOTLY in out.get("data", {})]


def _drawn(page, charts):
    """The page with each cell's charts behind the cell, and the library if there is any."""
    for cell, figures in charts.items():
        start = page.index(f'id="cell-id={cell}"')
        for at, figure in enumerate(figures):
            place = _EMPTY.search(page, start)
            if place is None:
                raise ValueError(f"expected a place for a chart behind cell {cell}, found none")
            page = page[: place.end(1)] + _chart(f"chart-{cell}-{at}", figure) + page[place.start(2) :]
    return f'<script src="../{_LIBRARY}"></script>{page}' if charts else page


def _chart(name, figure):
    layout = dict(figure["layout"])
    about = (layout.pop("meta", None) or {}).get("about", "Chart")
    told = json.dumps([figure["data"], layout, dict(responsive=True, displaylogo=False)]).replace("<", "\\u003c")
    return (
        # It stands beside another in a row that does not wrap, and would be as wide as the row, and cut off.
        f'<div id="{name}" role="img" aria-label="{html.escape(about)}" style="flex: 1 1 0; min-width: 0"></div>'
        f'<script>Plotly.newPlot("{name}", ...{told})</script>'
    )
