"""WSGI applications, really served by the standard library and checked by its validator."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx2
import pytest
from structlog.testing import capture_logs

from guard.adapters.web import Fields, Text
from guard.adapters.wsgi import GuardWSGI
from guard.errors import ConfigurationError, InputError
from guard.journal.store import Journal
from tests.adapters.web.bodies import FINE, KINDS
from tests.adapters.web.served import Play, raw_request, served_wsgi, talk, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from guard.engine import Guard
    from tests.adapters.web.bodies import Kind

    Make = Callable[..., Guard]

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

LONG = FINE * 4
BAD = f"{LONG}They zblock well. {LONG}"


@contextmanager
def client(app: Any) -> Iterator[httpx2.Client]:
    """Serve an app; give a client for it."""
    with (
        served_wsgi(app) as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as made,
    ):
        yield made


def play_of(kind: Kind, text: str, **given: Any) -> Play:
    """Return what answers in one way."""
    pieces = kind.pieces(text)
    length = [("Content-Length", str(sum(map(len, pieces))))] if kind.whole else []
    return Play([*kind.headers, *length], pieces, **given)


def guarded(app: Any, guard: Guard, kind: Kind, **options: Any) -> Any:
    """Return a guarded application between two validators."""
    return validator(GuardWSGI(validator(app), guard, {"/chat": kind.form}, **options))


def called(app: Any, **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Return what an app answers without a server."""
    given: dict[str, Any] = {"PATH_INFO": "/chat", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(given)
    began: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        del exc_info
        began[:] = [status, {name.lower(): value for name, value in headers}]

    answer = app(given | environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return began[0], began[1], body


class TestOnTheSocket:
    """Every byte that a reader gets."""

    @kinds
    def test_benign(self, make_guard: Make, kind: Kind) -> None:
        """The very bytes of the application leave, with its headers where they are whole."""
        play = play_of(kind, LONG)
        with client(guarded(play.wsgi, make_guard(), kind)) as http:
            answer = http.post("/chat", json=kind.asked)
        assert answer.status_code == 200
        assert answer.content == b"".join(play.pieces)
        assert answer.headers["content-type"] == kind.kind
        assert ("content-length" in answer.headers) is kind.whole
        assert json.loads(play.seen[0][2]) == kind.asked

    @kinds
    def test_blocked(self, make_guard: Make, kind: Kind) -> None:
        """What is blocked is in none of them, and the class's message is."""
        play = play_of(kind, BAD)
        with served_wsgi(guarded(play.wsgi, make_guard(), kind)) as url:
            came = talk(url, raw_request("/chat", kind.asked))
        assert b" 200 Done" in came.split(b"\r\n")[0]
        assert b"zbloc" not in came
        assert b"[blocked]" in came

    @kinds
    def test_a_failure_releases_nothing(self, make_guard: Make, kind: Kind) -> None:
        """Where the application fails, what was held back is dropped, and its close is called."""
        pieces = kind.pieces(f"{FINE}They zflag, {LONG}")
        held = next(number for number, piece in enumerate(pieces) if b"zflag" in piece)
        length = [("Content-Length", str(len(pieces[0])))] if kind.whole else []
        play = Play([*kind.headers, *length], pieces[: held + 1], fails=True)
        app = GuardWSGI(play.wsgi, make_guard(), {"/chat": kind.form})
        with pytest.raises(RuntimeError, match="the application failed"):
            called(app)
        assert play.after.is_set()

    def test_other_paths(self, make_guard: Make) -> None:
        """A path that is not named is not touched."""
        play = Play([("Content-Type", "text/html")], [b"They zblock."])
        app = GuardWSGI(play.wsgi, make_guard(), {"/chat": Text()})
        with client(app) as http:
            assert http.get("/page").text == "They zblock."

    def test_what_the_application_sees(self, make_guard: Make) -> None:
        """It sees the request, but for what would have its answer go past the guard."""
        seen: list[dict[str, Any]] = []

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            seen.append(environ)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["wsgi.input"].read()]

        past = {"wsgi.file_wrapper": 1, "wsgi.websocket": 1, "HTTP_RANGE": "x", "HTTP_X_OWN": "1"}
        body = b"They grow." * 9
        given = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body)}
        given |= {"CONTENT_LENGTH": str(len(body))}
        answer = called(GuardWSGI(app, make_guard(), {"/chat": Text()}), **past, **given)
        assert answer[2] == body
        assert seen[0]["HTTP_X_OWN"] == "1"
        assert not {"wsgi.file_wrapper", "wsgi.websocket", "HTTP_RANGE"} & seen[0].keys()

    def test_a_body_without_its_length(self, make_guard: Make) -> None:
        """It is read where the server says that its end is marked, and else there is none."""
        play = Play([("Content-Type", "text/plain")], [FINE.encode()])
        app = GuardWSGI(play.wsgi, make_guard(), {"/chat": Text()}, limit=5)
        for body, marked, status in (
            (b"12345", True, "200"),
            (b"123456", True, "413"),
            (b"x", False, "200"),
        ):
            given = {"CONTENT_LENGTH": "", "wsgi.input": io.BytesIO(body)}
            answer = called(app, **given, **{"wsgi.input_terminated": marked})
            assert answer[0].startswith(status)
        assert [body for _, _, body in play.seen] == [b"12345", b""]

    def test_a_request_that_is_too_large(self, make_guard: Make) -> None:
        """The application does not see it."""
        play = Play([("Content-Type", "text/plain")], [FINE.encode()])
        with client(GuardWSGI(play.wsgi, make_guard(), {"/chat": Text()}, limit=100)) as http:
            assert http.post("/chat", content=b"x" * 101).status_code == 413
        assert play.seen == []

    @pytest.mark.parametrize(
        ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 302)]
    )
    def test_no_body(self, make_guard: Make, method: str, status: int) -> None:
        """Where there is no body, the headers pass."""
        play = Play([("Location", "/there"), ("ETag", "x")], [b""], status=status)
        answer = called(
            GuardWSGI(play.wsgi, make_guard(), {"/chat": Text()}), REQUEST_METHOD=method
        )
        assert answer == (f"{status} Done", {"location": "/there", "etag": "x"}, b"")

    def test_an_upgrade(self, make_guard: Make) -> None:
        """A connection that would leave HTTP is refused."""
        play = Play([("Content-Type", "text/plain")], [FINE.encode()])
        with capture_logs() as logs:
            answer = called(
                GuardWSGI(play.wsgi, make_guard(), {"/chat": Text()}), HTTP_UPGRADE="websocket"
            )
        assert answer[0].startswith("400")
        assert (play.seen, [entry["event"] for entry in logs]) == ([], ["guard.unguardable"])

    def test_paths(self, make_guard: Make) -> None:
        """A path counts below the application's mount and from the server's root."""
        play = Play([("Content-Type", "text/plain")], [b"They zblock."])
        for route in ("/api/ché", "/ché"):
            app = GuardWSGI(play.wsgi, make_guard(), {route: Text()})
            path = "/ché".encode().decode("latin-1")
            assert called(app, SCRIPT_NAME="/api", PATH_INFO=path)[2] == b"[blocked]"


class TestProtocol:
    """The corners of PEP 3333."""

    @kinds
    def test_write(self, make_guard: Make, kind: Kind) -> None:
        """What is written in the old way is judged with what is yielded, in its order."""

        def app_of(pieces: list[bytes]) -> Any:
            def app(_: Any, start_response: Any) -> Iterable[bytes]:
                write = start_response("200 OK", kind.headers)
                half = len(pieces) // 2
                for piece in pieces[:half]:
                    write(piece)
                return iter(pieces[half:])

            return app

        for text, found in ((LONG, False), (BAD, True)):
            pieces = kind.pieces(text)
            body = b"".join(pieces)
            cut = [body[at : at + 50] for at in range(0, len(body), 50)]
            app = GuardWSGI(app_of(cut), make_guard(), {"/chat": kind.form})
            answer = called(app)[2]
            assert (answer == body) is not found
            assert b"zbloc" not in answer

    @pytest.mark.parametrize("name", ["text stream", "JSON events", "chat, stream"])
    def test_a_stream_is_not_collected(self, make_guard: Make, name: str) -> None:
        """What was judged leaves before the next piece is asked for."""
        kind = KINDS[name]
        asked: list[int] = []

        def app(_: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", kind.headers)
            for number, piece in enumerate(kind.pieces(LONG * 3)):
                asked.append(number)
                yield piece

        setup: dict[str, Any] = {"PATH_INFO": "/chat"}
        setup_testing_defaults(setup)
        answer = GuardWSGI(app, make_guard(), {"/chat": kind.form})(setup, lambda *_: None)
        first = next(piece for piece in answer if piece)
        assert first
        assert len(asked) < len(kind.pieces(LONG * 3)) / 2
        answer.close()  # type: ignore[attr-defined]

    def test_an_error_before_anything_left(self, make_guard: Make) -> None:
        """A second head with an error takes the place of the first, and so does its body."""

        def app(_: Any, start_response: Any) -> Iterable[bytes]:
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"They zflag, ")
            failed = RuntimeError("it failed")
            headers = [("Content-Type", "text/plain")]
            start_response("500 Failed", headers, (RuntimeError, failed, None))
            return [b"It failed."]

        answer = called(GuardWSGI(app, make_guard(), {"/chat": Text()}))
        assert (answer[0], answer[2]) == ("500 Failed", b"It failed.")

    def test_an_error_after_something_left(self, make_guard: Make) -> None:
        """A second head comes too late, and the error is raised."""

        def app(_: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield (LONG * 2).encode()
            failed = RuntimeError("too late")
            start_response("500 Failed", [], (RuntimeError, failed, None))

        with pytest.raises(RuntimeError, match="too late"):
            called(GuardWSGI(app, make_guard(), {"/chat": Text()}))

    def test_a_head_twice(self, make_guard: Make) -> None:
        """An application that breaks the protocol is told so."""

        def app(_: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            start_response("200 OK", [])
            return []

        with pytest.raises(InputError, match="twice"):
            called(GuardWSGI(app, make_guard(), {"/chat": Text()}))

    def test_no_head(self, make_guard: Make) -> None:
        """Nor may it answer without one."""
        with pytest.raises(InputError, match="before its status"):
            called(GuardWSGI(lambda *_: [b"x"], make_guard(), {"/chat": Text()}))

    @pytest.mark.parametrize("name", ["text stream", "text", "chat, stream"])
    def test_a_reader_that_leaves(self, make_guard: Make, tmp_path: Path, name: str) -> None:
        """Judging ends, the application is closed, and the row says how much had left."""
        kind, journal = KINDS[name], Journal(tmp_path / "journal.db")
        play = play_of(kind, f"They zflag. {LONG * 3}")
        setup: dict[str, Any] = {"PATH_INFO": "/chat"}
        setup_testing_defaults(setup)
        app = GuardWSGI(play.wsgi, make_guard(journal=journal), {"/chat": kind.form})
        answer: Any = app(setup, lambda *_: None)
        if not kind.whole:
            assert any(b"zflag" in piece for piece in answer)
        answer.close()
        rows = list(journal.list())
        journal.close()
        assert [row.complete for row in rows] == [False] * (not kind.whole)
        assert all(row.released for row in rows)
        assert play.after.is_set() is not kind.whole

    def test_a_reader_that_leaves_the_socket(self, make_guard: Make) -> None:
        """An endless answer ends with its reader."""
        play = Play([("Content-Type", "text/plain")], [])
        closed: list[str] = []

        def app(_: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", play.headers)
            try:
                while True:
                    yield FINE.encode()
            finally:
                closed.append("yes")

        routes = {"/chat": Text()}
        with served_wsgi(GuardWSGI(app, make_guard(), routes, limit=10**9)) as url:
            talk(url, raw_request("/chat"), until=lambda came: len(came) > 1000)
            wait_until(lambda: closed == ["yes"])

    def test_a_withheld_stream_ends_at_once(self, make_guard: Make) -> None:
        """The application is closed where its answer is withheld."""
        kind = KINDS["text stream"]
        play = play_of(kind, BAD * 20)
        answer = called(GuardWSGI(play.wsgi, make_guard(), {"/chat": kind.form}))
        assert answer[2].endswith(b"\n\n[blocked]")
        assert [type(each) for each in play.told] == [GeneratorExit]

    def test_an_application_that_fails(self, make_guard: Make) -> None:
        """An error comes through, where it is called and where it is closed."""

        class Result:
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"Fine."])

            def close(self) -> None:
                raise RuntimeError("closed")

        def app(environ: Any, start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] == "POST":
                raise RuntimeError("called")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Result()

        made = GuardWSGI(app, make_guard(), {"/chat": Text()})
        with pytest.raises(RuntimeError, match="called"):
            called(made, REQUEST_METHOD="POST")
        with pytest.raises(RuntimeError, match="closed"):
            called(made)


class TestInput:
    """What a model is given."""

    @kinds
    def test_refused(self, make_guard: Make, kind: Kind) -> None:
        """The application does not see a request that is refused; its reader sees the message."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        play = play_of(kind, LONG)
        verdicts: list[Any] = []
        app = guarded(play.wsgi, guard, kind, on_verdict=verdicts.append)
        bad = json.loads(json.dumps(kind.asked).replace("grows", "zblock"))
        with client(app) as http:
            refused = http.post("/chat", json=bad)
            passed = http.post("/chat", json=kind.asked)
            nothing = http.post("/chat", json={})
        assert "[blocked]" in refused.text
        assert "[blocked]" in nothing.text
        assert passed.content == b"".join(kind.pieces(LONG))
        assert len(play.seen) == 1
        assert [verdict.action for verdict in verdicts] == ["block", "allow"]


ENDS = ("", "\n", "/", "/\n", "\n/", "//", "\x00", " ")
"""What may stand behind a path."""


class TestWrap:
    """`guard.wrap` on an application of Flask."""

    def test_recognised_by_its_class(self, make_guard: Make) -> None:
        """Whatever comes from `flask.app` is guarded around its `wsgi_app`, and stays itself."""
        play = Play([("Content-Type", "text/plain")], [b"They zblock."])
        made = type("Flask", (SimpleNamespace,), {"__module__": "flask.app"})(wsgi_app=play.wsgi)
        with pytest.raises(ConfigurationError, match="GuardWSGI"):
            make_guard().wrap(made)
        assert make_guard().wrap(made, routes={"/chat": Text()}) is made
        assert called(made.wsgi_app)[2] == b"[blocked]"

    def test_flask(self, make_guard: Make) -> None:
        """A real application: JSON, streams, errors."""
        flask: Any = pytest.importorskip("flask", reason="flask is not installed")
        app = flask.Flask("shade")

        def chat() -> Any:
            return {"answer": flask.request.json["message"]}

        def stream() -> Any:
            return flask.Response(iter([LONG, "They zblock."]), mimetype="text/plain")

        app.post("/chat")(chat)
        app.get("/stream")(stream)
        routes = {"/chat": Fields("answer", prompt="message"), "/stream": Text()}
        with client(make_guard().wrap(app, routes=routes)) as http:
            good = http.post("/chat", json={"message": "Fine."})
            bad = http.post("/chat", json={"message": "They zblock."})
            text = http.get("/stream")
            page = http.get("/chat")
        assert good.json() == {"answer": "Fine."}
        assert bad.json()["answer"] == "[blocked]"
        assert text.text == f"{LONG}\n\n[blocked]"
        assert (page.status_code, page.json()["answer"]) == (405, "[blocked]")

    def test_paths_of_flask_that_are_spelled_otherwise(self, make_guard: Make) -> None:
        """However a path is spelled, an answer that is served was judged."""
        flask: Any = pytest.importorskip("flask", reason="flask is not installed")
        app = flask.Flask("shade")

        def answer(**_: Any) -> Any:
            return {"answer": "They zblock."}

        for rule in ("/answer", "/of/<name>", "/no/<int:name>/", "/all/<path:name>/say"):
            app.get(rule, endpoint=rule)(answer)
        paths = ("/answer", "/of/{name}", "/no/{name:int}", "/all/{name:path}/say")
        guarded = GuardWSGI(app.wsgi_app, make_guard(), dict.fromkeys(paths, Fields("answer")))
        named = ("/answer", "/of/7", "/of/", "/no/7", "/all/7/say", "/all//say", "/all/7//say")
        for path in (f"{more}{name}{end}" for name in named for end in ENDS for more in ("", "/")):
            assert b"zblock" not in called(guarded, PATH_INFO=path)[2], path
        assert called(guarded, PATH_INFO="/no/7/")[2].startswith(b'{"answer":"[blocked]"')
