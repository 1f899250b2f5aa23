import importlib.util
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from interp_toolkit import Adapter, Explanation, Explanations, FileFormatError, InterpToolkitError, VectorLabelPairs
from interp_toolkit.tables import escaped, html_table, visible
from interp_toolkit.views import (
    Section,
    activation_view,
    adapter_family,
    chart_view,
    coverage_curve,
    explanations_report,
    feature_view,
    grid_map,
    layer_recall,
    learning_curve,
    loss_curves,
    read_log,
    report,
    results_report,
    scale_sweep,
    scaling_curve,
    table_view,
    token_view,
)
from interp_toolkit.views.libraries import library_script

ROOT = Path(__file__).parent.parent
HOSTILE = [
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "<!-- <script>",
    "a\u202eb\x00c",
    "x" * 10_000,
    "\u2028line\u2029",
    "%{x} <b>bold</b> &lt;",
]


class _Page(HTMLParser):
    """The elements of a page, read by another parser than the one that it was written for."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self._kind = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._kind = dict(attrs).get("type", "code")
            self.scripts.append((self._kind, dict(attrs).get("data-library"), []))

    def handle_data(self, data):
        if self._kind:
            self.scripts[-1][2].append(data)

    def handle_endtag(self, tag):
        if tag == "script":
            self._kind = None

    def data(self):
        return [json.loads("".join(text)) for kind, _, text in self.scripts if kind == "application/json"]

    def libraries(self):
        return [name for _, name, _ in self.scripts if name]


def _data(view):
    return _Page(view.body).data()[0]


def _explanations(texts, reading=None):
    rows = [Explanation(f"source {i}", "blocks.2", 7, 0, x, -1.0, 2.0 - i, reading, 1.0) for i, x in enumerate(texts)]
    return Explanations(rows)


def _cells():
    rows = []
    for site in ("blocks.10.hook_resid_post", "blocks.2.hook_resid_post"):
        for position, token in ((4, " the"), (5, " the"), (6, HOSTILE[0])):
            for sample in range(2):
                value = position + sample + (100 if "10" in site else 0)
                result = dict(prompt=0, site=site, position=position, token=token, sample=sample)
                rows.append(result | dict(description=f"said {value}", evidence=float(value), named=value == 105))
    return pd.DataFrame(rows)


# Text and tables


def test_nothing_in_a_text_hides():
    assert visible("a\u202eb\u2066c\u200f") == "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200F⟩"
    assert visible("a\x00b\x1b\x7f\x85") == "a\u2400b\u241b\u2421⟨U+0085⟩"
    assert visible("\ud800\U000e0041") == "\ufffd⟨U+E0041⟩"
    for ordinary in ("São Paulo 東京", "שלום", "नि\u200dर\u200c", "👩\u200d🔬", "two\nlines\tand a tab"):
        assert visible(ordinary) == ordinary


def test_markup_is_text_and_long_texts_are_cut_and_say_so():
    assert escaped("<b a='1' c=\"2\">&") == "&lt;b a=&#x27;1&#x27; c=&quot;2&quot;&gt;&amp;"
    assert escaped("x" * 10_000) == "x" * 300 + " … (10,000 characters)"
    table = html_table(["<i>", "n"], [["<b>", "1"]], ["n"])
    assert "<td style='text-align:left'>&lt;b&gt;</td><td style='text-align:right'>1</td>" in table
    assert "<i>" not in table


# Notebook faces


def test_explanations_show_a_page_of_rows_and_how_many_more():
    page = _explanations(HOSTILE[:4] * 300)._repr_html_()
    assert page.count("<tr>") == 101
    assert "1,100 more rows" in page
    assert {tag for tag, _ in _Page(page).tags} <= {"table", "thead", "tbody", "tr", "th", "td", "small"}
    assert "more rows" not in _explanations(HOSTILE)._repr_html_()


def test_adapters_have_a_face():
    adapter = Adapter.create("scalar_affine_low_rank", d_model=32, rank=4)
    page = adapter._repr_html_()
    for result in ("scalar_affine_low_rank", ">32<", f">{adapter.parameter_count}<", ">4<", "not trained"):
        assert result in page
    assert "<" not in repr(adapter)


def test_pairs_have_a_face(random_vectors):
    labels = [["<b>cat</b>", "feline"], *[[f"label {i}"] for i in range(39)]]
    pairs = VectorLabelPairs.from_tensors(random_vectors(40), labels, val_fraction=0.1, site=2)
    result = repr(pairs)
    assert result == (
        "VectorLabelPairs: 40 vectors of width 32, 36 to train and 4 to validate, read at blocks.2.hook_resid_post"
    )
    page = pairs._repr_html_()
    assert result in page
    assert "&lt;b&gt;cat&lt;/b&gt; · feline" in page
    assert "30 more" in page
    assert page.count("<tr>") == 11


# Pages


def test_a_page_carries_each_library_once_and_only_those_it_uses():
    plain = _Page(str(report(_explanations(HOSTILE), table_view(_cells()), token_view(_cells()))))
    assert plain.libraries() == []
    figure = grid_map(_cells())
    both = str(report(figure, figure, activation_view(_activations()), activation_view(_activations())))
    page = _Page(both)
    assert page.libraries() == ["circuitsvis", "plotly"]
    asked = [x for _, attrs in page.tags for name in ("src", "href") if (x := attrs.get(name))]
    assert asked == ["data:,"]
    assert not re.search(r"from\s*[\"']https?://", both)
    assert "default-src 'none'" in both
    assert "sourceMappingURL" not in both


@pytest.mark.parametrize("name", ["plotly", "circuitsvis"])
def test_a_library_cannot_end_its_element(name):
    source = library_script(name)
    assert not re.search(r"</script|<!--|<script", source, flags=re.IGNORECASE)
    assert len(source) > 1_000_000


def test_data_comes_back_as_it_was_whatever_it_holds():
    page = report(_explanations(HOSTILE), title=HOSTILE[0], about=HOSTILE[1])
    parsed = _Page(str(page))
    assert [row[1] for row in parsed.data()[0]["rows"]] == [visible(x) for x in HOSTILE]
    assert [kind for kind, *_ in parsed.scripts] == ["application/json", "code"]
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert repr(page).startswith("View: ")


def test_a_page_is_saved_whole_and_stands_in_a_frame_in_a_notebook(tmp_path):
    page = report("A paragraph.", title="Of <b>")
    path = page.save(tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == str(page)
    assert [x.name for x in path.parent.iterdir()] == ["page.html"]
    (frame, attrs), *rest = _Page(page._repr_html_()).tags
    assert (frame, rest) == ("iframe", [])
    assert attrs["srcdoc"] == str(page)
    assert attrs["sandbox"] == "allow-scripts"


def test_a_report_takes_all_kinds_of_parts(unchecked):
    page = report(
        _explanations(["a", "b"]),
        Section("One", "Some words.", table_view(_cells(), "Cells")),
        Section("Two <i>", _cells(), coverage_curve(pd.DataFrame(dict(coverage=[0.5, 1], accuracy=[0.9, 0.4])))),
        title="All",
    )
    parsed = _Page(page.body)
    assert [attrs["data-view"] for tag, attrs in parsed.tags if tag == "figure"] == ["table"] * 3 + ["chart", "table"]
    assert [attrs["href"] for tag, attrs in parsed.tags if tag == "a"] == ["#section-1", "#section-2"]
    assert [attrs["id"] for tag, attrs in parsed.tags if tag == "h2"] == ["section-1", "section-2"]
    with pytest.raises(InterpToolkitError, match="a report takes Explanations, .* got int"):
        report(3)
    with pytest.raises(InterpToolkitError, match="expected something to report on"):
        report()


def test_the_report_of_explanations_says_what_evidence_is():
    page = explanations_report(_explanations(["a", "b"], reading=False))
    assert "2 descriptions of 2 sources." in page.body
    assert "the description is a guess" in page.body
    assert ["verdict", "abstains"] in _data(page)["same"]
    assert "1 description of 1 source." in explanations_report(_explanations(["a"])).body


# Tables


def test_tables_tell_once_what_is_always_the_same():
    frame = pd.DataFrame(
        dict(
            measure=["recall@1", "recall@10", "of nothing"],
            value=[0.1, math.nan, 5.0],
            low=[0.05, math.nan, -math.inf],
            high=[0.2, math.nan, math.inf],
            seed=[0, 0, 0],
            nothing=[None, None, None],
            right=[True, False, False],
        )
    )
    data = _data(table_view(frame, "Recall"))
    assert [column["name"] for column in data["columns"]] == ["measure", "value", "right", "interval"]
    assert [column["kind"] for column in data["columns"]] == ["text", "number", "text", "text"]
    assert data["rows"] == [
        ["recall@1", 0.1, "yes", "0.05 to 0.2"],
        ["recall@10", None, "no", None],
        ["of nothing", 5.0, "no", "unbounded"],
    ]
    assert data["same"] == [["seed", 0]]
    alike = _data(table_view(pd.DataFrame(dict(a=[1, 1], b=["x", "x"]))))
    assert (alike["rows"], alike["same"]) == ([[1, "x"], [1, "x"]], [])
    assert _data(table_view(pd.DataFrame(dict(a=[]))))["rows"] == []
    assert _data(table_view(pd.DataFrame(dict(a=[math.inf, 1.0]))))["rows"] == [["inf"], [1.0]]


# Tokens


def test_tokens_are_coloured_by_their_best_description():
    cells = pd.concat([_cells(), _cells().assign(prompt=1, evidence=math.nan)])
    texts = _data(token_view(cells))["texts"]
    assert [text["name"] for text in texts] == ["prompt 0", "prompt 1"]
    assert [layer["name"] for layer in texts[0]["layers"]] == ["blocks.10.hook_resid_post", "blocks.2.hook_resid_post"]
    first = texts[0]["layers"][0]["tokens"]
    assert [token["text"] for token in first] == [" the", " the", HOSTILE[0]]
    assert first[0]["value"] == 105
    assert first[0]["notes"] == [["said 105", 105.0], ["said 104", 104.0]]
    assert {token["value"] for token in texts[1]["layers"][0]["tokens"]} == {None}


def test_tokens_take_activations_without_descriptions():
    frame = pd.DataFrame(dict(position=[1, 0], token=["b\n", "a"], activation=[0.5, None]))
    (text,) = _data(token_view(frame, value="activation"))["texts"]
    assert text["layers"][0]["tokens"] == [
        dict(text="a", breaks=False, value=None, notes=[]),
        dict(text="b\n", breaks=True, value=0.5, notes=[]),
    ]


def test_frames_without_what_is_needed_are_refused():
    with pytest.raises(InterpToolkitError, match="columns position, token, evidence; it lacks evidence and has"):
        token_view(pd.DataFrame(dict(position=[0], token=["a"])))
    with pytest.raises(InterpToolkitError, match="at least one row, got an empty one"):
        token_view(pd.DataFrame(dict(position=[], token=[], evidence=[])))
    with pytest.raises(InterpToolkitError, match="expected numbers in 'evidence' of token_view, got 'high'"):
        token_view(pd.DataFrame(dict(position=[0], token=["a"], evidence=["high"])))


# Activations


def _activations(texts=2):
    return pd.DataFrame(
        [
            dict(text=text, position=position, token=token, feature=feature, activation=float(position))
            for text in range(texts)
            for position, token in enumerate(("a", HOSTILE[1]))
            for feature in ("cats", "<b>")
        ]
    )


def test_activations_of_several_features_go_to_circuitsvis_escaped():
    several, one = _data(activation_view(_activations())), _data(activation_view(_activations(1)))
    assert several["component"] == "TextNeuronActivations"
    assert several["props"]["activations"] == [[[[0.0, 0.0]], [[1.0, 1.0]]]] * 2
    assert several["props"]["tokens"][0][1].startswith("&lt;img")
    assert one["component"] == "ColoredTokensMulti"
    assert one["props"]["values"] == [[0.0, 0.0], [1.0, 1.0]]
    assert one["props"]["labels"] == ["cats", "<b>"]
    with pytest.raises(InterpToolkitError, match="position 1 lacks that of feature '<b>'; write 0"):
        activation_view(_activations(1).head(3))


# The grid


def test_the_grid_keeps_positions_apart_and_draws_the_highest_evidence():
    figure = grid_map(_cells())
    heat, stars = figure.data
    assert list(heat.x) == [4, 5, 6]
    assert list(figure.layout.yaxis.ticktext) == ["2", "10"]
    assert [list(row) for row in heat.z] == [[5, 6, 7], [105, 106, 107]]
    assert list(figure.layout.xaxis.ticktext)[:2] == ["the", "the"]
    assert (list(stars.x), list(stars.y)) == ([4, 5], [1, 1])
    assert "said 105 <b>105.00</b><br>said 104" in heat.text[1][0]
    assert "<script" not in json.dumps([heat.text, figure.layout.xaxis.ticktext, stars.name])
    assert "Highest: 107.00, “said 107” at blocks.10.hook_resid_post, position 6" in figure.layout.meta["about"]


def test_the_grid_is_of_one_prompt_and_lives_with_gaps():
    two = pd.concat([_cells(), _cells().assign(prompt=1)])
    with pytest.raises(InterpToolkitError, match="of 2 prompts; choose one: grid_map"):
        grid_map(two)
    with pytest.raises(InterpToolkitError, match="none of prompt 7; there are prompts 0, 1"):
        grid_map(two, prompt=7)
    assert list(grid_map(two, prompt=1).data[0].x) == [4, 5, 6]
    gaps = _cells().drop(columns="named").query("not (site.str.contains('10') and position == 5)")
    gaps.loc[gaps.position == 6, "evidence"] = math.nan
    (heat,) = grid_map(gaps).data
    assert [list(row) for row in heat.z] == [[5, 6, None], [105, None, None]]
    stacked = _cells().assign(site="blocks.2.hook_resid_post + blocks.4.hook_resid_post")
    assert list(grid_map(stacked).layout.yaxis.ticktext) == [
        "blocks.2.hook_resid_post + blocks.4.hook … (51 characters)"
    ]


# Curves


def test_curves_draw_their_intervals():
    frame = pd.DataFrame(dict(coverage=[1.0, 0.5], accuracy=[0.4, 0.9], low=[0.3, 0.8], high=[0.5, 0.95], n=[20, 10]))
    figure = coverage_curve(frame)
    high, low, line = figure.data
    assert (list(high.x), list(high.y), list(low.y), list(line.y)) == ([0.5, 1], [0.95, 0.5], [0.8, 0.3], [0.9, 0.4])
    assert low.fill == "tonexty"
    assert [list(x) for x in line.customdata] == [[0.8, 0.95, 10.0], [0.3, 0.5, 20.0]]
    assert "accuracy from 0.4 at coverage 1.0 to 0.9 at coverage 0.5" in figure.layout.meta["about"]


@pytest.mark.parametrize(
    ("draw", "column", "by", "axis"),
    [
        (layer_recall, "layer", "measure", "linear"),
        (learning_curve, "examples", "measure", "log"),
        (scaling_curve, "parameters", "source", "log"),
        (scale_sweep, "scale", "measure", "log"),
    ],
)
def test_each_curve_has_a_line_for_each_kind(draw, column, by, axis):
    frame = pd.DataFrame({column: [1, 2000, 1, 2000], "value": [0.1, 0.2, 0.3, 0.4], by: ["a", "a", "<b>", "<b>"]})
    figure = draw(frame)
    assert [(line.name, list(line.y)) for line in figure.data] == [("a", [0.1, 0.2]), ("&lt;b&gt;", [0.3, 0.4])]
    assert figure.layout.xaxis.type == axis
    with pytest.raises(InterpToolkitError, match="at least one row"):
        draw(frame.head(0))
    with pytest.raises(InterpToolkitError, match=f"it lacks {column}"):
        draw(frame.drop(columns=column))


def test_recall_by_layer_reads_sites():
    frame = pd.DataFrame(dict(site=["blocks.10.hook_resid_post", "blocks.9.hook_resid_post"], value=[0.1, 0.2]))
    (line,) = layer_recall(frame).data
    assert (list(line.x), list(line.y)) == ([9, 10], [0.2, 0.1])


def test_the_family_has_error_bars():
    frame = pd.DataFrame(dict(adapter=["scale", "full rank"], value=[0.1, 0.5], low=[0.05, 0.4], high=[0.2, 0.7]))
    (points,) = adapter_family(frame).data
    assert list(points.x) == [0.1, 0.5]
    assert list(points.error_x.array) == pytest.approx([0.1, 0.2])
    assert list(points.error_x.arrayminus) == pytest.approx([0.05, 0.1])


def test_losses_come_from_the_log_of_a_run(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    path.parent.mkdir()
    events = [
        dict(event="start", step=0, model="m"),
        dict(event="step", step=1, loss=6.0),
        dict(event="validation", step=2, train_loss=5.0, val_loss=4.0, shuffled_loss=5.5),
        dict(event="step", step=3, loss=3.0),
        dict(event="validation", step=4, train_loss=3.0, val_loss=2.0, shuffled_loss=5.4),
    ]
    path.write_text("\n".join(map(json.dumps, events)) + '\n{"event": "st')
    log = read_log(path)
    assert log["step"].tolist() == [0, 1, 2, 3, 4]
    training, validation, others = loss_curves(log).data
    assert (list(validation.x), list(validation.y)) == ([2, 4], [4, 2])
    assert list(training.y) == [5, 3]
    assert list(others.y) == [5.5, 5.4]
    assert "validation ends at 2.00" in loss_curves(log).layout.meta["about"]
    assert [line.name for line in loss_curves(dict(a=log[["step", "val_loss"]], b=log[["step", "val_loss"]])).data] == [
        "a: validation",
        "b: validation",
    ]
    with pytest.raises(InterpToolkitError, match="it has no loss"):
        loss_curves(log[["step"]])
    with pytest.raises(FileFormatError, match="cannot read results"):
        read_log(tmp_path / "none.jsonl")
    page = results_report([path.parent])
    assert "training of run" in page.body


# Charts in pages


def test_a_chart_has_a_title_an_alternative_and_its_numbers():
    view = chart_view(grid_map(_cells(), title="Grid <b>"))
    chart, numbers = _Page(view.body).data()
    assert view.title == "Grid <b>"
    assert "title" not in chart["layout"]
    assert chart["about"].startswith("Heat map of evidence at 2 layers and 3 positions")
    assert [column["name"] for column in numbers["columns"]][:2] == ["site", "position"]
    assert len(numbers["rows"]) == 12


def test_a_figure_of_plotly_itself_is_told_from_its_traces(unchecked):
    import plotly.graph_objects as graphs

    figure = graphs.Figure(graphs.Heatmap(z=[[1, 2], [3, 4]], x=["a", "b"]), layout=dict(title="Of mine"))
    figure.add_scatter(y=[5, 6], name="line")
    view = chart_view(figure)
    chart, numbers = _Page(view.body).data()
    assert view.title == "Of mine"
    assert chart["about"] == "Of mine. Series: heatmap, line."
    assert [row[:4] for row in numbers["rows"]] == [
        ["heatmap", "a", 0, 1],
        ["heatmap", "b", 0, 2],
        ["heatmap", "a", 1, 3],
        ["heatmap", "b", 1, 4],
        ["line", 0, 5, None],
        ["line", 1, 6, None],
    ]
    with pytest.raises(InterpToolkitError, match="expected a plotly figure, got list"):
        chart_view([1])


# Features


def test_features_come_in_the_order_of_disagreement():
    features = pd.DataFrame(dict(feature=[3, 5, 7], label=["cats", HOSTILE[0], None], disagreement=[0.1, 0.8, None]))
    said = pd.DataFrame(
        dict(feature=[3, 3, 5], description=["a", "b", "c"], evidence=[1.0, math.nan, 2.0], f1=[1, 2, 3])
    )
    where = pd.DataFrame(dict(feature=[5], tokens=[(" a", "\u202e")], activations=[(0.0, 2.5)], value=[2.5]))
    cards = _data(feature_view(features, said, where))["features"]
    assert [card["feature"] for card in cards] == [5, 3, 7]
    assert cards[0] == dict(
        feature=5,
        label=HOSTILE[0],
        scores=[["disagreement", 0.8]],
        descriptions=[dict(text="c", evidence=2.0, scores=[["f1", 3]])],
        contexts=[dict(tokens=[" a", "⟨U+202E⟩"], values=[0.0, 2.5])],
    )
    assert [x["evidence"] for x in cards[1]["descriptions"]] == [1.0, None]
    assert (cards[2]["label"], cards[2]["scores"]) == (None, [])
    by_agreement = features.rename(columns=dict(disagreement="agreement"))
    assert [card["feature"] for card in _data(feature_view(by_agreement))["features"]] == [3, 5, 7]


def test_a_table_of_agreement_is_enough_for_features():
    result = dict(feature=[3, 5], label=["cats", "rivers"], description=["kittens", None], evidence=[2.0, math.nan])
    cards = _data(feature_view(pd.DataFrame(result | dict(winner=["label", ""], disagreement=[0.2, math.nan]))))[
        "features"
    ]
    assert cards[0]["descriptions"] == [dict(text="kittens", evidence=2.0, scores=[])]
    assert cards[0]["scores"] == [["winner", "label"], ["disagreement", 0.2]]
    assert cards[1]["descriptions"] == []


def test_what_a_feature_card_shows_once_or_not_at_all():
    table = pd.DataFrame(dict(feature=[4], label=["type"], others=["kind | sort"], winner=[""], overlap=[0.0]))
    text = pd.DataFrame(dict(feature=[4] * 3, description=["disparity", "kind", "sort"]))
    (card,) = _data(feature_view(table, text))["features"]
    assert card["scores"] == [["overlap", 0.0]]
    assert ["others", "kind | sort"] in _data(feature_view(table))["features"][0]["scores"]


def test_features_that_cannot_be_shown_are_refused():
    features = pd.DataFrame(dict(feature=[3, 3], label=["cats", "dogs"]))
    with pytest.raises(InterpToolkitError, match="feature 3 is there twice"):
        feature_view(features)
    contexts = pd.DataFrame(dict(feature=[3], tokens=[("a", "b")], activations=[(1.0,)]))
    with pytest.raises(InterpToolkitError, match="context of feature 3, got 1 and 2"):
        feature_view(features.head(1), contexts=contexts)
    with pytest.raises(InterpToolkitError, match="it lacks description"):
        feature_view(features.head(1), pd.DataFrame(dict(feature=[3])))


# Results


def test_results_of_evaluations_become_tables_and_charts(tmp_path):
    coverage = [dict(coverage=c, accuracy=1 - c / 2, low=0.4, high=1.0, n=10, right="within 1") for c in (0.5, 1.0)]
    result = dict(
        settings=dict(task="abstention", adapter="abc", samples=6),
        failed=[],
        tables=dict(coverage=coverage, sweep=[dict(scale=1.0, loss=3.0), dict(scale=2.0, loss=2.0)]),
        own={"recall@1": [0.4, 0.3, 0.5]},
        arms=dict(one=dict(loss=1.0, seconds=2, steps=[5, 6]), other=dict(loss=3.0, seconds=4)),
    )
    path = tmp_path / "abstention.json"
    path.write_text(json.dumps(result))
    page = _Page(results_report([path]).body)
    kinds = [(attrs["data-view"], attrs["aria-label"]) for tag, attrs in page.tags if tag == "figure"]
    assert [kind for kind in kinds if not kind[1].startswith("Numbers of")] == [
        ("table", "Measures"),
        ("chart", "Coverage against accuracy"),
        ("table", "coverage"),
        ("chart", "Scale sweep"),
        ("table", "sweep"),
        ("table", "arms"),
        ("table", "How it was made"),
    ]
    assert page.data()[0]["rows"] == [["own", "recall@1", 0.4, "0.3 to 0.5"]]
    assert page.data()[-2]["rows"] == [["one", 1.0, 2], ["other", 3.0, 4]]
    assert page.data()[-1]["rows"] == [
        ["task", "abstention"],
        ["adapter", "abc"],
        ["samples", "6"],
        ["arms / one / steps", "5, 6"],
    ]


def test_knowledge_of_several_models_becomes_a_scaling_curve(tmp_path):
    rows = [
        dict(measure=measure, source="adapter", parameters=size, value=0.5, low=0.4, high=0.6, n=9)
        for measure in ("recall@1", "recall@10")
        for size in (1e8, 1e9)
    ]
    (tmp_path / "knowledge.json").write_text(json.dumps(dict(tables=dict(knowledge=rows))))
    page = _Page(results_report([tmp_path]).body)
    charts = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("data-view") == "chart"]
    assert charts == ["Scaling: recall@1", "Scaling: recall@10"]


def test_the_committed_results_can_be_reported():
    page = _Page(results_report([ROOT / "benchmarks" / "results"]).body)
    headings = [attrs["id"] for tag, attrs in page.tags if tag == "h2"]
    assert len(headings) == len(list((ROOT / "benchmarks" / "results").rglob("*.json")))
    measures = [row for data in page.data() for row in data.get("rows", []) if "recall@1" in row]
    assert measures


def test_a_damaged_log_is_refused_but_for_its_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 1, "loss": 2.0}\n{"event": "st')
    assert len(read_log(path)) == 1
    for second in ('{"event": "st', '{"event": "step", "step": "2"}', "[1]"):
        path.write_text('{"event": "step", "step": 1}\n' + second + '\n{"event": "step", "step": 3}\n')
        with pytest.raises(FileFormatError, match=r"log\.jsonl, line 2: expected an event of a training log"):
            read_log(path)


def test_tables_without_numbers_are_shown_without_a_chart(tmp_path):
    rows = [dict(coverage="half", accuracy=1), dict(coverage=1.0, accuracy=[2])]
    (tmp_path / "a.json").write_text(json.dumps(dict(tables=dict(coverage=rows))))
    page = _Page(results_report([tmp_path / "a.json"]).body)
    assert [attrs["data-view"] for tag, attrs in page.tags if tag == "figure"] == ["table"]
    (tmp_path / "deep.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(FileFormatError, match=r"deep\.json.* nested too deeply"):
        results_report([tmp_path / "deep.json"])


def test_results_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="is no JSON"):
        results_report([tmp_path / "bad.json"])
    with pytest.raises(FileFormatError, match="expected an object of settings and tables .* got list"):
        results_report([tmp_path / "list.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterpToolkitError, match="expected results .* found none"):
        results_report([tmp_path / "empty"])
    with pytest.raises(InterpToolkitError, match="at least one file"):
        results_report([])


# Extras


def test_missing_extras_name_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InterpToolkitError, match=r"charts take plotly: pip install 'interp-toolkit\[views\]'"):
        grid_map(_cells())
    own = importlib.util.find_spec
    monkeypatch.setattr(
        "interp_toolkit.views.libraries.find_spec", lambda name: None if name == "circuitsvis" else own(name)
    )
    with pytest.raises(InterpToolkitError, match=r"circuitsvis: pip install 'interp-toolkit\[views\]'"):
        activation_view(_activations())
    assert report(_explanations(["a"]), token_view(_cells())).needs == frozenset()


# Old names


def test_old_names_of_reports_warn():
    section = Section("Controls", "text")
    with pytest.warns(DeprecationWarning, match=r"Section\.parts is deprecated; use Section\.content"):
        assert section.parts == ("text",)
    explanations = _explanations(["a"])
    with pytest.warns(DeprecationWarning, match="use explanations="):
        assert explanations_report(found=explanations).body == explanations_report(explanations).body
