"""Reports in a real browser, without a network: what is drawn, hover, filter, keyboard, phone and dark mode."""

import re

import pandas as pd
import pytest

from interp_toolkit import Explanation, Explanations
from interp_toolkit.tables import visible
from interp_toolkit.views import (
    Section,
    activation_view,
    coverage_curve,
    feature_view,
    grid_map,
    report,
    table_view,
    token_view,
)

# The machine may be busy; what is waited for comes or does not.
PATIENCE = 120_000
HOSTILE = [
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "<svg/onload=window.owned=1><!-- <script>",
    "right\u202eleft\u2066\u200fmarks",
    "nul\x00 escape\x1b bell\x07",
    "x" * 10_000,
    "%{x} <b>bold</b> <a href='https://example.org/'>link</a> &lt;i&gt;",
    "שלום עולם",
]
OPENING = ["The", " capital", " of", " the", " country", " of", " the"]


@pytest.fixture
def opened(browser, tmp_path):
    """opened(view, **settings of the browser): the page, drawn; at the end it must have asked for nothing else."""
    contexts, requests, problems = [], [], []

    def open_page(view, **settings):
        path = view.save(tmp_path / "report.html")
        context = browser.new_context(offline=True, **settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda result: problems.append(result.text) if result.type == "error" else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    owned = [page.evaluate("window.owned") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert owned == [None] * len(owned)
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        (tmp_path / "report.html").as_uri()
    ] * len(owned)
    assert problems == []


def _explanations(count):
    texts = [*HOSTILE, *(f"topic-{i}" for i in range(len(HOSTILE), count))]
    rows = [
        Explanation(f"source {i}", "blocks.2.hook_resid_post", 7, 0, text, -1.0, i / count, None, 1.0)
        for i, text in enumerate(texts)
    ]
    return Explanations(rows)


def _cells():
    tokens = [*OPENING, *HOSTILE]
    rows = []
    for site in ("blocks.2.hook_resid_post", "blocks.3.hook_resid_post"):
        for position, token in enumerate(tokens):
            result = dict(prompt=0, site=site, position=position, token=token)
            rows.append(result | dict(description=f"said at {position}", evidence=position / 4, named=position == 4))
            rows.append(result | dict(description=HOSTILE[position % 8], evidence=-0.5, named=False))
    return pd.DataFrame(rows)


def _texts(page, selector):
    return page.locator(selector).all_inner_texts()


def _contrast(page, selector):
    """Contrast of an element's text with the page's paper, as WCAG counts it."""
    return page.evaluate(
        """(selector) => {
            const channel = (x) => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
            const light = (text) => {
                const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
                return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
            };
            const paper = light(getComputedStyle(document.documentElement).backgroundColor);
            const ink = light(getComputedStyle(document.querySelector(selector)).color);
            return (Math.max(paper, ink) + 0.05) / (Math.min(paper, ink) + 0.05);
        }""",
        selector,
    )


def test_a_thousand_rows_are_paged_filtered_and_sorted_by_keyboard(opened):
    page = opened(report(_explanations(1000), title="Of <b>hostile</b> text"))
    assert page.title() == "Of <b>hostile</b> text"
    assert _texts(page, "h1") == ["Of <b>hostile</b> text"]
    assert page.locator("tbody tr").count() == 50
    cells = page.locator("tbody tr td:nth-child(2) .text")
    for i, text in enumerate(HOSTILE):
        if len(text) < 1000:
            assert cells.nth(i).text_content() == visible(text)
    assert page.locator("tbody img, tbody svg, tbody script, tbody b, tbody a").count() == 0

    # The first key leads to the filter.
    page.keyboard.press("Tab")
    page.keyboard.type("TOPIC-99")
    assert _texts(page, "output") == ["11 of 1,000 rows"]
    assert _texts(page, "tbody tr td:nth-child(2)")[:2] == ["topic-99", "topic-990"]

    # From there to the head of a column, twice the other way round.
    evidence = page.get_by_role("columnheader", name="evidence")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert evidence.get_attribute("aria-sort") == "descending"
    assert _texts(page, "tbody tr td:nth-child(2)")[0] == "topic-999"
    page.keyboard.press("Enter")
    assert evidence.get_attribute("aria-sort") == "ascending"
    assert _texts(page, "tbody tr td:nth-child(2)")[0] == "topic-99"
    page.keyboard.press("Enter")
    assert evidence.get_attribute("aria-sort") is None

    page.get_by_role("searchbox").fill("nothing has this")
    assert _texts(page, "output") == ["0 of 1,000 rows"]
    page.get_by_role("searchbox").fill("")
    # A long text is cut, says how long it is, and opens.
    assert cells.nth(5).text_content() == "x" * 280 + "…"
    page.get_by_role("button", name="show all 10,000 characters").press("Enter")
    assert cells.nth(5).text_content() == HOSTILE[5]
    follow = page.get_by_role("button", name="Next")
    follow.press("Enter")
    assert _texts(page, "tbody tr td:nth-child(1)")[0] == "source 50"
    assert _texts(page, "nav span") == ["Page 2 of 20"]
    assert "In every row: " in page.locator(".same").text_content()


def test_tokens_are_read_by_arrow_keys_and_by_pointing(opened):
    page = opened(token_view(_cells()))
    shown = page.locator(".tokens .token")
    assert shown.count() == len(OPENING) + len(HOSTILE)
    assert shown.nth(7).locator("bdi").text_content() == HOSTILE[0]
    assert "(10,000 characters)" in shown.nth(12).text_content()
    assert page.locator(".tokens img, .tokens svg, .tokens script").count() == 0
    assert shown.nth(4).locator(".gloss").inner_text() == "said at 4"

    shown.first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    result = page.locator(".detail")
    assert "country · evidence 1.00" in result.inner_text()
    assert _texts(page, ".detail li") == ["said at 4 · 1.00", f"{visible(HOSTILE[4])} · \u22120.50"]
    assert page.evaluate("document.activeElement.textContent").startswith(" country")
    page.keyboard.press("End")
    assert "said at 14" in result.inner_text()
    shown.nth(2).hover()
    assert "said at 2 · 0.50" in result.inner_text()

    # Stronger is darker: the colours follow the values.
    strength = shown.evaluate_all("(all) => all.map((one) => Number(one.style.getPropertyValue('--v')))")
    assert strength == sorted(strength)
    page.get_by_label("words under each token").uncheck()
    assert not shown.nth(4).locator(".gloss").is_visible()
    page.get_by_label("Layer").select_option("blocks.3.hook_resid_post")
    assert shown.count() == len(OPENING) + len(HOSTILE)


def test_the_grid_shows_descriptions_beside_the_pointer_and_its_numbers(opened):
    page = opened(report(Section("Grid", grid_map(_cells()))))
    chart = page.locator(".chart")
    chart.locator(".heatmaplayer image, .heatmaplayer path").first.wait_for(state="attached")
    chart.locator(".scatterlayer .points path").first.wait_for()
    assert chart.locator(".scatterlayer .points path").count() == 2
    ticks = [text.strip() for text in page.locator(".chart .xtick text").all_text_contents()]
    assert len(ticks) == len(OPENING) + len(HOSTILE)
    assert ticks[3] == ticks[6] == "the"
    assert ticks[7].startswith("</script><scrip")
    assert chart.get_attribute("aria-label").startswith("Heat map of evidence at 2 layers and 15 positions")
    assert chart.locator("a[href^=http]").count() == 0

    box = chart.locator(".nsewdrag").first.bounding_box()
    # Cell 6 of 15, of the upper of two rows: where the seventh hostile text comes second.
    page.mouse.move(box["x"] + box["width"] * _place(page, 6), box["y"] + box["height"] * 0.25, steps=3)
    hover = page.locator(".hoverlayer .hovertext")
    hover.wait_for()
    # Lines are broken where there was a space.
    result = re.sub(r"\s+", "", hover.text_content())
    assert "position6" in result
    assert "saidat6" in result
    assert HOSTILE[6].replace(" ", "") in result
    assert hover.locator("a").count() == 0

    page.locator("summary").press("Enter")
    assert page.locator("details tbody tr").count() == 50
    assert _texts(page, "details thead th button")[:3] == ["site", "position", "token"]


def _place(page, x):
    """Where a position lies on the axis of the chart, from 0 to 1."""
    low, high = page.evaluate("document.querySelector('.chart')._fullLayout.xaxis.range")
    return (x - low) / (high - low)


def test_features_are_sorted_by_disagreement_and_filtered(opened):
    numbers = range(30)
    features = pd.DataFrame(
        dict(feature=numbers, label=[HOSTILE[i % 8] for i in numbers], disagreement=[i / 30 for i in numbers])
    )
    text = pd.DataFrame(dict(feature=numbers, description=[f"words {i}" for i in numbers], evidence=numbers))
    contexts = pd.DataFrame(
        dict(
            feature=[29] * 5,
            tokens=[tuple(HOSTILE)] * 5,
            activations=[(0.0, 1.0, 0.0, 2.0, 0.0, 4.0, 0.0, 0.0)] * 5,
        )
    )
    page = opened(feature_view(features, text, contexts))
    assert page.locator(".card").count() == 10
    assert _texts(page, ".card h3 small")[:2] == ["feature 29", "feature 28"]
    assert "evidence 29.00" in page.locator(".card").first.inner_text()
    assert page.locator(".card img, .card svg, .card script").count() == 0
    coloured = page.locator(".contexts").first.locator("li").first.locator(".token")
    strength = coloured.evaluate_all("(all) => all.map((one) => Number(one.style.getPropertyValue('--v')))")
    assert strength == [0, 0.25, 0, 0.5, 0, 1, 0, 0]
    page.get_by_role("button", name="2 more").press("Enter")
    assert page.locator(".contexts").first.locator("li").count() == 5
    page.get_by_label("Sort by").select_option("feature number")
    assert _texts(page, ".card h3 small")[:2] == ["feature 0", "feature 1"]
    page.get_by_role("searchbox").fill("words 17")
    assert _texts(page, ".card h3 small") == ["feature 17"]
    assert _texts(page, "output") == ["1 of 30 features"]


def test_circuitsvis_draws_twice_on_a_page_and_offers_the_features(opened):
    rows = [
        dict(text=text, position=position, token=token, feature=feature, activation=float(position * scale))
        for text in range(2)
        for position, token in enumerate([*OPENING, *HOSTILE])
        for feature, scale in (("cats", 1), ("<i>rivers</i>", 0))
    ]
    frame = pd.DataFrame(rows)
    page = opened(report(activation_view(frame), activation_view(frame[frame["text"] == 0])))
    several, one = page.locator(".circuits").first, page.locator(".circuits").last
    one.scroll_into_view_if_needed()
    for place in (several, one):
        place.get_by_text("capital").first.wait_for()
        assert HOSTILE[0].split()[0] in place.inner_text()
        assert place.locator("img, svg, script, i").count() == 0
    token = several.get_by_text("country").first

    def colour():
        return token.evaluate("(one) => getComputedStyle(one).backgroundColor")

    before = colour()
    several.locator("#neuron-selector").select_option(label="<i>rivers</i>")
    page.wait_for_function(
        "([one, was]) => getComputedStyle(one).backgroundColor !== was", arg=[token.element_handle(), before]
    )
    assert "<i>rivers</i>" in one.inner_text()


def test_a_report_is_legible_on_a_phone_and_in_the_dark(opened):
    frame = pd.DataFrame(dict(coverage=[0.5, 1.0], accuracy=[0.9, 0.4], low=[0.8, 0.3], high=[1.0, 0.5]))
    parts = [_explanations(60), Section("Tokens", token_view(_cells())), Section("Curve", coverage_curve(frame))]
    page = opened(
        report(*parts, title="A report " + "w" * 80, about="About it."),
        viewport=dict(width=390, height=844),
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
    )
    page.locator(".chart").scroll_into_view_if_needed()
    page.locator(".chart .scatterlayer .lines").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 23, 27)"
    for selector in ("h1", "header p", "header a", ".same", "tbody td", "summary", ".detail li"):
        assert _contrast(page, selector) >= 4.5
    assert (
        page.locator(".chart .xtick text").first.evaluate("(one) => getComputedStyle(one).fill") == "rgb(231, 234, 238)"
    )
    # A row is a card, whose cells say what they are.
    first = page.locator("tbody tr").first
    assert first.locator("td").first.evaluate("(one) => getComputedStyle(one, '::before').content") == '"source"'
    page.emulate_media(color_scheme="light")
    page.wait_for_function("getComputedStyle(document.querySelector('.chart .xtick text')).fill === 'rgb(28, 31, 36)'")
    assert _contrast(page, "header p") >= 4.5
    page.locator(".token").nth(4).tap()
    assert "said at 4" in page.locator(".detail").inner_text()
    page.get_by_role("link", name="Curve").press("Enter")
    assert page.evaluate("location.hash") == "#section-2"


@pytest.mark.parametrize("width", [800, 1200])
def test_a_wide_table_scrolls_by_itself(opened, width):
    frame = pd.DataFrame([{f"a measure of a name {i}": 0.1 * i + k for i in range(15)} for k in range(3)])
    page = opened(table_view(frame, "Wide"), viewport=dict(width=width, height=700))
    page.locator("tbody tr").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".wide")
    assert box.evaluate("(one) => one.scrollWidth > one.clientWidth")
    # By keyboard too: its headers are buttons.
    page.get_by_role("button", name="a measure of a name 14").focus()
    page.wait_for_function("document.querySelector('.wide').scrollLeft > 0")


def test_a_view_is_drawn_in_the_frame_of_a_notebook(opened):
    class Notebook:
        """A page with a view in an output cell."""

        def save(self, path):
            face = report(_explanations(60), grid_map(_cells()))._repr_html_()
            path.write_text(f"<!doctype html><title>notebook</title><div>{face}</div>", encoding="utf-8")
            return path

    page = opened(Notebook())
    frame = page.frame_locator("iframe")
    frame.locator("tbody tr").first.wait_for()
    assert frame.locator("tbody").first.locator("tr").count() == 50
    frame.locator(".chart").scroll_into_view_if_needed()
    frame.locator(".chart .xtick").first.wait_for(state="attached")


def test_a_chart_of_a_notebook_has_its_legend_below_its_title(opened):
    series = ["train", "held out", "held out, another's vector", "full rank from a ridge fit", "random labels, drawn"]
    frame = pd.DataFrame([dict(coverage=x / 10, accuracy=x / 10, right=name) for name in series for x in range(1, 4)])

    class Output:
        """A figure in an output cell of a narrow notebook."""

        def save(self, path):
            coverage_curve(frame.assign(low=0.0, high=0.5)).write_html(path, include_plotlyjs=True)
            return path

    page = opened(Output(), viewport=dict(width=650, height=460))
    page.locator(".legend .traces").nth(len(series) - 1).wait_for()
    title, legend = (page.locator(name).bounding_box() for name in (".gtitle", ".legend"))
    assert title["y"] + title["height"] <= legend["y"]
    assert legend["y"] + legend["height"] <= page.locator(".xgrid").first.bounding_box()["y"] + 2
