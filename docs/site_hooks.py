"""Hooks of mkdocs: links between notebooks, and their plotly charts."""

import html
import json
import re
from pathlib import Path

from plotly.offline import get_plotlyjs

_PLOTLY = "application/vnd.plotly.v1+json"
_LIBRARY = "assets/plotly.min.js"
# The empty element that the converter leaves for an output of an unknown type.
_EMPTY = re.compile(r'(<div class="jp-OutputArea-child[^"]*">\s*<div class="jp-OutputPrompt[^>]*></div>)(\s*</div>)')


def on_page_content(text, page, **_):
    """In the page of a notebook, link other notebooks' pages and draw the charts, which the converter leaves out."""
    if not page.file.src_uri.endswith(".ipynb"):
        return text
    text = re.sub(r'href="(?!\w+:)([\w./-]+)\.ipynb"', r'href="\1.html"', text)
    notebook = json.loads(Path(page.file.abs_src_path).read_text(encoding="utf-8"))
    charts = {cell["id"]: figures for cell in notebook["cells"] if (figures := _charts(cell))}
    return _drawn(text, charts)


def on_post_build(config, **_):
    """Write plotly's script once for all pages, so that they load nothing from elsewhere."""
    target = Path(config["site_dir"], _LIBRARY)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(get_plotlyjs(), encoding="utf-8")


def _charts(cell):
    return [out["data"][_PLOTLY] for out in cell.get("outputs", []) if _PLOTLY in out.get("data", {})]


def _drawn(page, charts):
    """Insert each cell's charts after the cell, and plotly's script if there is a chart."""
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
    arguments = json.dumps([figure["data"], layout, dict(responsive=True, displaylogo=False)]).replace("<", "\\u003c")
    return (
        # Without `min-width: 0` a chart beside another in a row is as wide as the row, and cut off.
        f'<div id="{name}" role="img" aria-label="{html.escape(about)}" style="flex: 1 1 0; min-width: 0"></div>'
        f'<script>Plotly.newPlot("{name}", ...{arguments})</script>'
    )
