"""The pages inside `guard serve`: beside the API, behind its bounds, with keys of their own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from guard.errors import ConfigurationError
from guard.server.configuration import load_settings
from guard.server.keys import hash_of
from guard.server.review.app import PATH
from guard.server.settings import ClientKey, ReviewPages
from tests.server.review.conftest import KEY, LEAK, Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from guard.journal.store import Journal
    from guard.server.guards import Judges
    from guard.server.scripted import ScriptedApp

CLIENT = "client-key-that-is-long-enough"
CHECK = "/v1/guard/check"


@pytest.fixture
def start(
    serve: Callable[..., httpx2.Client],
    make_judges: Callable[..., Judges],
    journal: Journal,
    labels: Path,
) -> Callable[..., httpx2.Client]:
    """Return a function that serves an app with pages of the journal that it writes."""

    def begin(**settings: object) -> httpx2.Client:
        given: dict[str, object] = {
            "review": ReviewPages(keys=(hash_of(KEY),), labels=labels),
            "keys": (ClientKey(name="shop", hash=hash_of(CLIENT)),),
            "journal": journal.location,
        }
        return serve(make_judges(journal=journal), **(given | settings))

    return begin


def sign_in(client: httpx2.Client, key: str = KEY) -> httpx2.Response:
    """Sign in to the pages."""
    origin = {"origin": str(client.base_url).rstrip("/")}
    return client.post(f"{PATH}/sign-in", data={"key": key}, headers=origin)


def bearer(key: str) -> dict[str, str]:
    """Return the header that a client's key stands in."""
    return {"authorization": f"Bearer {key}"}


def test_from_the_answer_to_the_label(start: Callable[..., httpx2.Client], labels: Path) -> None:
    """What the server held back is read and labelled on the same port."""
    client = start()
    answer = client.post(CHECK, json={"response": LEAK}, headers=bearer(CLIENT)).json()
    assert sign_in(client).status_code == 303
    assert answer["record"] in client.get(PATH).text
    page = client.get(f"{PATH}/row/{answer['record']}")
    origin = {"origin": str(client.base_url).rstrip("/")}
    fields = Reader(page.text).hidden | {"say": "right"}
    assert client.post(f"{PATH}/label", data=fields, headers=origin).status_code == 303
    assert answer["record"] in labels.read_text(encoding="utf-8")


def test_keys_are_good_for_their_own_side_alone(start: Callable[..., httpx2.Client]) -> None:
    """A client's key opens no page, a review key no endpoint, and neither does a cookie."""
    client = start()
    assert sign_in(client, CLIENT).status_code == 403
    for headers in (bearer(CLIENT), {"x-api-key": CLIENT}, bearer(KEY), {"x-guard-key": KEY}):
        assert client.get(PATH, headers=headers).status_code == 401
    assert client.post(CHECK, json={"response": "Hi."}, headers=bearer(KEY)).status_code == 401
    assert sign_in(client).status_code == 303
    assert client.get(PATH).status_code == 200
    assert client.post(CHECK, json={"response": "Hi."}).status_code == 401


def test_nothing_of_it_reaches_a_backend(
    start: Callable[..., httpx2.Client], backend: ScriptedApp
) -> None:
    """Whatever is asked for under the path, by whichever method, stays here."""
    client = start(upstream=backend.url, other_paths="pass", keys=())
    for path in (PATH, f"{PATH}/", f"{PATH}/x", f"{PATH}/row/1", "/guard/%72eview"):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = client.request(method, path)
            assert answer.status_code in {401, 403, 404, 405}
            assert answer.headers["content-type"].startswith("text/html")
    assert not backend.requests


def test_without_the_setting_there_is_no_such_path(
    start: Callable[..., httpx2.Client], backend: ScriptedApp
) -> None:
    """It is one of the paths that are not the server's own."""
    client = start(review=None)
    answer = client.get(PATH, headers=bearer(CLIENT))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert client.get(PATH).status_code == 401
    client = start(review=None, upstream=backend.url, other_paths="pass", keys=())
    client.get(PATH)
    assert [each.path for each in backend.requests] == [PATH]


def test_refusals_of_the_server_are_pages(start: Callable[..., httpx2.Client]) -> None:
    """Too many headers, too large a body, another site's page: told to people, not to SDKs."""
    client = start(max_headers=20, max_body_bytes=10_000, keys=())
    many = {f"x-{number}": "a" for number in range(30)}
    form = {"content-type": "application/x-www-form-urlencoded"}
    for answer, status in (
        (client.get(PATH, headers=many), 431),
        (client.post(f"{PATH}/sign-in", content=b"a" * 20_000, headers=form), 413),
        (client.get(PATH, headers={"host": "evil.example"}), 403),
        (client.get(PATH, headers={"origin": "https://evil.example"}), 403),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "<h1>" in answer.text
    assert client.get("/v1/x", headers=many).json()["error"]["code"] == "headers_too_large"


def test_requests_are_counted_by_their_page(start: Callable[..., httpx2.Client]) -> None:
    """Ids of rows are in no count."""
    client = start()
    client.get(f"{PATH}/row/{'a' * 32}")
    numbers = client.get("/metrics").text
    assert f'route="{PATH}/row/{{id}}",status="401"' in numbers
    assert "a" * 32 not in numbers


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files on this system")
def test_answers_are_journalled_while_pages_are_stuck(
    start: Callable[..., httpx2.Client], labels: Path
) -> None:
    """Pages have threads of their own, so that no number of slow ones keeps an answer waiting."""
    client = start()
    sign_in(client)
    # To open it waits for somebody who writes.
    os.mkfifo(labels)
    # More than the event loop has threads.
    many = 40
    with ThreadPoolExecutor(many) as pool:
        asked = [pool.submit(client.get, PATH, timeout=60) for _ in range(many)]
        try:
            while f"guard_in_flight {many}.0" not in client.get("/metrics").text:
                pass
            answer = client.post(CHECK, json={"response": LEAK}, headers=bearer(CLIENT))
        finally:
            stuck = labels.rename(labels.with_suffix(".stuck"))
            labels.touch()
            os.close(os.open(stuck, os.O_WRONLY))
        assert {each.result().status_code for each in asked} == {200}
    assert answer.status_code == 200


class TestSettings:
    """What `review` may say."""

    def read(self, tmp_path: Path, text: str) -> list[str]:
        """Return what is wrong with a settings file."""
        file = tmp_path / "guard.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            load_settings(file)
        return list(caught.value.problems)

    def test_a_client_may_not_have_a_review_key(self, tmp_path: Path) -> None:
        """The same hash under both is refused, and so is one that stands twice."""
        one = hash_of(KEY)
        (problem,) = self.read(
            tmp_path, f"keys: [{{name: a, hash: '{one}'}}]\nreview: {{keys: ['{one}']}}"
        )
        assert "is a client's key, too" in problem
        (problem,) = self.read(tmp_path, f"review: {{keys: ['{one}', '{one}']}}")
        assert "`review.keys[1]`: stands further up" in problem

    def test_there_must_be_something_to_read(self, tmp_path: Path) -> None:
        """And somebody who may."""
        one = hash_of(KEY)
        (problem,) = self.read(tmp_path, f"journal: none\nreview: {{keys: ['{one}']}}")
        assert "there would be nothing to read" in problem
        (problem,) = self.read(tmp_path, "review: {keys: []}")
        assert "review.keys" in problem
        (problem,) = self.read(tmp_path, f"review: {{keys: ['{one}'], label: x}}")
        assert "did you mean `labels`" in problem

    def test_a_key_in_the_place_of_its_hash_is_not_shown(self, tmp_path: Path) -> None:
        """The mend is named instead."""
        (problem,) = self.read(tmp_path, f"review: {{keys: [{KEY}]}}")
        assert "--hash-key" in problem
        assert KEY not in problem

    def test_labels_that_cannot_be_read_stop_the_start(
        self, start: Callable[..., httpx2.Client], labels: Path
    ) -> None:
        """Better than on the first page."""
        labels.write_text("{}\n", encoding="utf-8")
        with pytest.raises(Exception, match="has no `label`"):
            start()
