"""The pages in a real browser: opened, filtered, labelled, by keyboard and on a phone."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from guard import labelled
from guard.server.review.app import PATH
from guard.server.review.sessions import Link
from guard.text.visible import plain
from tests.server.review.conftest import HOSTILE, LEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from guard.engine import Guard
    from guard.journal.store import Journal
    from tests.server.review.conftest import Pages

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this system")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser."""
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def complaints() -> list[str]:
    """Return what the browser complained of: scripts, styles, errors, requests elsewhere."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """Return a window with a memory of its own."""
    context = browser.new_context()
    opened = context.new_page()
    opened.on("console", lambda each: complaints.append(each.text))
    opened.on("pageerror", lambda each: complaints.append(str(each)))
    opened.on("dialog", lambda each: complaints.append(each.message))
    opened.on("request", lambda each: note(complaints, each.url))
    yield opened
    context.close()


def note(complaints: list[str], url: str) -> None:
    """Note a request that goes elsewhere."""
    if not re.match(rf"http://127\.0\.0\.1:\d+{PATH}", url):
        complaints.append(url)


@pytest.fixture
def link(guard: Guard, open_pages: Callable[..., Pages], labels: Path) -> str:
    """Return the link to pages of three rows, one of them hostile."""
    guard.check(f"{HOSTILE} {LEAK}", prompt=f"Is {HOSTILE} good?")
    guard.check(LEAK, prompt="How do I test payments?")
    guard.check("One zblock word.", prompt="Say a word.")
    door = Link()
    pages = open_pages(labels, door=door, local=True, signed_in=False)
    return f"{pages.client.base_url}{PATH}/enter?secret={door.secret}".replace("//guard", "/guard")


def test_a_walk(page: Page, link: str, labels: Path, complaints: list[str]) -> None:
    """Open the link, filter, open a row, label, take back, sign out."""
    page.goto(link)
    assert page.url.endswith(PATH)
    assert page.locator(".rows li").count() == 3
    page.get_by_text("Filters").click()
    page.get_by_label("Action").select_option("rewrite")
    page.get_by_role("button", name="Show").click()
    assert "action=rewrite" in page.url
    assert page.locator(".rows li").count() == 2
    page.locator(".rows li a").first.click()
    assert "2 of 2 left" in page.inner_text("main")
    page.get_by_role("button", name="Right").click()
    assert "1 of 2 left" in page.inner_text("main")
    page.get_by_role("button", name="Wrong").click()
    assert "Nothing is left to label" in page.inner_text("main")
    assert len(labelled.read(labels).rows) == 2
    page.locator(".rows li a").first.click()
    assert "Labelled: right." in page.inner_text("main")
    page.get_by_role("button", name="Take back").click()
    assert "1 of 2 left" in page.inner_text("main")
    assert len(labelled.read(labels).rows) == 1
    page.get_by_role("link", name="Overview").click()
    assert page.locator("svg.columns").is_visible()
    assert "1" in page.get_by_role("region", name="How many flags were right").inner_text()
    page.get_by_role("button", name="Sign out").click()
    assert "Signed out" in page.inner_text("h1")
    assert complaints == []
    page.goto(page.url.removesuffix("/sign-out"))
    assert "Sign in" in page.inner_text("h1")


def test_hostile_texts(page: Page, link: str, complaints: list[str], journal: Journal) -> None:
    """Scripts and pictures of a model stay text, and what hides is shown."""
    page.goto(link)
    page.locator(".rows li a").last.click()
    boxes = page.locator(".text").all_inner_texts()
    oldest = list(journal.list())[-1]
    texts = (oldest.prompt, oldest.response, oldest.outcome)
    assert boxes == [plain(text or "") for text in texts]
    assert page.locator("script, img, iframe").count() == 0
    assert complaints == []


def test_a_page_runs_and_loads_nothing(page: Page, link: str, complaints: list[str]) -> None:
    """Even if markup got into a page, the browser would not obey it."""
    page.goto(link)
    page.evaluate(
        """() => {
          const picture = document.createElement("div");
          picture.innerHTML = '<img src="https://evil.example/x" onerror="alert(1)">';
          document.body.append(picture);
        }"""
    )
    page.wait_for_function("document.querySelector('img').complete")
    assert any("Content Security Policy" in each for each in complaints)
    assert not [each for each in complaints if each == "1"]


def test_by_keyboard(page: Page, link: str) -> None:
    """The first key leads past the head, and everything that can be pressed shows where one is."""
    page.goto(link)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


CONTRASTS = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((s) => s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const paper = (item) => {
    for (let at = item; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const item of document.querySelectorAll("main *, header *")) {
    const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || item.closest("svg, datalist, option")) continue;
    const both = [light(getComputedStyle(item).color), light(paper(item))];
    const [dark, bright] = both.sort((a, b) => a - b);
    if ((bright + 0.05) / (dark + 0.05) < 4.5) poor.push(item.outerHTML.slice(0, 80));
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(page: Page, link: str, scheme: Any) -> None:
    """Contrast is at least 4.5 by day and by night, and each control has a name."""
    page.emulate_media(color_scheme=scheme)
    page.goto(link)
    row = page.locator(".rows li a").last.get_attribute("href")
    base = page.url.removesuffix(PATH)
    for address in (page.url, f"{base}{PATH}/overview", f"{base}{row}"):
        page.goto(address)
        assert page.evaluate(CONTRASTS) == []
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.lang") == "en"
        for control in page.locator("input:not([type=hidden]), select").all():
            assert control.evaluate("item => item.labels.length") == 1


def test_a_phone_can_show_it(page: Page, link: str) -> None:
    """Nothing but tables and figures is wider than the screen."""
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(link)
    row = page.locator(".rows li a").last.get_attribute("href")
    base = page.url.removesuffix(PATH)
    for address in (page.url, f"{base}{PATH}/overview", f"{base}{row}"):
        page.goto(address)
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide)
