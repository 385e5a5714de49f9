"""One answer of an application's own on its way through the guard, without a server."""

from __future__ import annotations

import json
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path
from structlog.testing import capture_logs

from guard.adapters.web import Answer, Desk, Fields, Text, Wire
from guard.errors import ConfigurationError, InputError
from guard.journal.store import Journal
from tests.adapters.web.bodies import FINE, KINDS, OWN, PROMPT, request_of, said_through, through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.adapters.web import Form
    from guard.engine import Guard
    from tests.adapters.web.bodies import Kind

    Make = Callable[..., Guard]

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

LONG = FINE * 4

SAID = [FINE, "They zblock. ", "They zredact well. ", "zreplace! ", "naïve 🌿 ", "\n"]

WORDS = st.lists(
    st.sampled_from(SAID),
    min_size=1,
    max_size=8,
)


BYTES = [b"Ferns. ", b"\xff", b"\xf0\x9f", "🌿".encode(), b"zblock"]


UTF_16 = '{"answer": "Fine."}'.encode("utf-16-le")


def cuts(body: bytes, places: list[int]) -> list[bytes]:
    """Return a body cut at places."""
    ends = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(ends)]


@pytest.fixture
def logs() -> Iterator[Any]:
    """Return what is logged."""
    with capture_logs() as entries:
        yield entries


class TestAnswers:
    """What leaves of an answer."""

    @kinds
    def test_benign(self, make_guard: Make, kind: Kind) -> None:
        """It is the same, byte for byte; a whole one keeps its headers."""
        answer = said_through(make_guard(), kind, LONG)
        assert answer.body == b"".join(kind.pieces(LONG))
        assert answer.status == 200
        assert answer.headers["content-type"] == kind.kind
        if kind.whole:
            assert answer.headers["content-length"] == str(len(answer.body))

    @kinds
    @pytest.mark.parametrize(("word", "told"), [("block", "[blocked]"), ("replace", "[replaced]")])
    def test_withheld(self, make_guard: Make, kind: Kind, word: str, told: str) -> None:
        """The message stands in the place of what is withheld, with the right length."""
        answer = said_through(make_guard(), kind, f"{LONG}They z{word} well. {LONG}")
        assert told.encode() in answer.body
        assert b"zbloc" not in answer.body
        assert b"zrepl" not in answer.body
        assert answer.headers.get("content-length", str(len(answer.body))) == str(len(answer.body))

    @kinds
    def test_rewritten(self, make_guard: Make, kind: Kind) -> None:
        """What is taken out is read nowhere, and the rest is."""
        answer = said_through(make_guard(), kind, f"{LONG}They zredact well. {LONG}")
        assert b"zreda" not in answer.body
        assert b"to redact" in answer.body
        assert b"[blocked]" not in answer.body
        assert answer.headers.get("content-length", str(len(answer.body))) == str(len(answer.body))

    @kinds
    def test_shadow(self, make_guard: Make, kind: Kind) -> None:
        """In shadow everything leaves as it is."""
        text = f"{LONG}They zblock. {LONG}"
        answer = said_through(make_guard(shadow=True), kind, text)
        assert answer.body == b"".join(kind.pieces(text))

    @kinds
    def test_a_stream_leaves_while_more_is_coming(self, make_guard: Make, kind: Kind) -> None:
        """What was judged does not wait for the end; a whole body does."""
        assert (len(said_through(make_guard(), kind, LONG * 4).pieces) > 1) is not kind.whole

    @kinds
    def test_headers_of_the_bytes(self, make_guard: Make, kind: Kind) -> None:
        """What says what the bytes were goes where they change, everything else stays."""
        of_bytes = [("ETag", '"a1"'), ("Content-MD5", "x"), ("Accept-Ranges", "bytes")]
        headers = [*kind.headers, *of_bytes, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        headers += [("Content-Length", "999")] if kind.whole else []
        guard, request = make_guard(), request_of(kind.asked)
        for text, changed in ((LONG, not kind.whole), (f"{LONG}zblock", True)):
            answer = through(guard, kind.form, headers, kind.pieces(text), request=request)
            assert ("etag" in answer.headers) is not changed
            assert ("content-md5" in answer.headers) is not changed
            assert ("accept-ranges" in answer.headers) is not changed
            assert answer.headers["set-cookie"] == "b=2"

    @given(
        kind=st.sampled_from(list(OWN.values())),
        words=WORDS,
        places=st.lists(st.integers(0, 5000), max_size=12),
    )
    def test_cutting(
        self, make_guard: Make, kind: Kind, words: list[str], places: list[int]
    ) -> None:
        """However a body's bytes are cut, the same ones leave."""
        guard, body = make_guard(), b"".join(kind.pieces("".join(words)))
        with capture_logs():
            whole = through(guard, kind.form, kind.headers, [body], limit=600)
            parts = through(guard, kind.form, kind.headers, cuts(body, places), limit=600)
        assert whole.body == parts.body
        assert b"zblock" not in whole.body

    @given(
        data=st.lists(
            st.sampled_from([b"Ferns. ", b"\xff", b"\xf0\x9f", "🌿".encode(), b"zblock"])
        ),
        places=st.lists(st.integers(0, 99), max_size=6),
    )
    def test_cutting_of_bytes_that_are_no_text(
        self, make_guard: Make, data: list[bytes], places: list[int]
    ) -> None:
        """A plain text ends with the first byte that is none, however it is cut."""
        guard, body = make_guard(), b"".join(data)
        stream = [("content-type", "text/plain")]
        with capture_logs():
            whole = through(guard, Text(), stream, [body] if body else [])
            parts = through(guard, Text(), stream, cuts(body, places))
        assert whole.body == parts.body
        whole.body.decode()
        assert b"zblock" not in whole.body


class TestOwnFields:
    """JSON of the application's own."""

    def json_through(self, guard: Guard, form: Form, document: Any) -> Any:
        """Return what leaves of a document."""
        data = json.dumps(document).encode()
        return json.loads(through(guard, form, [("content-type", "application/json")], [data]).body)

    @pytest.mark.parametrize(
        "document",
        [
            {"answer": "Fine.", "sources": [{"title": "They zblock"}]},
            {"answer": "Fine.", "deep": {"a": [{"b": "zblock well"}]}},
            {"answer": "Fine.", "they zblock": 1},
            {"answer": ["they zblock"]},
            {"answer": {"text": "they zblock"}},
            {"note": "zblock"},
        ],
    )
    def test_other_strings_are_judged(self, make_guard: Make, document: Any) -> None:
        """What stands elsewhere must pass, too, keys included."""
        told = self.json_through(make_guard(), Fields("answer"), document)
        assert told["answer"] == "[blocked]"
        assert "zbloc" not in json.dumps(told)

    def test_paths(self, make_guard: Make) -> None:
        """A path leads through objects and lists; what is not withheld stays in its place."""
        form = Fields("parts.*.text", "meta.title")
        document = {
            "parts": [{"text": FINE}, {"text": f"{FINE}They zredact. "}],
            "meta": {"title": "Shade", "n": 2},
        }
        told = self.json_through(make_guard(), form, document)
        assert told["parts"][0] == {"text": FINE}
        assert told["parts"][1]["text"] == f"{FINE}They [redacted: to redact]. "
        assert told["meta"] == {"title": "Shade", "n": 2}

    def test_a_block_across_two_fields(self, make_guard: Make) -> None:
        """A word that begins in one text and ends in the next is found: readers join them."""
        told = self.json_through(make_guard(), Fields("a.*"), {"a": ["They zbl", "ock well."]})
        assert told["a"] == ["[blocked]"]

    def test_what_stays(self, make_guard: Make) -> None:
        """Numbers and identifiers stay where the text is withheld, so that clients find them."""
        document = {"id": "c7", "tokens": 9, "answer": "zblock", "note": "a note", "ok": True}
        told = self.json_through(make_guard(), Fields("answer"), document)
        assert {key: told[key] for key in ("id", "tokens", "ok", "answer")} == {
            "id": "c7",
            "tokens": 9,
            "ok": True,
            "answer": "[blocked]",
        }
        assert "note" not in told
        assert told["guard"]["action"] == "block"

    def test_a_key_twice(self, make_guard: Make) -> None:
        """Where a key stands twice, readers differ: only what was judged leaves."""
        data = b'{"answer": "They zblock.", "answer": "Fine."}'
        answer = through(
            make_guard(), Fields("answer"), [("content-type", "application/json")], [data]
        )
        assert json.loads(answer.body) == {"answer": "Fine."}
        assert b"zbloc" not in answer.body

    def test_a_stream_that_is_withheld_says_so_in_its_own_way(self, make_guard: Make) -> None:
        """The message is an event like those before it, under the same name."""
        pieces = [
            b'event: token\r\ndata: {"type": "text", "id": "0", "delta": "They zblock."}\r\n\r\n',
            b'event: end\r\ndata: {"type": "finish"}\r\n\r\n',
        ]
        answer = through(
            make_guard(), Fields("delta"), [("content-type", "text/event-stream")], pieces
        )
        event, data, *_ = answer.body.decode().split("\n")
        assert event == "event: token"
        said = json.loads(data.removeprefix("data: "))
        assert (said["type"], said["id"], said["delta"]) == ("text", "0", "[blocked]")
        assert b"finish" not in answer.body

    def test_names_of_events(self, make_guard: Make) -> None:
        """An event keeps a name that says nothing, and loses any other."""
        pieces = [
            b'event: token\ndata: {"delta": "Fine."}\n\n',
            b'event: they zblock\ndata: {"delta": " Yes."}\n\n',
        ]
        answer = through(
            make_guard(), Fields("delta"), [("content-type", "text/event-stream")], pieces
        )
        assert answer.body == pieces[0] + b'data: {"delta": " Yes."}\n\n'

    def test_a_last_line_without_its_end(self, make_guard: Make) -> None:
        """It is judged like any other, and so is white space within lines."""
        pieces = [b'{"a": "%s"}\r\n\r\n{"a":\r"They ' % LONG.encode(), b'zblock."}']
        answer = through(
            make_guard(), Fields("a"), [("content-type", "application/x-ndjson")], pieces
        )
        first, last, end = answer.body.split(b"\n")
        assert json.loads(first) == {"a": LONG}
        assert json.loads(last)["a"] == "\n\n[blocked]"
        assert end == b""

    @pytest.mark.parametrize("line", [b"no JSON zblock", b"[1]", b'"zblock"', b'{"a": "x"'])
    @pytest.mark.parametrize("kind", ["text/event-stream", "application/jsonl"])
    def test_events_that_are_no_objects(self, make_guard: Make, line: bytes, kind: str) -> None:
        """A stream ends there, with the class's message, behind what was judged."""
        frame = b"data: %s\n\n" if kind == "text/event-stream" else b"%s\n"
        pieces = [frame % b'{"a": "Fine."}', frame % line, frame % b'{"a": "More."}']
        answer = through(make_guard(), Fields("a"), [("content-type", kind)], pieces)
        assert b"[blocked]" in answer.body
        assert b"zbloc" not in answer.body
        assert b"More" not in answer.body


class TestUnguardable:
    """Answers that nobody can judge."""

    CASES: tuple[tuple[list[tuple[str, str]], int], ...] = (
        ([("content-type", "text/html")], 200),
        ([], 200),
        ([("content-type", "application/octet-stream")], 200),
        ([("content-type", "application/json"), ("content-encoding", "gzip")], 200),
        ([("content-type", "application/json"), ("Content-Encoding", "identity, br")], 200),
        ([("content-type", "application/json"), ("content-type", "text/html")], 200),
        ([("content-type", "application/json; charset=utf-16")], 200),
        ([("content-type", "application/json"), ("content-range", "bytes 0-9/99")], 206),
        ([("content-type", "text/html")], 500),
        ([("content-type", "text/html"), ("location", "/elsewhere")], 302),
    )

    @kinds
    @pytest.mark.parametrize(("headers", "status"), CASES)
    def test_replaced(
        self, make_guard: Make, kind: Kind, headers: Any, status: int, logs: Any
    ) -> None:
        """The class's message stands in its place, the log says why, the status stays."""
        answer = through(
            make_guard(),
            kind.form,
            headers,
            [b'{"answer": "Ferns."}', b" zblock"],
            status=status,
            request=request_of(kind.asked),
        )
        assert b"[blocked]" in answer.body
        assert b"Ferns" not in answer.body
        assert answer.status == (200 if status == 206 else status)
        assert "content-encoding" not in answer.headers
        assert "content-range" not in answer.headers
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers.get("location") == ("/elsewhere" if status == 302 else None)
        assert [entry["event"] for entry in logs] == ["guard.unguardable"]
        assert logs[0]["path"] == "/"

    @kinds
    def test_the_message_has_the_form_asked_for(self, make_guard: Make, kind: Kind) -> None:
        """A reader of events is told by an event."""
        wants = {} if isinstance(kind.form, Wire) else {"accept": kind.kind.partition(";")[0]}
        answer = through(
            make_guard(),
            kind.form,
            [("content-type", "text/html")],
            [b"<p>"],
            request=request_of(kind.asked, **wants),
        )
        assert answer.headers["content-type"].split(";")[0] == kind.kind.split(";")[0]

    def test_a_stream_is_asked_for_in_the_body(self, make_guard: Make) -> None:
        """As with the vendors, `stream` in the request's JSON asks for events."""
        answer = through(
            make_guard(),
            Fields("delta"),
            [("content-type", "text/html")],
            [b"<p>"],
            request=request_of({"stream": True}),
        )
        assert answer.headers["content-type"] == "text/event-stream"
        assert json.loads(answer.body.removeprefix(b"data: "))["delta"] == "[blocked]"

    @pytest.mark.parametrize("status", [200, 201, 302, 404, 500])
    def test_an_empty_body_passes(self, make_guard: Make, status: int, logs: Any) -> None:
        """There is nothing in it, whatever its headers say."""
        headers = [("content-type", "text/html"), ("content-length", "0"), ("etag", "x")]
        answer = through(make_guard(), Text(), headers, [b""], status=status)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers == dict(headers)
        assert logs == []

    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
    def test_no_body(self, make_guard: Make, method: str, status: int) -> None:
        """Where there is no body, none is sent, and the headers stay."""
        headers = [("content-type", "application/json"), ("content-length", "99"), ("etag", "x")]
        request = request_of(method=method)
        pieces = [b'{"answer": "zblock"}']
        answer = through(
            make_guard(), Fields("answer"), headers, pieces, status=status, request=request
        )
        assert (answer.status, answer.body, answer.headers) == (status, b"", dict(headers))

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("application/json", {"detail": [{"msg": "They zblock", "input": "x"}]}),
            ("application/problem+json", {"title": "zblock it"}),
            ("text/plain", "They zblock"),
        ],
    )
    @pytest.mark.parametrize("status", [400, 500])
    def test_errors_are_judged(self, make_guard: Make, kind: str, body: Any, status: int) -> None:
        """An error may quote what must not leave; one that does not passes."""
        for said, passes in ((body, False), ("Not so." if kind == "text/plain" else {}, True)):
            data = (said if isinstance(said, str) else json.dumps(said)).encode()
            answer = through(
                make_guard(), Fields("answer"), [("content-type", kind)], [data], status=status
            )
            assert answer.status == status
            assert (answer.body == data) is passes
            assert (b"[blocked]" in answer.body) is not passes

    def test_options(self, make_guard: Make, logs: Any) -> None:
        """What answers a preflight is text that passes, whatever the route says."""
        request = request_of(method="OPTIONS")
        answer = through(
            make_guard(), Fields("a"), [("content-type", "text/plain")], [b"OK"], request=request
        )
        assert (answer.body, logs) == (b"OK", [])

    @pytest.mark.parametrize("body", [b"[1]", b"zblock", b'{"answer":', b'"x"', b"\xff{", UTF_16])
    def test_no_object(self, make_guard: Make, body: bytes, logs: Any) -> None:
        """JSON that is no object is replaced."""
        answer = through(
            make_guard(), Fields("answer"), [("content-type", "application/json")], [body]
        )
        assert json.loads(answer.body)["answer"] == "[blocked]"
        assert [entry["event"] for entry in logs] == ["guard.unguardable"]

    @kinds
    def test_too_large(self, make_guard: Make, kind: Kind, logs: Any) -> None:
        """A body over the limit is replaced, or a stream broken off."""
        text = FINE * 40 + "They zflag well. "
        pieces = kind.pieces(text)
        answer = through(
            make_guard(), kind.form, kind.headers, pieces, request=request_of(kind.asked), limit=900
        )
        assert len(answer.body) < 2500
        assert b"zflag" not in answer.body
        told = b"more than 900 bytes" if isinstance(kind.form, Wire) and not kind.whole else b"[blo"
        assert told in answer.body
        assert logs[0]["event"] == "guard.unguardable"
        assert logs[0]["why"] == "more than 900 bytes"

    @kinds
    def test_shadow(self, make_guard: Make, kind: Kind, logs: Any) -> None:
        """In shadow nothing is replaced, and the log still says why it would be."""
        guard, pieces = make_guard(shadow=True), kind.pieces(LONG)
        request = request_of(kind.asked)
        packed = [("content-type", "text/html"), ("content-encoding", "gzip"), ("etag", "x")]
        for headers, limit in ((packed, 10_000), (kind.headers, 300)):
            answer = through(guard, kind.form, headers, pieces, request=request, limit=limit)
            assert answer.body == b"".join(pieces)
        assert {entry["event"] for entry in logs} == {"guard.unguardable"}


class TestRecords:
    """What the journal and the application are told."""

    @kinds
    def test_an_answer_that_is_broken_off(
        self, make_guard: Make, tmp_path: Path, kind: Kind
    ) -> None:
        """The row says how much had left, and what was held back is not released."""
        journal = Journal(tmp_path / "journal.db")
        guard = make_guard(journal=journal)
        desk = Desk(guard, {"/": kind.form})
        route = desk.route("POST", "/")
        assert route is not None
        answer = Answer(desk, route, request_of(kind.asked))
        answer.begin(200, kind.headers)
        left, pieces = "", kind.pieces(f"They zflag. {LONG}{LONG}")
        for piece in pieces[: len(pieces) * 3 // 4]:
            steps = answer.feed(piece)
            while (text := guard.driver.advance(steps)) is not None:
                left += text
        guard.driver.run(answer.abandon())
        rows = list(journal.list())
        journal.close()
        if kind.whole:
            assert (left, rows) == ("", [])
            return
        assert "zflag" in left
        assert not rows[0].complete
        assert 0 < rows[0].released < len(f"They zflag. {LONG}{LONG}")
        assert rows[0].prompt == PROMPT

    @kinds
    def test_verdicts(self, make_guard: Make, kind: Kind) -> None:
        """Each answer that was seen to its end has one verdict, and the prompt is known."""
        verdicts: list[Any] = []
        for text in (LONG, f"{LONG} zblock"):
            said_through(make_guard(), kind, text, on_verdict=verdicts.append)
        assert [verdict.action for verdict in verdicts] == ["allow", "block"]

    @pytest.mark.parametrize(
        "request_given",
        [
            {"document": {"q": {"text": PROMPT}}},
            {"document": {"q": {"text": [{"content": PROMPT}]}}},
            {"method": "GET", "query": "q.text=What+grows+in+the+shade%3F"},
        ],
    )
    def test_prompts(self, make_guard: Make, request_given: Any) -> None:
        """A prompt is found in JSON, whatever its shape, and in the query."""
        form = Fields("answer", prompt="q.text")
        assert form.asked(request_of(**request_given)).exchange.prompt == PROMPT
        del make_guard

    @pytest.mark.parametrize("body", [b"", b"no JSON", b'{"q": "a", "q": "b"}', b'{"other": "x"}'])
    def test_no_prompt(self, make_guard: Make, body: bytes, logs: Any) -> None:
        """Where the class judges prompts, a request without one is not passed on."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        desk = Desk(guard, {"/": Text(prompt="q")})
        route = desk.route("POST", "/")
        assert route is not None
        for method, asks in (("POST", True), ("GET", False), ("OPTIONS", False)):
            answer = Answer(desk, route, request_of(method=method, body=body))
            assert answer.judges_input is asks
            assert answer.unheard()
        assert logs[0]["why"] == "no prompt in the request"

    @pytest.mark.parametrize(
        "body",
        [
            b'{"messages": [{"content": "a"}], "Messages": [{"content": "b"}]}',
            b'{"messages": [{"content": "a", "Content": "b"}]}',
            b'{"messages": [{"content": "a"}], "messages": [{"content": "b"}]}',
            '{"messages": [{"content": "a"}]}'.encode("utf-16"),
        ],
    )
    def test_no_one_prompt(self, make_guard: Make, body: bytes) -> None:
        """Where applications may read another prompt in a vendor's format, none counts as heard."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        desk = Desk(guard, {"/": Wire("chat")})
        route = desk.route("POST", "/")
        assert route is not None
        assert Answer(desk, route, request_of(body=body)).unheard()


STARLETTE: Final = (
    *("/", "/a", "/a/", "/a/7", "/a//7", "/{x}", "/a/{x}", "/a/{x}/", "/{x}/7", "/{x:path}"),
    *("/a/{x:path}", "/{x:path}/a", "/a/{x:path}/7", "/a/{x:int}", "/{x:float}"),
    *("/a{x}", "/a{x:path}"),
)
"""Routes as Starlette has them."""

PIECES: Final = ("/", "//", "a", "7", "\n", "%")
"""What paths are made of."""


class TestRoutes:
    """Which paths are guarded."""

    @pytest.mark.parametrize(
        ("route", "method", "path", "guarded"),
        [
            ("/chat", "POST", "/chat", True),
            ("/chat", "GET", "/chat/", True),
            ("/chat", "GET", "//chat", True),
            ("/chat/", "GET", "/chat", True),
            ("/chat", "GET", "/chats", False),
            ("/chat", "GET", "/a/chat", False),
            ("/", "GET", "/", True),
            ("/", "GET", "", True),
            ("/a.b", "GET", "/aXb", False),
            ("/c/{id}/say", "GET", "/c/7/say", True),
            ("/c/{id}/say", "GET", "/c/7/8/say", False),
            ("/c/{rest:path}", "GET", "/c/7/8/say", True),
            ("/{rest:path}", "GET", "/anything\nat all", True),
            ("POST /chat", "POST", "/chat", True),
            ("POST /chat", "GET", "/chat", False),
            ("POST /chat", "post", "/chat", True),
            ("GET /chat", "HEAD", "/chat", True),
            ("/chat", "GET", "/chat\n", True),
            ("/chat/", "GET", "/chat/\n", True),
            ("/chat", "GET", "//chat\n", True),
            ("/chat", "GET", "/chat\nter", False),
            ("/a//b", "GET", "/a//b", True),
            ("/c/{id}", "GET", "/c/\n", True),
            ("/c/{id:int}", "GET", "/c/7", True),
            ("/c/{rest:path}", "GET", "/c/", True),
            ("/c/{rest:path}/say", "GET", "/c//say", True),
        ],
    )
    def test_paths(
        self,
        make_guard: Make,
        route: str,
        method: str,
        path: str,
        guarded: bool,  # noqa: FBT001  # a parameter of the table above
    ) -> None:
        """A path is guarded as the routes say, whatever slashes are in it."""
        desk = Desk(make_guard(), {route: Text()})
        assert (desk.route(method, path) is not None) is guarded

    def test_what_is_wrong(self, make_guard: Make) -> None:
        """All that is wrong with the routes is said at once."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        routes: Any = {"chat": Text(prompt="m"), "/a": Text, "/b": Text(), "/c": Wire("chat")}
        with pytest.raises(ConfigurationError) as raised:
            Desk(guard, routes)
        assert len(raised.value.problems) == 3
        with pytest.raises(ConfigurationError, match="GuardASGI"):
            Desk(guard, {})

    @pytest.mark.parametrize("path", ["/c/<id>", "/c/<int:id>", "/c/{id:slug}", "/c/{i-d}", "/c/{"])
    def test_parameters_that_nobody_knows(self, make_guard: Make, path: str) -> None:
        """A route that no request would ever match is refused."""
        with pytest.raises(ConfigurationError, match="parameter"):
            Desk(make_guard(), {path: Text()})

    def test_whatever_starlette_serves(self, make_guard: Make) -> None:
        """Each path that Starlette's own expression matches is guarded."""
        served = 0
        paths = ["".join(made) for made in product(("", *PIECES), repeat=5)]
        for route in STARLETTE:
            desk, expression = Desk(make_guard(), {route: Text()}), compile_path(route)[0]
            for path in filter(expression.match, paths):
                served += 1
                assert desk.route("GET", path) is not None, (route, path)
        assert served > 1000

    @pytest.mark.parametrize("name", ["", "a..b", "*.text", "0", ".a"])
    def test_paths_of_fields(self, name: str) -> None:
        """A name that is no path is refused."""
        with pytest.raises(InputError, match="is no path"):
            Fields(name)

    def test_forms(self) -> None:
        """A form without fields, or of a format that nobody knows, is refused."""
        with pytest.raises(InputError, match="needs the name of the field"):
            Fields()
        with pytest.raises(InputError, match="did you mean `messages`"):
            Wire("message")

    def test_a_body_without_a_head(self, make_guard: Make) -> None:
        """An application that breaks the protocol is told so."""
        desk = Desk(make_guard(), {"/": Text()})
        route = desk.route("GET", "/")
        assert route is not None
        answer = Answer(desk, route, request_of())
        for steps in (answer.feed(b"x"), answer.finish()):
            with pytest.raises(InputError, match="before its status"):
                desk.guard.driver.run(steps)
