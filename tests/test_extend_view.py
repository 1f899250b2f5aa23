"""A user's own views: data frames in, figures or views out, used beside ours without touching them."""

import re
from pathlib import Path

import pandas as pd
import pytest

from interp_toolkit import InterpToolkitError, views
from interp_toolkit.tables import escaped
from interp_toolkit.views import Section, View, line_chart, report, table_view

FRAME = pd.DataFrame(dict(layer=[4, 8, 4, 8], evidence=[0.5, 2.5, 0.25, 1.0], who=["ours", "ours", "<b>", "<b>"]))


def word_list(frame, title="Words"):
    """A view in HTML of its own."""
    items = "".join(f"<li>{escaped(text)}</li>" for text in frame["who"].unique())
    return View(title, f"<ul>{items}</ul>")


def evidence_histogram(frame):
    """A figure of plotly that knows nothing of this package."""
    import plotly.graph_objects as graphs

    return graphs.Figure(graphs.Histogram(x=frame["evidence"], name="evidence"), layout=dict(title="Histogram"))


def evidence_by_layer(frame):
    """A chart by the function that our own curves use."""
    return line_chart(frame, "layer", "evidence", group="who", title="By layer", y_title="nats per token")


# plotly's figures are not annotated for beartype
def test_own_views_stand_in_a_report_beside_ours(tmp_path, unchecked):
    content = [
        word_list(FRAME),
        Section("Mine", evidence_histogram(FRAME), evidence_by_layer(FRAME)),
        table_view(FRAME),
    ]
    page = report(*content, title="Own views")
    assert "<li>&lt;b&gt;</li>" in page.body
    assert "Histogram" in page.body
    assert page.body.count('data-view="chart"') == 2
    assert page.needs == {"plotly"}
    text = page.save(tmp_path / "page.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "src=" not in page.body
    assert word_list(FRAME).needs == frozenset()


def test_a_line_chart_names_its_axes_and_its_range():
    figure = evidence_by_layer(FRAME)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("layer", "nats per token")
    assert figure.layout.meta["about"] == "By layer: evidence from 0.25 at layer 4 to 2.5 at layer 8."
    assert [line.name for line in figure.data] == ["ours", "&lt;b&gt;"]
    with pytest.raises(InterpToolkitError, match="it lacks depth"):
        line_chart(FRAME, "depth", "evidence")


def test_views_import_nothing_of_models():
    folder = Path(views.__file__).parent
    for path in folder.glob("*.py"):
        assert not re.search(r"interp_toolkit\.(models|adapters|runtime|activations)", path.read_text()), path.name
