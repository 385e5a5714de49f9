"""What the tests of the review pages share: a journal that a real guard wrote, and its pages."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from guard.detectors.patterns import redact
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.engine import Guard
from guard.journal.store import Journal
from guard.security_class import JournalSettings
from guard.server.keys import hash_of
from guard.server.review.app import PATH, Review
from guard.server.review.labels import LabelFile
from guard.server.review.sessions import Keys, Sessions
from guard.server.scripted import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

KEY = "review-key-that-is-long-enough"
SECRET = "sk_" + "live_9fQ2mZ7xTb4LwR8vKc1YpD3n"
LEAK = f"Use api_key = '{SECRET}' for the test."
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202eevil\u202c \u200b\x1b[2J"


class Reader(HTMLParser):
    """Reads a page: what stands in each element of a class, every element, and forms."""

    def __init__(self, page: str) -> None:
        """Read `page`."""
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.open: list[str] = []
        self.boxes: list[str] = []
        self.marks: list[str] = []
        self.hidden: dict[str, str] = {}
        self._box = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "input" and given.get("type") == "hidden":
            self.hidden[str(given["name"])] = str(given["value"])
        if tag in {"meta", "link", "input"}:
            return
        self.open.append(tag)
        if tag == "div" and given.get("class") == "text":
            self.boxes.append("")
            self._box = len(self.open)
        if tag == "mark":
            self.marks.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element of a figure."""
        self.tags += [tag, *(name for name, _ in attrs if name.startswith("on"))]

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        if len(self.open) == self._box:
            self._box = 0
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if self._box:
            self.boxes[-1] += data
        if "mark" in self.open:
            self.marks[-1] += data


class Pages:
    """The pages of a journal in the hands of somebody.

    Attributes:
        client: asks for them and keeps cookies.
        now: what their clock says.
    """

    def __init__(self, url: str, clock: list[float], stack: ExitStack) -> None:
        """Ask at `url`."""
        self.client = stack.enter_context(httpx2.Client(base_url=url, timeout=60))
        self.origin = {"origin": url}
        self.now = clock

    def get(self, path: str = "", **changes: Any) -> httpx2.Response:
        """Return a page."""
        return self.client.get(f"{PATH}{path}", **changes)

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> httpx2.Response:
        """Send a form as a browser does, and go where it leads."""
        return self.client.post(
            f"{PATH}{path}", data=dict(fields), headers=self.origin | headers, follow_redirects=True
        )

    def sign_in(self, key: str = KEY) -> httpx2.Response:
        """Sign in."""
        return self.post("/sign-in", {"key": key})

    def say(self, page: httpx2.Response, what: str, **changes: str) -> httpx2.Response:
        """Press a button of a row's page."""
        return self.post("/label", Reader(page.text).hidden | {"say": what} | changes)

    def rows(self, query: str = "") -> list[str]:
        """Return the ids of the rows on a page."""
        found = re.findall(rf"{PATH}/row/([0-9a-f]{{32}})", self.get(query).text)
        return list(dict.fromkeys(found))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return an empty journal in a file."""
    opened = Journal(tmp_path / "journal.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def guard(make_pack_guard: Callable[..., Guard], journal: Journal) -> Guard:
    """Return a guard that writes to it and knows secrets, personal data and a few words."""
    return make_pack_guard(journal=journal)


@pytest.fixture
def guard_keeping(
    make_pack_guard: Callable[..., Guard], journal: Journal
) -> Callable[[str], Guard]:
    """Return the maker of guards that keep texts in another mode than `redacted`."""

    def make(mode: str) -> Guard:
        kept = JournalSettings.model_validate({"text": mode})
        usual = make_pack_guard().security_class
        limits = {name: usual.limits[name] for name in ("secret_leak", "pii_leak")}
        of_class = usual.model_copy(update={"journal": kept, "limits": limits})
        packs = (secret_detector(), personal_data_detector())
        return Guard(of_class, packs, journal=journal, redactor=partial(redact, detectors=packs))

    return make


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return where labels go."""
    return tmp_path / "labels.jsonl"


@pytest.fixture
def open_pages(journal: Journal) -> Iterator[Callable[..., Pages]]:
    """Serve pages on a real port; return a function that opens them."""
    with ExitStack() as stack:

        def start(labels: Path | None = None, *, signed_in: bool = True, **changes: Any) -> Pages:
            clock = [0.0]
            file = None if labels is None else LabelFile(labels)
            parts: dict[str, Any] = {"sessions": Sessions(lambda: clock[0]), **changes}
            door = parts.pop("door", Keys([hash_of(KEY)]))
            app = Review(parts.pop("journal", journal), file, door, **parts)
            pages = Pages(stack.enter_context(serve_in_thread(app)).url, clock, stack)
            if signed_in:
                pages.sign_in()
            return pages

        yield start
