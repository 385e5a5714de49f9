"""The pages over HTTP: who may see them, what they show, and what a form does."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from guard import labelled
from guard.audit.lines import LineFile
from guard.journal.store import Journal
from guard.server.review.app import PAGE, PATH
from guard.server.review.sessions import SECONDS, Link
from guard.text.visible import plain
from tests.server.review.conftest import HOSTILE, KEY, LEAK, SECRET, Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.journal.record import Record
    from tests.server.review.conftest import Pages

    Open = Callable[..., Pages]

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
DENIED = (
    "default-src 'none'",
    "style-src 'self'",
    "img-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
)


@pytest.fixture
def row(guard: Guard, journal: Journal) -> Record:
    """Return the only row, of a leak."""
    guard.check(LEAK, prompt="How?")
    (found,) = journal.list()
    return found


@pytest.fixture
def keep(row: Record, journal: Journal) -> Callable[..., Record]:
    """Return a function that keeps rows like that, each a minute older than the one before."""
    ages = iter(range(1, 10_000))

    def one(**changes: Any) -> Record:
        age = next(ages)
        fresh: dict[str, Any] = {"id": f"{age:032x}", "created": NOON - timedelta(minutes=age)}
        made = replace(row, **(fresh | {"response": f"Row {age}."} | changes))
        journal.write(made)
        return made

    return one


class TestDoor:
    """Who may see the pages."""

    def test_nothing_is_shown_to_strangers(self, row: Record, open_pages: Open) -> None:
        """Every page asks for the key and says nothing of the journal."""
        pages = open_pages(signed_in=False)
        for path in ("", "/overview", f"/row/{row.id}", "/next"):
            answer = pages.get(path)
            assert answer.status_code == 401
            assert 'type="password"' in answer.text
            assert row.id not in answer.text
        assert pages.post("/label", {}).status_code == 403

    @pytest.mark.parametrize("key", ["", KEY[:-1], f"{KEY}x", "\ud800", "é" * 30])
    def test_a_wrong_key(self, open_pages: Open, key: str) -> None:
        """Signs nobody in, and is not shown again."""
        pages = open_pages(signed_in=False)
        answer = pages.sign_in(key.encode("utf-8", "replace").decode())
        assert answer.status_code == 403
        assert "no key for the review pages" in answer.text
        assert not key or key not in answer.text
        assert pages.get().status_code == 401

    def test_a_key_in_an_address_is_none(self, open_pages: Open) -> None:
        """It would stand in logs and in the history."""
        pages = open_pages(signed_in=False)
        assert pages.get("/sign-in", params={"key": KEY}).status_code == 200
        assert pages.get("/enter", params={"secret": KEY}).status_code == 404
        assert pages.get().status_code == 401

    def test_the_cookie_is_for_the_pages_alone(self, open_pages: Open) -> None:
        """No script reads it, no other site sends it, no other path gets it."""
        pages = open_pages(signed_in=False)
        answer = pages.client.post(f"{PATH}/sign-in", data={"key": KEY}, headers=pages.origin)
        assert answer.status_code == 303
        attributes = answer.headers["set-cookie"].split("; ")[1:]
        assert {"HttpOnly", "SameSite=strict", f"Path={PATH}"} <= set(attributes)
        assert "Secure" not in attributes

    def test_behind_https_the_cookie_is_secure(self, open_pages: Open) -> None:
        """The browser says by which scheme it reads the page."""
        pages = open_pages(signed_in=False)
        host = {"host": "pages.example", "origin": "https://pages.example"}
        answer = pages.client.post(f"{PATH}/sign-in", data={"key": KEY}, headers=host)
        assert "Secure" in answer.headers["set-cookie"].split("; ")

    def test_signing_out(self, open_pages: Open) -> None:
        """The cookie is of no use any more, even where it was kept."""
        pages = open_pages()
        cookies = dict(pages.client.cookies)
        token = Reader(pages.get().text).hidden["token"]
        assert "Signed out" in pages.post("/sign-out", {"token": token}).text
        pages.client.cookies.update(cookies)
        assert pages.get().status_code == 401

    def test_a_session_ends_by_itself(self, row: Record, open_pages: Open, labels: Path) -> None:
        """After hours one signs in anew, and a form that comes late changes nothing."""
        pages = open_pages(labels)
        page = pages.get(f"/row/{row.id}")
        pages.now[0] = SECONDS - 1
        assert pages.get().status_code == 200
        pages.now[0] = SECONDS
        late = pages.say(page, "right")
        assert late.status_code == 403
        assert "not signed in any more" in late.text
        assert not labels.exists()
        assert pages.get().status_code == 401

    def test_a_link_opens_once(self, open_pages: Open) -> None:
        """The address behind it holds no secret, and a second browser gets nothing."""
        link = Link()
        pages = open_pages(door=link, local=True, signed_in=False)
        secret = {"secret": link.secret}
        assert pages.get("/enter", params={"secret": "x"}).status_code == 403
        assert pages.client.head(f"{PATH}/enter", params=secret).status_code == 200
        answer = pages.get("/enter", params=secret)
        assert answer.status_code == 303
        assert answer.headers["location"] == PATH
        assert pages.get().status_code == 200
        assert pages.get("/enter", params=secret).headers["location"] == PATH
        pages.client.cookies.clear()
        again = pages.get("/enter", params=secret)
        assert again.status_code == 403
        assert "opens them once" in again.text
        assert pages.sign_in().status_code == 405

    def test_a_link_on_another_sites_page(self, open_pages: Open) -> None:
        """A browser that comes from there sends no cookie along a redirect, so a page leads on."""
        link = Link()
        pages = open_pages(door=link, local=True, signed_in=False)
        answer = pages.get(
            "/enter", params={"secret": link.secret}, headers={"sec-fetch-site": "cross-site"}
        )
        assert answer.status_code == 200
        assert f'content="0; url={PATH}"' in answer.text
        assert pages.get().status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
    def test_a_local_server_has_its_own_names_alone(self, open_pages: Open, host: str) -> None:
        """A site that gives this machine's address a name of its own gets nothing."""
        link = Link()
        pages = open_pages(door=link, local=True, signed_in=False)
        for path in ("", "/enter", "/style.css", "/sign-in"):
            answer = pages.get(path, params={"secret": link.secret}, headers={"host": host})
            assert answer.status_code == 421
        assert pages.get("/enter", params={"secret": link.secret}).status_code == 303


class TestForms:
    """What a form may do."""

    def test_of_another_sites_page(self, row: Record, open_pages: Open, labels: Path) -> None:
        """It is refused by its origin, whatever it holds."""
        pages = open_pages(labels)
        fields = Reader(pages.get(f"/row/{row.id}").text).hidden | {"say": "right"}
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": ""},
            {"origin": "http://["},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            answer = pages.post("/label", fields, **headers)
            assert answer.status_code == 403
            assert "another site" in answer.text
        for path in ("/sign-in", "/sign-out"):
            assert pages.post(path, fields, origin="https://evil.example").status_code == 403
        assert not labels.exists()

    def test_without_the_sessions_token(self, row: Record, open_pages: Open, labels: Path) -> None:
        """A form of another session, or of none, changes nothing."""
        pages = open_pages(labels)
        page = pages.get(f"/row/{row.id}")
        for token in ("", "x", "é", Reader(page.text).hidden["token"][:-1]):
            answer = pages.say(page, "right", token=token)
            assert answer.status_code == 403
            assert "not of your session" in answer.text
        assert not labels.exists()

    def test_that_is_none(self, open_pages: Open, labels: Path) -> None:
        """Too large, of another type, with too many fields."""
        pages = open_pages(labels)
        address, origin = f"{PATH}/label", pages.origin
        form = {"content-type": "application/x-www-form-urlencoded"} | origin
        send = pages.client.post
        assert send(address, json={}, headers=origin).status_code == 415
        assert send(address, content=b"a" * 20_000, headers=form).status_code == 413
        assert send(address, content=b"a=1&" * 100, headers=form).status_code == 400
        assert send(address, content=b"\xff\xfe", headers=form).status_code == 400

    def test_for_what_there_is_not(self, row: Record, open_pages: Open, labels: Path) -> None:
        """A flag that the row does not have, a word that is none, a row of nowhere."""
        pages = open_pages(labels)
        page = pages.get(f"/row/{row.id}")
        assert pages.say(page, "right", category="violence").status_code == 400
        assert pages.say(page, "maybe").status_code == 400
        assert pages.say(page, "right", row="f" * 32).status_code == 404
        assert pages.say(page, "right", row="").status_code == 404
        assert pages.say(page, "right", query="a=1&" * 100).status_code == 400
        changed = pages.say(page, "right", text="0" * 64)
        assert changed.status_code == 409
        assert "has changed since" in changed.text
        assert not labels.exists()

    def test_on_pages_to_read_alone(self, row: Record, open_pages: Open) -> None:
        """They say how to label, and refuse to."""
        pages = open_pages()
        page = pages.get(f"/row/{row.id}")
        assert "guard flagged review labels.jsonl" in page.text
        assert "<button name=" not in page.text
        assert pages.say(page, "right", row=row.id, category="secret_leak").status_code == 403


class TestPages:
    """What is shown."""

    def test_every_answer_is_closed(self, row: Record, open_pages: Open, labels: Path) -> None:
        """Pages, files, refusals: nothing runs, is kept, is framed or tells where one was."""
        pages = open_pages(labels)
        for path in ("", "/overview", f"/row/{row.id}", "/style.css", "/icon.svg", "/nowhere"):
            headers = pages.get(path).headers
            assert headers["content-security-policy"].split("; ") == list(DENIED)
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            text = pages.get(path).text
            assert "<script" not in text
            assert " style=" not in text
        assert pages.get("/nowhere").status_code == 404
        assert pages.client.get("/elsewhere").status_code == 404
        assert pages.client.put(PATH).status_code == 405

    def test_a_row(self, row: Record, open_pages: Open, labels: Path) -> None:
        """Facts, reasons, risks, findings with their spans, coverage and texts."""
        page = open_pages(labels).get(f"/row/{row.id}").text
        seen = Reader(page)
        assert seen.boxes == ["How?", row.response, row.outcome]
        assert seen.marks == ["[redacted: stripe_key]"]
        for part in (row.id, row.reasons[0].replace("'", "&#39;"), "stripe_key", "1 of 1 left"):
            assert part in page
        assert not seen.open

    def test_hostile_texts_stay_texts(
        self, guard: Guard, journal: Journal, open_pages: Open
    ) -> None:
        """Markup of a model, its user, or of metadata is never markup, and nothing hides."""
        guard.check(f"{HOSTILE} {LEAK}", prompt=HOSTILE)
        (row,) = journal.list()
        row = replace(
            row,
            model=HOSTILE,
            security_class=HOSTILE,
            metadata={HOSTILE: [HOSTILE]},
            reasons=(f"{HOSTILE}: live risk 1", *row.reasons),
            risks={HOSTILE: 1.0, **row.risks},
            findings=tuple({**each, "label": HOSTILE} for each in row.findings),
            detectors={HOSTILE: HOSTILE},
        )
        journal.update(row)
        pages = open_pages()
        for path in ("", "/overview", f"/row/{row.id}"):
            page = pages.get(path).text
            seen = Reader(page)
            assert not {"script", "img"} & set(seen.tags)
            assert not set("\u202e\u202c\u200b\x1b") & set(page)
            assert "&lt;script&gt;" in page
        assert seen.boxes[:2] == [plain(HOSTILE), plain(row.response or "")]

    def test_an_empty_journal(self, open_pages: Open, labels: Path) -> None:
        """Says that nothing was flagged yet."""
        pages = open_pages(labels)
        assert "Nothing has been flagged yet" in pages.get().text
        assert "0 rows" in pages.get("/overview").text
        assert "Nothing is left to label" in pages.get("/next", follow_redirects=True).text

    def test_pages_of_rows(self, keep: Callable[..., Record], open_pages: Open) -> None:
        """Each row stands on one page, the newest first, whatever was written meanwhile."""
        rows = [keep() for _ in range(2 * PAGE)]
        pages = open_pages()
        ids, query = [], ""
        while True:
            ids += pages.rows(query)
            found = re.search(rf'rel="next" href="{PATH}(\?[^"]+)"', pages.get(query).text)
            if found is None:
                break
            query = found[1].replace("&amp;", "&")
            keep(created=NOON + timedelta(days=1))
        assert ids[1:] == [each.id for each in rows]
        assert len(ids) == 2 * PAGE + 1

    @pytest.mark.parametrize(
        ("query", "number"),
        [
            ("action=block", 1),
            ("security_class=internal", 2),
            ("model=small", 3),
            ("model=(none)&action=flag", None),
            ("delivered=none", 4),
            ("shadow=yes", 5),
            ("category=violence", 6),
            ("category=violence&minimum=0.95", None),
            ("flagged=violence", 7),
            ("since=2025-06-01T11:50:30%2B00:00&until=2025-06-01T11:51:30%2B00:00", 9),
            ("until=2025-06-01T11:50:30%2B00:00", 10),
        ],
        ids=str,
    )
    def test_filters(
        self, keep: Callable[..., Record], open_pages: Open, query: str, number: int | None
    ) -> None:
        """Each alone finds its row, and the page says in its address what it shows."""
        kinds: list[dict[str, Any]] = [
            {"action": "block"},
            {"security_class": "internal"},
            {"model": "small"},
            {"delivered": "none"},
            {"shadow": True},
            {"risks": {"violence": 0.9}},
            {"reasons": ("violence: live risk 0.40 reached 0.35 (flag)",)},
        ]
        common: dict[str, Any] = {"action": "rewrite", "model": "m", "delivered": "part"}
        rows = [keep(**(common | kind)) for kind in [*kinds, {}, {}, {}]]
        pages = open_pages()
        found = pages.rows(f"?{query}")
        assert found == ([] if number is None else [rows[number - 1].id])
        if found:
            assert pages.get(f"/row/{found[0]}?{query}").status_code == 200

    @pytest.mark.parametrize(
        "query",
        [
            "action=x",
            "since=soon",
            "minimum=2",
            "minimum=x",
            "after=1",
            "delivered=all",
            "shadow=1",
        ],
    )
    def test_wrong_filters(self, open_pages: Open, query: str) -> None:
        """Say what they can be."""
        answer = open_pages().get(f"?{query}")
        assert answer.status_code == 400
        assert "This cannot be done" in answer.text

    def test_overview(self, keep: Callable[..., Record], open_pages: Open) -> None:
        """Counts by day, category, class and model lead to the rows that were counted."""
        keep(model="small", created=NOON - timedelta(days=3))
        keep(model="small", action="block", created=NOON)
        pages = open_pages()
        page = pages.get("/overview?model=small").text
        assert "2 rows" in page
        for day in ("2025-05-29", "2025-06-01"):
            assert day in page
        assert "from 2025-05-29 to 2025-06-01" in page
        assert f'href="{PATH}?flagged=secret_leak&amp;model=small"' in page
        assert len(pages.rows("?flagged=secret_leak&model=small")) == 2
        assert len(pages.rows("?flagged=secret_lea")) == 0


class TestLabelling:
    """Which flags were right."""

    def test_one_after_the_other(
        self, keep: Callable[..., Record], row: Record, open_pages: Open, labels: Path
    ) -> None:
        """The next unlabelled flag follows; copies are asked about once; a file is continued."""
        keep()
        keep(response="Row 1.")
        pages = open_pages(labels)
        page = pages.get("/next", follow_redirects=True)
        assert row.id in str(page.url)
        assert "2 of 2 left" in page.text
        page = pages.say(page, "right")
        assert f"{1:032x}" in str(page.url)
        assert "1 of 2 left" in page.text
        page = pages.say(page, "wrong")
        assert "Nothing is left to label" in page.text
        assert [dict(each.labels) for each in labelled.read(labels).rows] == [
            {"secret_leak": True},
            {"secret_leak": False},
        ]
        overview = open_pages(labels).get("/overview").text
        assert re.search(r"secret_leak</th>.*?>1</td>.*?>1</td>.*?50%.*?9% to 91%", overview)

    def test_taking_back(self, row: Record, open_pages: Open, labels: Path) -> None:
        """The row is asked about again."""
        pages = open_pages(labels)
        pages.say(pages.get(f"/row/{row.id}"), "right")
        page = pages.get(f"/row/{row.id}")
        assert "Labelled: right." in page.text
        assert "0 of 1 left" in page.text
        page = pages.say(page, "back")
        assert row.id in str(page.url)
        assert "1 of 1 left" in page.text
        assert "Labelled" not in page.text

    def test_unlabelled_only(
        self, keep: Callable[..., Record], row: Record, open_pages: Open, labels: Path
    ) -> None:
        """Rows whose flags are all labelled, and rows without any, are left out."""
        other = keep()
        keep(reasons=())
        keep(response="sha256:00", prompt=None)
        pages = open_pages(labels)
        assert pages.rows("?unlabelled=yes") == [row.id, other.id]
        pages.say(pages.get(f"/row/{row.id}"), "right")
        assert pages.rows("?unlabelled=yes") == [other.id]

    def test_many_unlabelled_rows(
        self, keep: Callable[..., Record], open_pages: Open, labels: Path
    ) -> None:
        """They come in pages, too."""
        rows = [keep() for _ in range(PAGE + 1)]
        pages = open_pages(labels)
        first = pages.get("?unlabelled=yes").text
        query = re.search(rf'rel="next" href="{PATH}(\?[^"]+)"', first)
        assert query
        assert rows[-1].id in pages.rows(query[1].replace("&amp;", "&"))

    def test_a_filter_stays(
        self, keep: Callable[..., Record], row: Record, open_pages: Open, labels: Path
    ) -> None:
        """The next flag is one of the same filter, and only its category is asked for."""
        rude = "harassment: live risk 0.62 reached 0.35 (excise)"
        keep(action="block")
        wanted = keep(action="block", reasons=(rude, *row.reasons))
        pages = open_pages(labels)
        page = pages.get("/next?action=block&flagged=harassment", follow_redirects=True)
        assert wanted.id in str(page.url)
        assert "1 of 1 left" in page.text
        page = pages.say(page, "wrong", category="harassment")
        assert "action=block" in str(page.url)
        assert "Nothing is left to label with these filters" in page.text

    def test_a_category_of_ones_own(
        self, keep: Callable[..., Record], open_pages: Open, labels: Path
    ) -> None:
        """Has no buttons, and says what to do instead."""
        own = keep(reasons=("pricing: live risk 0.54 reached 0.50 (replace)",))
        page = open_pages(labels).get(f"/row/{own.id}").text
        assert "It is a category of your own" in page
        assert "<button name=" not in page

    def test_what_is_not_kept_cannot_be_labelled(
        self,
        guard_keeping: Callable[[str], Guard],
        journal: Journal,
        open_pages: Open,
        labels: Path,
    ) -> None:
        """Nobody could say whether a hash leaks a key."""
        guard_keeping("omitted").check(LEAK)
        (row,) = journal.list()
        page = open_pages(labels).get(f"/row/{row.id}").text
        assert "keeps no text to read" in page
        assert page.count("(not kept)") == 3


class TestTrouble:
    """What goes wrong is told on a page."""

    def test_a_row_that_was_deleted_meanwhile(
        self, row: Record, journal: Journal, open_pages: Open, labels: Path
    ) -> None:
        """Its label is kept nowhere."""
        pages = open_pages(labels)
        page = pages.get(f"/row/{row.id}")
        list(journal.purge())
        for answer in (pages.say(page, "right"), pages.get(f"/row/{row.id}")):
            assert answer.status_code == 404
            assert "not there any more" in answer.text
        assert not labels.exists()

    def test_a_journal_that_cannot_be_read(
        self, row: Record, tmp_path: Path, open_pages: Open
    ) -> None:
        """Its message says how to mend that."""
        reading = Journal(tmp_path / "journal.sqlite3", reading=True)
        pages = open_pages(journal=reading)
        for file in tmp_path.glob("journal.sqlite3*"):
            file.unlink()
        for path in ("", "/overview", f"/row/{row.id}"):
            answer = pages.get(path)
            assert answer.status_code == 503
            assert "The journal cannot be read" in answer.text
            assert "was removed or replaced" in answer.text
        reading.close()

    def test_a_file_of_labels_that_is_open_elsewhere(
        self, row: Record, open_pages: Open, labels: Path
    ) -> None:
        """As long as somebody labels in a terminal; then it works."""
        pages = open_pages(labels)
        page = pages.get(f"/row/{row.id}")
        with LineFile(labels, None):
            answer = pages.say(page, "right")
            assert answer.status_code == 503
            assert "The label was not kept" in answer.text
            assert "another process has" in answer.text
        assert pages.say(page, "right").status_code == 200
        assert len(labelled.read(labels).rows) == 1

    def test_a_file_of_labels_that_is_none(self, open_pages: Open, labels: Path) -> None:
        """It names the line."""
        pages = open_pages(labels)
        labels.write_text("{}\n", encoding="utf-8")
        answer = pages.get()
        assert answer.status_code == 400
        assert "labels.jsonl:1:" in answer.text

    def test_a_fault_of_ours(self, row: Record, journal: Journal, open_pages: Open) -> None:
        """It is logged without any text, and a page says so."""
        journal.update(replace(row, coverage={"judged": 3}))
        answer = open_pages().get(f"/row/{row.id}")
        assert answer.status_code == 500
        assert "Something went wrong here" in answer.text

    def test_a_large_text(self, guard: Guard, journal: Journal, open_pages: Open) -> None:
        """It is shown whole up to a bound, and the page says that it goes on."""
        guard.check(f"{LEAK} " * 2000, prompt="How?")
        (row,) = journal.list()
        page = open_pages().get(f"/row/{row.id}").text
        seen = Reader(page)
        assert seen.boxes[1] == row.response
        assert len(seen.marks) == 2000
        journal.update(replace(row, response="<" * 300_000))
        page = open_pages().get(f"/row/{row.id}").text
        assert len(Reader(page).boxes[1]) == 200_000
        assert "Only the first 200,000 of 300,000 characters" in page


def test_no_secret_is_logged(
    row: Record, open_pages: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither key, nor cookie, nor token, nor text."""
    caplog.set_level("DEBUG")
    pages = open_pages()
    pages.sign_in("another-key-that-is-wrong")
    page = pages.get(f"/row/{row.id}")
    secrets = [KEY, "another-key", *pages.client.cookies.values(), SECRET]
    secrets.append(Reader(page.text).hidden["token"])
    logged = "".join(
        each.getMessage() for each in caplog.records if each.name.startswith(("guard", "uvicorn"))
    )
    assert "guard.review_refused" in logged
    assert not [each for each in secrets if each in logged]
