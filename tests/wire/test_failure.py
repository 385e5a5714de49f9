"""Bodies of responses that are no success: seen as they are, but for what is found in them."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.wire.failure import FailureBody
    from guard.wire.formats import Call

PAGE: Final = "<html><h1>502 Bad Gateway</h1>{}<p>Please try again.</p></html>"
SAID: Final = {"error": {"message": "No {} here.", "type": "invalid_request_error", "code": 7}}

forms = pytest.mark.parametrize("form", ["chat", "responses", "messages"])


@pytest.fixture(scope="session")
def judged(
    make_call: Callable[..., Call], make_guard: Callable[..., Guard]
) -> Callable[..., FailureBody]:
    """Return what judges the body of an error."""

    def judge(
        data: bytes, charset: str | None = None, form: str = "chat", **changes: Any
    ) -> FailureBody:
        guard = make_guard(**changes)
        body = make_call(guard, form).failure(data, charset)
        guard.driver.run(body.judge())
        return body

    return judge


def in_json(text: str, document: Any = SAID) -> bytes:
    """Return an error in JSON that says a text."""
    return json.dumps(document, indent=1).replace("{}", text).encode()


class TestPasses:
    """Where nothing is found, the bytes are those that came."""

    @pytest.mark.parametrize(
        ("data", "charset"),
        [
            (in_json("model"), None),
            (b'[{"error": {"message": "No."}}]', "utf-8"),
            (b'"No."', None),
            (b"429", None),
            (b"\xef\xbb\xbf{}", None),
            (PAGE.format("<!-- r\xc4y 8f2 &amp; -->").encode(), "UTF-8"),
            (PAGE.format("Störung").encode("latin-1"), "iso-8859-1"),
            (PAGE.format("“Störung”").encode("cp1252"), "windows-1252"),
            (b"upstream connect error", "us-ascii"),
            (b" \n", None),
        ],
    )
    def test_unchanged(
        self, judged: Callable[..., FailureBody], data: bytes, charset: str | None
    ) -> None:
        """JSON of any shape, pages and plain words; they are no exchange that anybody is told."""
        body = judged(data, charset)
        assert body.delivered() == data
        assert not body.replaced
        assert not body.session.finished

    def test_key_that_stands_twice(self, judged: Callable[..., FailureBody]) -> None:
        """Where readers differ in what they take, what was judged is written anew."""
        body = judged(b'{"a": "zblock", "a": "fine"}')
        assert body.delivered() == b'{"a":"fine"}'

    @given(st.binary(max_size=40), st.sampled_from([None, "utf-8", "latin-1", "utf-16", "no-such"]))
    def test_any_bytes(
        self, judged: Callable[..., FailureBody], data: bytes, charset: str | None
    ) -> None:
        """Whatever a body is, it is delivered as it came, or ours in its place."""
        body = judged(data, charset)
        assert (body.delivered() == data) != body.replaced


class TestFound:
    """What is found does not leave."""

    @forms
    @pytest.mark.parametrize(
        "data",
        [
            in_json("zblock"),
            in_json("model", {"error": {"failed_generation": "{} zblock"}}),
            in_json("model", {"zblock {}": 1}),
            b'[{"error": {"message": "zblock"}}]',
            rb'{"message": "z\u0062lock"}',
            rb'{"error": {"message": "z\u0062lock"}} and more',
            PAGE.format("zblock").encode(),
            PAGE.format("z&#98;lock").encode(),
            PAGE.format("zb<b>lo</b>ck").encode(),
            b"zblock",
        ],
    )
    def test_blocked(self, judged: Callable[..., FailureBody], form: str, data: bytes) -> None:
        """The vendor's error with the class's message takes its place, and it is told."""
        body = judged(data, form=form)
        document = json.loads(body.delivered())
        assert document["error"]["message"] == "[blocked]"
        assert document["guard"]["action"] == "block"
        assert body.replaced
        assert body.session.finished

    @pytest.mark.parametrize("data", [in_json("zredact"), PAGE.format("zredact").encode()])
    def test_redacted(self, judged: Callable[..., FailureBody], data: bytes) -> None:
        """An error's message and a page stay readable around what is redacted."""
        body = judged(data)
        changed = body.delivered().decode()
        whole = data.decode()
        if whole[:1] == "{":
            changed, whole = json.dumps(json.loads(changed)), json.dumps(json.loads(whole))
        assert changed == whole.replace("zredact", "[redacted: to redact]")
        assert not body.replaced

    def test_redacted_elsewhere(self, judged: Callable[..., FailureBody]) -> None:
        """Any other text must pass as it is."""
        body = judged(in_json("model", {"error": {"failed_generation": "zredact"}}))
        assert body.replaced
        assert b"zredact" not in body.delivered()

    def test_number(
        self, make_call: Callable[..., Call], make_pack_guard: Callable[..., Guard]
    ) -> None:
        """A card's number is one without quotes, too."""
        guard = make_pack_guard()
        body = make_call(guard, "chat").failure(b'{"input": 4111111111111111}', None)
        guard.driver.run(body.judge())
        assert b"4111" not in body.delivered()

    @pytest.mark.parametrize(
        ("data", "charset"),
        [
            ("zblock".encode("utf-16"), None),
            ("zblock".encode("utf-16-le"), None),
            ("zblock".encode("utf-16-le"), "utf-16-le"),
            (b"fine", "utf-16"),
            (b"fine", "utf-7"),
            (b"fine", "no-such-charset"),
            (b"\xff\xfe", None),
            (b"z\x1b(Bblock", None),
        ],
    )
    def test_unreadable(
        self, judged: Callable[..., FailureBody], data: bytes, charset: str | None
    ) -> None:
        """What readers may decode otherwise cannot be judged."""
        body = judged(data, charset)
        assert json.loads(body.delivered())["error"]["message"] == "[blocked]"
        assert judged(data, charset, shadow=True).delivered() == data

    def test_failing_detector(self, make_call: Callable[..., Call], make_guard: Any) -> None:
        """Where a detector fails, what it should have judged does not leave."""

        class Failing:
            """Fails."""

            name, version, categories = "failing", "1", ("to_block",)

            def __call__(self, passage: Any) -> Any:
                """Fail."""
                raise RuntimeError(passage)

        guard = make_guard(Failing(), limits={"to_block": {"act": 0.9, "remedy": "block"}})
        body = make_call(guard, "chat").failure(b"a secret", None)
        guard.driver.run(body.judge())
        assert b"secret" not in body.delivered()

    def test_journal(self, judged: Callable[..., FailureBody], tmp_path: Path) -> None:
        """What was found has a row, what is fine has none."""
        with closing(Journal(tmp_path / "journal.db")) as journal:
            for data in (b"fine", b"zflag", in_json("zblock")):
                judged(data, journal=journal)
            assert sorted(row.action for row in journal.list()) == ["block", "flag"]

    def test_shadow(self, judged: Callable[..., FailureBody]) -> None:
        """A class that only looks changes nothing."""
        body = judged(in_json("zblock"), shadow=True)
        assert body.delivered() == in_json("zblock")
        assert body.session.verdict().intended == "block"
