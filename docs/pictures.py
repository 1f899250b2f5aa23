"""Take the pictures of the explorer that the README, the how-to page and the tutorial show.

python docs/pictures.py

It needs `interp-toolkit serve` on port 8000 and Chromium. Sizes are those of a desktop and of a phone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
URL = "http://127.0.0.1:8000/"
TEXT = "The Eiffel Tower stands in the city of Paris, the capital of France."
OTHER = "The Colosseum stands in the city of Rome, the capital of Italy."
# Token and layer that are pinned, "Tower" after block 23, and those by which the answer is steered, "Paris" after 16.
_PINNED, _STEERED = (3, 3), (9, 2)
_LAYERS = 4
_PATIENCE = 120_000


def opened(browser: Browser, width: int, height: int, scheme: str = "light") -> Page:
    """The explorer, with its text described."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(_PATIENCE)
    page.goto(URL)
    page.wait_for_selector("#adapter option", state="attached")
    page.fill("#text", TEXT)
    page.click("#go")
    page.wait_for_selector("#status:has-text('seconds')")
    return page


def pin(page: Page, token: int, layer: int) -> None:
    """Pin a cell of the grid, and wait for what is asked about it."""
    page.locator(".grid td .cell").nth(token * _LAYERS + layer).click()
    page.wait_for_selector("#detail h3:has-text('Logit lens') + p:not(.waiting)")
    page.wait_for_selector("#detail h3:has-text('further samples') + ul")


def main() -> None:
    """Take all pictures."""
    images, beside = ROOT / "docs" / "images", ROOT / "tutorials" / "images"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = opened(browser, 1280, 1060)
        page.locator(".token").nth(2).hover()
        page.screenshot(path=beside / "point.png", clip={"x": 0, "y": 0, "width": 1280, "height": 640})
        pin(page, *_PINNED)
        page.locator("#detail").screenshot(path=beside / "pin.png")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.screenshot(path=images / "explorer.png")
        pin(page, *_STEERED)
        steering = page.locator("#detail .steer")
        steering.locator("button").click()
        steering.locator(".answers .random").wait_for()
        steering.screenshot(path=beside / "steer.png")
        page.select_option("#compare", "text")
        page.fill("#other", OTHER)
        page.click("#go")
        page.wait_for_selector("#status:has-text('seconds')")
        page.screenshot(path=beside / "compare.png")
        phone = opened(browser, 390, 844, "dark")
        phone.locator(".token").nth(_PINNED[0]).click()
        phone.wait_for_selector("#detail h3:has-text('Logit lens') + p:not(.waiting)")
        phone.screenshot(path=images / "explorer-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
