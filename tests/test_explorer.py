"""The explorer in a real browser that reaches this machine alone: type, stream, point, pin, compare, steer, export."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from local_server import running

from interp_toolkit.describing import describe
from interp_toolkit.engines.local import local_engine
from interp_toolkit.explanations import Explanations
from interp_toolkit.serve import Limits, Service
from interp_toolkit.serve import scheduler as scheduling
from interp_toolkit.serve.features import Features

# The machine may be busy; what is waited for comes or does not.
PATIENCE = 120_000
HOSTILE = "</script><img src=x onerror='window.owned=1'> <b>bold</b> right\u202eleft nul שלום %{x}"
TEXT = "the cat sat on the mat"


@pytest.fixture
def service(tiny, adapter, monkeypatch):
    other = type(adapter).from_config(adapter.config, adapter.contract)
    other.load_state_dict({name: -value for name, value in adapter.state_dict().items()})

    def hostile(engine, prepared, sampling, *arguments, **named):
        """The first token of all says what no page should run."""
        rows = describe(engine, prepared, sampling, *arguments, **named)
        return Explanations([replace(row, description=HOSTILE) if row.position == 0 else row for row in rows])

    monkeypatch.setattr(scheduling, "describe", hostile)
    return Service(local_engine(tiny()), {"mine": adapter, "other": other}, Limits(batch_cells=4))


@pytest.fixture
def opened(browser, service):
    """opened(path, **settings of the browser): the page; at the end it must have asked this server alone."""
    contexts, requests, problems = [], [], []

    with running(service) as url:

        def open_page(path="/", **settings):
            context = browser.new_context(**settings)
            contexts.append(context)
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.problems = problems
            page.goto(url + path)
            page.wait_for_selector("#adapter option", state="attached")
            return page

        yield open_page
        owned = [page.evaluate("window.owned") for context in contexts for page in context.pages]
        for context in contexts:
            context.close()
    assert owned == [None] * len(owned)
    assert {one for one in requests if not one.startswith((url + "/", "data:", "blob:"))} == set()
    assert problems == []


def _described(page, text=TEXT):
    """Type a text, and wait until every token is described."""
    page.fill("#text", text)
    page.click("#go")
    page.wait_for_selector("#status:has-text('seconds')")


def _texts(page, selector):
    return page.locator(selector).all_inner_texts()


def test_every_token_can_be_pointed_at(opened, service):
    page = opened()
    page.select_option("#positions", "all")
    _described(page)
    count = len(service.engine.tokenizer(TEXT)["input_ids"])
    assert page.locator(".token").count() == page.locator(".cell").count() >= count
    assert page.locator(".waiting").count() == 0
    page.locator(".token").nth(2).hover()
    said = page.locator(".cell").nth(2).inner_text()
    assert said in page.locator("#detail .layers").inner_text()
    assert re.search(r"evidence \S?\d", page.locator("#detail .measure").nth(1).inner_text())
    # Text of the model's is text, whatever is in it.
    page.locator(".token").nth(0).hover()
    assert "onerror=" in page.locator("#detail").inner_text()
    assert page.locator("#detail img, .grid img, .grid b").count() == 0


def test_the_keyboard_reaches_every_token_and_cell(opened):
    page = opened()
    page.select_option("#positions", "all")
    _described(page)
    page.locator(".token").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.token')[3]")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.cell')[3]")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator(".cell[aria-pressed=true]").count() == 1
    assert "further samples" in page.locator("#detail").inner_text()
    page.keyboard.press("Escape")
    assert "further samples" not in page.locator("#detail").inner_text()


def test_a_pinned_cell_shows_samples_lens_null_and_steering(opened):
    page = opened()
    _described(page)
    page.locator(".cell").nth(1).click()
    page.wait_for_selector("#detail h3:has-text('Logit lens') + p:not(.waiting)")
    page.wait_for_selector("#detail h3:has-text('further samples') + ul")
    assert page.locator("#detail h3:has-text('further samples') + ul li").count() >= 1
    assert page.locator("#detail h3:has-text('Without any vector') + ul li").count() == 1
    before = page.locator("#detail h2").inner_text()
    page.locator(".token").nth(3).hover()
    assert page.locator("#detail h2").inner_text() == before  # it stays
    page.fill("#detail input[type=text]", "a dog")
    page.click("text=Add it and see")
    page.wait_for_selector(".answers .random")
    assert page.locator(".answers > div").count() == 3


@pytest.mark.parametrize("compare", ["other", "text"])
def test_two_sides_stand_beside_each_other_with_differences_marked(opened, compare):
    page = opened(viewport=dict(width=1400, height=900))
    page.select_option("#compare", compare)
    if compare == "text":
        page.fill("#other", "the dog sat on the mat")
    _described(page)
    panes = page.locator(".pane")
    assert panes.count() == 2
    sides = [_texts(panes.nth(i), ".cell") for i in range(2)]
    names = "nodes => nodes.map(node => node.className)"
    differs = [["differs" in name for name in panes.nth(i).locator(".cell").evaluate_all(names)] for i in range(2)]
    assert differs[0] == differs[1] == [one != other for one, other in zip(*sides)]
    assert any(differs[0])


def test_the_address_holds_the_view(opened):
    page = opened()
    page.select_option("#positions", "all")
    _described(page)
    page.locator(".cell").nth(2).click()
    page.wait_for_selector("#detail h3:has-text('further samples') + ul")
    cells, address = _texts(page, ".cell"), page.url
    again = opened(address.partition("/?")[2] and "/?" + address.partition("/?")[2])
    again.wait_for_selector("#detail h3:has-text('further samples') + ul")
    assert _texts(again, ".cell") == cells
    assert again.locator(".cell").nth(2).get_attribute("aria-pressed") == "true"


def test_what_is_saved_holds_what_is_shown_and_works_offline(opened, browser, tmp_path):
    page = opened()
    page.select_option("#positions", "all")
    _described(page)
    with page.expect_download() as download:
        page.click("#save-json")
    download.value.save_as(tmp_path / "view.json")
    saved = json.loads((tmp_path / "view.json").read_text())
    (view,) = saved["views"]
    assert view["cells"][0]["descriptions"][0]["description"] == HOSTILE
    assert view["request"]["texts"] == [TEXT]
    with page.expect_download() as download:
        page.click("#save-page")
    download.value.save_as(tmp_path / "view.html")
    context, problems = browser.new_context(offline=True), []
    offline = context.new_page()
    offline.on("pageerror", lambda error: problems.append(str(error)))
    offline.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    offline.goto((tmp_path / "view.html").as_uri())
    offline.wait_for_selector(".token")
    assert offline.locator(".token").count() == len(view["cells"])
    offline.locator(".token").nth(1).hover()
    assert view["cells"][1]["descriptions"][0]["description"][:20].strip() in offline.locator(".detail").inner_text()
    assert offline.evaluate("window.owned") is None
    assert problems == []
    context.close()


def test_a_stopped_run_and_a_refusal_are_said(opened):
    page = opened()
    page.fill("#text", " ")
    page.click("#go")
    page.wait_for_selector("#problem:has-text('prompt 0 is empty')")
    assert "400 (Bad Request)" in page.problems.pop()  # the browser's own note of the response
    _described(page)
    assert page.locator("#problem").is_hidden()


def test_the_model_answers_and_both_are_described(opened):
    page = opened()
    page.select_option("#chat", "false")
    page.fill("#text", TEXT)
    page.click("#answer")
    page.wait_for_selector("#status:has-text('seconds')")
    assert page.input_value("#text").startswith(TEXT)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_serious_for_those_who_cannot_see_or_point(opened, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(viewport=dict(width=width, height=844), color_scheme=scheme, bypass_csp=True)
    _described(page)
    page.locator(".cell").nth(1).click()
    page.wait_for_selector("#detail h3:has-text('further samples') + ul")
    violations = axe.Axe().run(page).response["violations"]
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in serious] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways


def test_features_are_searched_on_a_tab_of_their_own(opened, service):
    texts = [f"words about {i}" for i in range(24)] + [HOSTILE]
    rows = pd.DataFrame(dict(feature=range(25), description=texts, evidence=[i / 10 for i in range(25)]))
    service.features = Features(rows, {i: [f"label {i}"] for i in range(20)})
    page = opened()
    page.click("#tab-features")
    page.wait_for_selector("#count:has-text('25 features')")
    assert page.locator("#cards .card").count() == 10
    page.click("#further")
    page.wait_for_selector("#cards .card >> nth=19")
    page.fill("#query", "onerror")
    page.keyboard.press("Enter")
    page.wait_for_selector("#count:has-text('1 feature')")
    assert "onerror=" in page.locator("#cards .card").inner_text()
    assert "no label" in page.locator("#cards .card").inner_text()
    assert page.locator("#text").is_hidden()
    page.click("#tab-tokens")
    assert page.locator("#text").is_visible()
    assert page.locator("#cards").is_hidden()


def test_the_page_of_the_api_shows_every_route(opened, service):
    page = opened()
    page.goto(page.url.partition("/?")[0].rstrip("/") + "/docs")
    page.wait_for_selector("h2:has-text('POST /v1/explain')")
    assert "texts: [" in page.locator("pre").first.inner_text()
