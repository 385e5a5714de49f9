"""An ASGI application's own endpoints, guarded: FastAPI, Starlette, anything that speaks ASGI 3.

    from guard.adapters.asgi import GuardASGI, Fields

    app.add_middleware(GuardASGI, guard=guard, routes={"/answer": Fields("answer")})

What leaves a guarded path was judged, whatever the application does to send it: whole bodies,
streams, errors. Answers that cannot be judged are replaced (`guard.adapters.web`); websockets on
a guarded path are refused. Other paths are not touched.

An application whose answer is withheld, or whose reader has left, is told so as servers do:
what it sends raises an `OSError`, and `receive` gives `http.disconnect`.

This module does not know any framework, and not how a body is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from guard.adapters.web import (
    BODY_LIMIT,
    NOT_ASKED_FOR,
    Answer,
    Desk,
    Fields,
    Request,
    Text,
    Wire,
)
from guard.adapters.web_bodies import sent
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping

    from guard.adapters.web import Form, Head, Route
    from guard.engine import Guard
    from guard.steps import Steps
    from guard.verdict import Verdict

    Scope = MutableMapping[str, Any]
    Event = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Event]]
    Send = Callable[[Event], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["Fields", "GuardASGI", "Text", "Wire", "wrap"]

_POLICY: Final = 1008
"""The code with which a websocket is closed that may not be."""

_MOST_LAYERS: Final = 64
"""Middleware around an application through which its `root_path` is looked for."""

_DISCONNECT: Final = "http.disconnect"


class ReaderLeft(OSError):  # noqa: N818  # what servers raise is no error of the application's
    """Nobody reads what the application sends: its reader has left, or it was withheld."""


class GuardASGI:
    """Middleware that judges what an application answers with on some of its paths.

    Args:
        app: the application, any ASGI 3 callable.
        guard: judges.
        routes: what the guarded paths answer with: `Wire`, `Text` or `Fields` by path. `{name}`
            stands for one segment, `{name:path}` for any; with a method before it (`POST /chat`)
            other methods are not guarded (`GET` stands for `HEAD` too).
        limit: bytes that a request's or an answer's body may have.
        on_verdict: called with the verdict on every answer that was seen to its end.

    Attributes:
        app: the application.

    Raises:
        ConfigurationError: the routes are none, or do not fit the class; all at once.
    """

    def __init__(
        self,
        app: App,
        guard: Guard,
        routes: Mapping[str, Form],
        *,
        limit: int = BODY_LIMIT,
        on_verdict: Callable[[Verdict], None] | None = None,
    ) -> None:
        """Serve nothing yet."""
        self.app = app
        self._desk = Desk(guard, routes, limit, on_verdict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        route = self._route(scope)
        if route is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            self._desk.refuse_upgrade(route)
            await send({"type": "websocket.close", "code": _POLICY})
        else:
            inbox = _Inbox(receive, self._desk.limit)
            await _Exchange(self._desk, route, inbox, send).serve(self.app, scope)

    def _route(self, scope: Scope) -> Route | None:
        if scope["type"] not in ("http", "websocket"):
            return None
        path, paths = scope["path"], [scope["path"]]
        for root in (scope.get("root_path", ""), *_roots(self.app)):
            paths += [path.removeprefix(root), root + path]
        return self._desk.route(scope.get("method", "GET"), *paths)


class _Inbox:
    """A request's messages, of which the body was read ahead; says whether its reader has left.

    Attributes:
        body: the request's body, once it was read.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self.body = b""
        self._receive = receive
        self._limit = limit
        self._given = False
        self._left = asyncio.Event()

    @property
    def left(self) -> bool:
        """Whether the reader of the answer has left."""
        return self._left.is_set()

    async def read(self) -> bool:
        """Read the body; return whether it is within the limit."""
        more, pieces, size = True, [], 0
        while more and size <= self._limit:
            message = await self._receive()
            if message["type"] == _DISCONNECT:
                self._left.set()
                return True
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            more = message.get("more_body", False)
        self.body = b"".join(pieces)
        return size <= self._limit

    async def watch(self) -> None:
        """Wait until the reader leaves."""
        while not self.left:
            if (await self._receive())["type"] == _DISCONNECT:
                self._left.set()

    def leave(self) -> None:
        """Let the application know that nobody reads on."""
        self._left.set()

    async def __call__(self) -> Event:
        """Return the next message for the application."""
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._left.wait()
        return {"type": _DISCONNECT}


class _Exchange:
    """One request and its answer."""

    def __init__(self, desk: Desk, route: Route, inbox: _Inbox, send: Send) -> None:
        self._desk = desk
        self._route = route
        self._inbox = inbox
        self._send = send
        self._driver = desk.guard.driver
        self._begun = False
        self._ended = False

    async def serve(self, app: App, scope: Scope) -> None:
        """Have the application answer a request, unless that is refused."""
        fits = await self._inbox.read()
        if self._inbox.left:
            return
        self._answer = Answer(self._desk, self._route, _request(scope, self._inbox.body))
        if not fits:
            await self._reply(*self._answer.too_large())
        elif not await self._refused():
            await self._serve(app, scope)

    async def _refused(self) -> bool:
        """Answer a request by the class's message, if what a model would be given is refused."""
        answer = self._answer
        if not answer.judges_input:
            return False
        if answer.unheard():
            await self._reply(*answer.refusal())
            return True
        verdict = await self._desk.guard.acheck_input(answer.asked.exchange)
        if not verdict.message:
            return False
        self._desk.on_verdict(verdict)
        await self._reply(*answer.refusal(verdict))
        return True

    async def _serve(self, app: App, scope: Scope) -> None:
        watch = asyncio.ensure_future(self._inbox.watch())
        try:
            await app(_scope(scope), self._inbox, self._take)
        except Exception as error:
            if not _is_told(error):
                raise
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await watch
            await self._driver.arun(self._answer.abandon())

    async def _take(self, message: Event) -> None:
        """Take a message of the application's."""
        kind, answer = message["type"], self._answer
        if kind == "http.response.start":
            answer.begin(message["status"], _texts(message.get("headers", ())))
            await self._begin()
        elif kind == "http.response.body":
            body, more = bytes(message.get("body", b"")), message.get("more_body", False)
            if body and (self._ended or self._inbox.left):
                raise ReaderLeft("nobody reads on")
            await self._let_go(answer.feed(body))
            if not more:
                await self._let_go(answer.finish())
            if answer.over or not more:
                await self._end(more=more)
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            await self._let_go(answer.refuse(f"`{kind}`: the server would read the file itself"))
            await self._end(more=False)
        # Whatever else there is (trailers, pushes, debug information) says nothing of the body
        # that is sent in its place.

    async def _begin(self) -> None:
        head = self._answer.head
        if head is not None and not self._begun:
            self._begun = True
            headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in head.headers]
            start = {"type": "http.response.start", "status": head.status, "headers": headers}
            await self._send(start)

    async def _let_go(self, steps: Steps) -> None:
        while (text := await self._driver.aadvance(steps)) is not None:
            await self._begin()
            await self._send({"type": "http.response.body", "body": sent(text), "more_body": True})
            if self._inbox.left:
                raise ReaderLeft("the reader has left")

    async def _end(self, *, more: bool) -> None:
        """End the answer, which the application would have gone on with if there is `more`."""
        if self._ended:
            return
        self._ended = True
        await self._begin()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if more:
            self._inbox.leave()

    async def _reply(self, head: Head, body: bytes) -> None:
        """Answer in the place of the application."""
        silent = self._answer.silent
        headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in head.headers]
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if silent else body})


def _roots(app: Any) -> Iterator[str]:
    """Yield the prefixes that an application, or what other middleware holds, takes off paths.

    FastAPI puts its own `root_path` into a request's scope, which the guard around it reads before.
    """
    for _ in range(_MOST_LAYERS):
        if isinstance(root := getattr(app, "root_path", None), str):
            yield root
        app = getattr(app, "app", None)


def _request(scope: Scope, body: bytes) -> Request:
    accept = ",".join(v for n, v in _texts(scope["headers"]) if n.lower() == "accept")
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(scope["method"].upper(), query, accept, body)


def _texts(headers: Any) -> list[tuple[str, str]]:
    return [(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in headers]


def _scope(scope: Scope) -> Scope:
    """Return a request's scope without what would have the application send unreadable bytes."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if bytes(name).decode("latin-1").lower() not in NOT_ASKED_FOR
    ]
    offered = scope.get("extensions") or {}
    kept = {name: value for name, value in offered.items() if not name.startswith("http.response.")}
    return {**scope, "headers": headers, "extensions": kept}


def _is_told(error: BaseException, depth: int = 64) -> bool:
    """Return whether an error comes of what the application was told about its reader."""
    if isinstance(error, ReaderLeft) or not depth:
        return isinstance(error, ReaderLeft)
    causes = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return any(_is_told(each, depth - 1) for each in causes if each is not None)


OPTIONS_OF: Final = GuardASGI
"""Whose parameters the further options of `wrap` are."""


def wrap(
    guard: Guard, app: Any, *, routes: Mapping[str, Form] | None = None, **options: Any
) -> Any:
    """Return an application of Starlette or FastAPI, guarded around all of its middleware.

    Args:
        guard: judges.
        app: the application; it is the one that is returned.
        routes: as for `GuardASGI`.
        options: of `GuardASGI`.

    Raises:
        ConfigurationError: the routes are none, or do not fit the class.
        InputError: it has begun to serve, so that it is too late.
    """
    if getattr(app, "middleware_stack", None) is not None:
        raise InputError("the application serves already: guard it before")
    build = app.build_middleware_stack
    # It is built with the first request; what is wrong should be said now.
    guarded = GuardASGI(app, guard, routes or {}, **options)

    def built() -> GuardASGI:
        guarded.app = build()
        return guarded

    app.build_middleware_stack = built
    return app
