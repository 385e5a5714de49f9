"""ASGI applications, really served by uvicorn: what is on the socket, and what they are told."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from structlog.testing import capture_logs

from guard.adapters.asgi import Fields, GuardASGI, ReaderLeft, Text
from guard.errors import ConfigurationError, InputError
from guard.journal.store import Journal
from guard.scripted import cut
from guard.server.scripted import serve_in_thread
from tests.adapters.web.bodies import FINE, KINDS
from tests.adapters.web.served import Play, raw_request, talk, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from guard.engine import Guard
    from tests.adapters.web.bodies import Kind

    Make = Callable[..., Guard]

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

LONG = FINE * 4
BAD = f"{LONG}They zblock well. {LONG}"


class Question(BaseModel):
    """What the endpoints of the tests are asked."""

    message: str


@contextmanager
def client(app: Any) -> Iterator[httpx2.Client]:
    """Serve an app; give a client for it."""
    with (
        serve_in_thread(app) as server,
        httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as made,
    ):
        yield made


def play_of(kind: Kind, text: str, **given: Any) -> Play:
    """Return what answers in one way."""
    pieces = kind.pieces(text)
    length = [("content-length", str(sum(map(len, pieces))))] if kind.whole else []
    return Play([*kind.headers, *length], pieces, **given)


class TestOnTheSocket:
    """Every byte that a reader gets."""

    @kinds
    def test_benign(self, make_guard: Make, kind: Kind) -> None:
        """The very bytes of the application leave."""
        play = play_of(kind, LONG)
        app = GuardASGI(play, make_guard(), {"/chat": kind.form})
        with client(app) as http, client(play) as plain:
            one = http.post("/chat", json=kind.asked)
            other = plain.post("/chat", json=kind.asked)
        assert (one.status_code, one.content) == (other.status_code, other.content)
        assert one.headers["content-type"] == other.headers["content-type"]
        if kind.whole:
            given = [{k: v for k, v in a.headers.items() if k != "date"} for a in (one, other)]
            assert given[0] == given[1]

    @kinds
    def test_blocked(self, make_guard: Make, kind: Kind) -> None:
        """What is blocked is in none of them, and the class's message is."""
        play = play_of(kind, BAD)
        app = GuardASGI(play, make_guard(), {"/chat": kind.form})
        with serve_in_thread(app) as server:
            came = talk(server.url, raw_request("/chat", kind.asked))
        assert came.startswith(b"HTTP/1.1 200")
        assert b"zbloc" not in came
        assert b"[blocked]" in came

    @kinds
    def test_a_failure_releases_nothing(self, make_guard: Make, kind: Kind) -> None:
        """Where the application fails, what was held back is dropped."""
        pieces = kind.pieces(f"{FINE}They zflag, {LONG}")
        held = next(number for number, piece in enumerate(pieces) if b"zflag" in piece)
        length = [("content-length", str(len(pieces[0])))] if kind.whole else []
        play = Play([*kind.headers, *length], pieces[: held + 1], fails=True)
        app = GuardASGI(_hushed(play), make_guard(), {"/chat": kind.form})
        with serve_in_thread(app, quiet=True) as server:
            came = talk(server.url, raw_request("/chat", kind.asked))
        assert b"zflag" not in came
        if kind.whole:
            assert came.startswith(b"HTTP/1.1 500")
        else:
            assert not came.endswith(b"0\r\n\r\n")

    def test_other_paths(self, make_guard: Make) -> None:
        """A path that is not named is not touched."""
        play = Play([("content-type", "text/html"), ("etag", "x")], [b"They zblock."])
        with client(GuardASGI(play, make_guard(), {"/chat": Text()})) as http:
            answer = http.get("/page", headers={"accept-encoding": "gzip", "range": "bytes=0-3"})
        assert answer.text == "They zblock."
        assert play.seen[0][1]["range"] == "bytes=0-3"

    def test_what_the_application_sees(self, make_guard: Make) -> None:
        """It sees the request as it came, but for what would have it pack or cut its answer."""
        play = Play([("content-type", "text/plain")], [FINE.encode()])
        sent = {"accept-encoding": "br", "range": "bytes=0-3", "if-range": "x", "x-own": "1"}
        with client(GuardASGI(play, make_guard(), {"/chat": Text()})) as http:
            http.post("/chat", content=b"\x00any bytes" * 20_000, headers=sent)
        method, headers, body = play.seen[0]
        assert (method, body) == ("POST", b"\x00any bytes" * 20_000)
        assert headers["x-own"] == "1"
        assert not {"accept-encoding", "range", "if-range"} & headers.keys()

    def test_a_request_that_is_too_large(self, make_guard: Make) -> None:
        """The application does not see it."""
        play = Play([("content-type", "text/plain")], [FINE.encode()])
        app = GuardASGI(play, make_guard(), {"/chat": Text()}, limit=1000)
        with client(app) as http:
            answer = http.post("/chat", content=b"x" * 1001)
            fits = http.post("/chat", content=b"x" * 1000)
        assert (answer.status_code, fits.status_code, len(play.seen)) == (413, 200, 1)

    def test_head(self, make_guard: Make) -> None:
        """An answer to `HEAD` has the application's headers and no body."""
        play = Play([("content-type", "text/plain"), ("content-length", "84")], [FINE.encode()])
        with client(GuardASGI(play, make_guard(), {"/chat": Text()})) as http:
            answer = http.head("/chat")
        assert (answer.headers["content-length"], answer.content) == ("84", b"")

    @pytest.mark.parametrize("status", [204, 304])
    def test_no_content(self, make_guard: Make, status: int) -> None:
        """A status without a body passes."""
        play = Play([("etag", "x")], [], status=status)
        with client(GuardASGI(play, make_guard(), {"/chat": Text()})) as http:
            answer = http.get("/chat")
        assert (answer.status_code, answer.headers["etag"]) == (status, "x")

    async def test_websocket(self, make_guard: Make) -> None:
        """A websocket on a guarded path is closed before it is open; on others it is not."""
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["path"])
            del receive, send

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        guarded = GuardASGI(app, make_guard(), {"/chat": Text()})
        for path in ("/chat", "/other"):
            with capture_logs() as logs:
                await guarded({"type": "websocket", "path": path}, receive, send)
            assert [entry["event"] for entry in logs] == ["guard.unguardable"] * (path == "/chat")
        await guarded({"type": "lifespan", "path": "/life"}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]
        assert seen == ["/other", "/life"]

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "http.response.pathsend", "path": __file__},
            {"type": "http.response.zerocopysend", "file": 3},
        ],
    )
    async def test_files_that_a_server_would_send(self, make_guard: Make, message: Any) -> None:
        """No such extension is offered; whoever uses it still is refused."""
        offered: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            del receive
            offered.append(scope["extensions"])
            head = [(b"content-type", b"text/plain"), (b"content-length", b"900")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send(message)
            await send({"type": "http.response.trailers", "headers": [(b"x", b"zblock")]})

        extensions: dict[str, Any] = {
            "http.response.pathsend": {},
            "http.response.trailers": {},
            "tls": {},
        }
        sent = await _called(GuardASGI(app, make_guard(), {"/": Text()}), extensions=extensions)
        assert offered == [{"tls": {}}]
        assert [each["type"] for each in sent] == ["http.response.start"] + [
            "http.response.body"
        ] * 2
        assert (b"content-length", b"9") in sent[0]["headers"]
        assert b"".join(each.get("body", b"") for each in sent) == b"[blocked]"


async def _called(app: Any, **scope: Any) -> list[Any]:
    """Return what an app sends for a request without a server."""
    sent: list[Any] = []
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in asked:
            return message
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(given | scope, receive, send)
    return sent


def _hushed(play: Play) -> Any:
    """Return an app whose own failure only cuts its answer off, so that no log has it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await play(scope, receive, send)
        except RuntimeError:
            raise asyncio.CancelledError from None

    return app


class TestReaders:
    """Readers that leave, and answers that are withheld half-way."""

    @pytest.mark.parametrize("name", ["text stream", "JSON events", "chat, stream"])
    def test_a_reader_that_leaves(self, make_guard: Make, tmp_path: Path, name: str) -> None:
        """Judging ends, the application is told, and the row says how much had left."""
        kind, journal = KINDS[name], Journal(tmp_path / "journal.db")
        text = f"They zflag. {LONG * 3}"
        play = play_of(kind, text, waits=True)
        app = GuardASGI(play, make_guard(journal=journal), {"/chat": kind.form})

        def leaves(came: bytes) -> bool:
            return b"zflag" in came and play.waiting.wait(30)

        with serve_in_thread(app, quiet=True) as server:
            talk(server.url, raw_request("/chat", kind.asked), until=leaves)
            play.wait(play.gone)
            play.wait(play.after)
            wait_until(lambda: any(row.released for row in journal.list()))
        row = next(journal.list())
        journal.close()
        assert [type(error) for error in play.told] == [ReaderLeft]
        assert not row.complete
        assert 0 < row.released < len(text)

    @pytest.mark.parametrize("name", ["text stream", "text events", "JSON events", "JSON lines"])
    def test_a_withheld_stream_ends_at_once(self, make_guard: Make, name: str) -> None:
        """The reader is not kept waiting, and the application is told that nobody reads on."""
        kind = KINDS[name]
        play = play_of(kind, BAD * 20)
        app = GuardASGI(play, make_guard(), {"/chat": kind.form})
        with client(app) as http:
            answer = http.post("/chat", json=kind.asked)
            play.wait(play.after)
        assert "[blocked]" in answer.text
        assert [type(error) for error in play.told] == [ReaderLeft]

    @pytest.mark.parametrize("name", ["chat, stream", "responses, stream", "messages, stream"])
    def test_a_vendors_stream_goes_on_to_its_end(self, make_guard: Make, name: str) -> None:
        """Its usage and its end come behind what was withheld."""
        kind = KINDS[name]
        play = play_of(kind, BAD)
        with client(GuardASGI(play, make_guard(), {"/chat": kind.form})) as http:
            answer = http.post("/chat", json=kind.asked)
        assert "[blocked]" in answer.text
        assert play.told == []


class TestInput:
    """What a model is given."""

    @kinds
    def test_refused(self, make_guard: Make, kind: Kind) -> None:
        """The application does not see a request that is refused; its reader sees the message."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        play = play_of(kind, LONG)
        verdicts: list[Any] = []
        app = GuardASGI(play, guard, {"/chat": kind.form}, on_verdict=verdicts.append)
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


class TestFrameworks:
    """Real applications."""

    def test_fastapi(self, make_guard: Make, tmp_path: Path) -> None:
        """JSON, streams, background tasks and errors of a FastAPI application."""
        done: list[str] = []
        app = FastAPI()

        @app.post("/answer")
        async def answer(question: Question, tasks: BackgroundTasks) -> dict[str, Any]:
            tasks.add_task(done.append, question.message)
            return {"answer": f"{FINE}{question.message}", "tokens": 3}

        @app.post("/stream")
        async def stream(question: Question) -> StreamingResponse:
            async def pieces() -> AsyncIterator[str]:
                for piece in cut(f"{LONG}{question.message} {LONG}"):
                    yield piece

            return StreamingResponse(pieces(), media_type="text/plain")

        journal = Journal(tmp_path / "journal.db")
        app.add_middleware(GZipMiddleware, minimum_size=1)
        routes = {
            "/answer": Fields("answer", prompt="message"),
            "/stream": Text(prompt="message"),
        }
        app.add_middleware(GuardASGI, guard=make_guard(journal=journal), routes=routes)
        with client(app) as http:
            good = http.post("/answer", json={"message": "Yes."})
            bad = http.post("/answer", json={"message": "They zblock."})
            text = http.post("/stream", json={"message": "Yes."})
            cut_off = http.post("/stream", json={"message": "They zblock."})
            invalid = http.post("/answer", json={"massage": "They zblock."})
            fine = http.post("/answer", json={"massage": "x"})
        assert good.json() == {"answer": f"{FINE}Yes.", "tokens": 3}
        assert bad.json()["answer"] == "[blocked]"
        assert text.text == f"{LONG}Yes. {LONG}"
        assert cut_off.text.endswith("\n\n[blocked]")
        assert invalid.status_code == fine.status_code == 422
        assert invalid.json()["error"] == "[blocked]"
        assert fine.json()["detail"][0]["type"] == "missing"
        assert done == ["Yes.", "They zblock."]
        assert {row.prompt for row in journal.list()} == {"They zblock.", ""}
        journal.close()

    def test_wrap(self, make_guard: Make) -> None:
        """`guard.wrap` guards an application around all of its middleware, later ones included."""
        app = FastAPI()

        @app.get("/answer")
        async def answer() -> PlainTextResponse:
            raise RuntimeError("They zblock.")

        @app.exception_handler(Exception)
        async def failed(_: Any, error: Exception) -> PlainTextResponse:
            return PlainTextResponse(str(error), status_code=500)

        guarded = make_guard().wrap(app, routes={"/answer": Text()})
        assert guarded is app
        app.add_middleware(CORSMiddleware, allow_origins=["*"])
        with serve_in_thread(_swallowing(app)) as server:
            came = talk(server.url, raw_request("/answer", method="GET", more="Origin: a\r\n"))
        assert came.startswith(b"HTTP/1.1 500")
        assert came.endswith(b"[blocked]")
        assert b"zbloc" not in came

    @pytest.mark.parametrize("around", [True, False], ids=["around", "inside"])
    def test_paths_that_are_spelled_otherwise(
        self,
        make_guard: Make,
        around: bool,  # noqa: FBT001  # a parameter of the table above
    ) -> None:
        """However a path is spelled, a served answer was judged; uvicorn and FastAPI are real."""

        async def answer() -> dict[str, str]:
            return {"answer": "They zblock."}

        app, inner = FastAPI(), FastAPI()
        app.root_path = "/root"
        app.get("/answer")(answer)
        app.get("/of/{name}/answer")(answer)
        app.get("/all/{rest:path}/answer")(answer)
        inner.get("/answer")(answer)
        inner.get("/{number:int}")(answer)
        app.mount("/sub", inner)
        paths = ("/answer", "/of/{name}/answer", "/all/{rest:path}/answer", "/sub/{number:int}")
        routes = {path: Fields("answer") for path in (*paths, "/sub/answer")}
        if not around:
            app.add_middleware(GuardASGI, guard=make_guard(), routes=routes)
        guarded: Any = GuardASGI(app, make_guard(), routes) if around else app
        named = ("/answer", "/of/7/answer", "/all//answer", "/sub/answer", "/sub//answer", "/sub/7")
        ends = ("", "%0A", "/", "/%0A", "%0A/", "%0A%0A", "%2F", "%00", "%20")
        with serve_in_thread(guarded) as server:
            came = {
                path: talk(server.url, raw_request(path, method="GET"))
                for root in ("", "/root", "/root/root", "//root")
                for path in (f"{root}{name}{end}" for name in named for end in ends)
            }
        assert [path for path, each in came.items() if b"zblock" in each] == []
        judged = [path for path, each in came.items() if b"[blocked]" in each]
        assert {"/answer", "/answer%0A", "/root/answer", "/root/sub//answer%0A"} <= set(judged)

    def test_wrap_refuses(self, make_guard: Make) -> None:
        """Without routes, or when it is too late, the error says what to do."""
        app = Starlette()
        with pytest.raises(ConfigurationError, match="GuardASGI"):
            make_guard().wrap(app)
        with client(app) as http:
            http.get("/")
        with pytest.raises(InputError, match="serves already"):
            make_guard().wrap(app, routes={"/": Text()})

    def test_an_application_that_can_be_anything(self, make_guard: Make) -> None:
        """A plain callable is not recognised; the error names the middleware."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            del scope, receive, send

        with pytest.raises(InputError, match=r"guard\.adapters\.asgi\.GuardASGI"):
            make_guard().wrap(app)

    def test_starlette_files_and_mounts(self, make_guard: Make, tmp_path: Path) -> None:
        """A file is judged like any body, a range is not cut out of it, a mount has its path."""
        file = tmp_path / "said.txt"
        file.write_text(f"{FINE}They zblock.", "utf-8")

        async def send_file(_: Any) -> FileResponse:
            return FileResponse(file)

        inner = Starlette(routes=[Route("/file", send_file)])
        outer = Starlette(routes=[Mount("/api", inner)])
        for app, path in (
            (GuardASGI(outer, make_guard(), {"/api/file": Text()}), "/api/file"),
            (_mounted(make_guard(), inner), "/api/file"),
        ):
            with client(app) as http:
                answer = http.get(path, headers={"range": "bytes=0-200"})
            assert (answer.status_code, answer.text) == (200, "[blocked]")
            assert "etag" not in answer.headers
            assert "accept-ranges" not in answer.headers

    def test_starlette_streams_that_are_withheld(self, make_guard: Make) -> None:
        """A generator is closed where its stream is withheld; other requests go on."""
        closed: list[str] = []

        async def endless(_: Any) -> StreamingResponse:
            async def pieces() -> AsyncIterator[str]:
                try:
                    yield f"{LONG}They zblock. "
                    while True:
                        yield LONG
                        await asyncio.sleep(0)
                finally:
                    closed.append("yes")

            return StreamingResponse(pieces(), media_type="text/plain")

        app = Starlette(routes=[Route("/", endless, methods=["POST"])])
        with client(GuardASGI(app, make_guard(), {"/": Text()}, limit=10**9)) as http:
            answers = [http.post("/").text for _ in range(2)]
            wait_until(lambda: len(closed) == 2)
        assert answers == [f"{LONG}\n\n[blocked]"] * 2


def _mounted(guard: Guard, inner: Any) -> Starlette:
    """Return an application that mounts a guarded one."""
    return Starlette(routes=[Mount("/api", GuardASGI(inner, guard, {"/file": Text()}))])


def _swallowing(app: Any) -> Any:
    """Return an app whose errors, which a framework raises behind its answer, stay inside."""

    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except RuntimeError:
            if scope["type"] != "http":
                raise

    return quiet
