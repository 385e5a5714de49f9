"""A WSGI application's own endpoints, guarded: Flask, Django, anything that speaks PEP 3333.

    from guard.adapters.wsgi import GuardWSGI, Text

    app.wsgi_app = GuardWSGI(app.wsgi_app, guard, routes={"/chat": Text(prompt="message")})

What leaves a guarded path was judged, whether the application returns it, yields it or writes it
by `start_response`'s callable. Answers that cannot be judged are replaced (`guard.adapters.web`),
and so are attempts to take the connection over. Other paths are not touched.

This module does not know any framework, and not how a body is judged.
"""

from __future__ import annotations

import io
from http import HTTPStatus
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
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from guard.adapters.web import Form, Head, Route
    from guard.driver import Driver
    from guard.engine import Guard
    from guard.steps import Steps
    from guard.verdict import Verdict

    Environ = dict[str, Any]
    StartResponse = Callable[..., Any]
    App = Callable[[Environ, StartResponse], Iterable[bytes]]

__all__ = ["Fields", "GuardWSGI", "Text", "Wire", "wrap"]

_PAST_THE_GUARD: Final = (
    "wsgi.file_wrapper",
    "wsgi.websocket",
    "werkzeug.socket",
    "gunicorn.socket",
)
"""What an environment may offer to send bytes by another way; `uwsgi`'s own module is no key."""


class GuardWSGI:
    """Middleware that judges what an application answers with on some of its paths.

    Args:
        app: the application, any WSGI callable.
        guard: judges.
        routes: what the guarded paths answer with: `Wire`, `Text` or `Fields` by path. `{name}`
            stands for one segment, `{name:path}` for any; with a method before it (`POST /chat`)
            other methods are not guarded (`GET` stands for `HEAD` too).
        limit: bytes that a request's or an answer's body may have.
        on_verdict: called with the verdict on every answer that was seen to its end.

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
        self._app = app
        self._desk = Desk(guard, routes, limit, on_verdict)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        route = self._route(environ)
        if route is None:
            return self._app(environ, start_response)
        if environ.get("HTTP_UPGRADE"):
            self._desk.refuse_upgrade(route)
            text = b"this path cannot be upgraded"
            size = ("Content-Length", str(len(text)))
            start_response("400 Bad Request", [("Content-Type", "text/plain"), size])
            return [text]
        body, fits = _body(environ, self._desk.limit)
        answer = Answer(self._desk, route, _request(environ, body))
        refused = self._refused(answer, fits=fits)
        if refused is not None:
            head, said = refused
            start_response(_status(head.status), head.headers)
            return [] if answer.silent else [said]
        reply = _Reply(answer, self._desk.guard.driver, start_response)
        reply.serve(self._app, _environ(environ, body))
        return reply

    def _route(self, environ: Environ) -> Route | None:
        root, path = _text(environ.get("SCRIPT_NAME", "")), _text(environ.get("PATH_INFO", ""))
        return self._desk.route(environ["REQUEST_METHOD"].upper(), root + path, path)

    def _refused(self, answer: Answer, *, fits: bool) -> tuple[Head, bytes] | None:
        """Return the answer to a request that the application does not see."""
        if not fits:
            return answer.too_large()
        if not answer.judges_input:
            return None
        if answer.unheard():
            return answer.refusal()
        verdict = self._desk.guard.check_input(answer.asked.exchange)
        if not verdict.message:
            return None
        self._desk.on_verdict(verdict)
        return answer.refusal(verdict)


class _Reply:
    """One answer, to be iterated over and closed by the server."""

    def __init__(self, answer: Answer, driver: Driver, start_response: StartResponse) -> None:
        self._answer = answer
        self._driver = driver
        self._start_response = start_response
        self._status = ""
        self._called = False
        self._begun = False
        self._written: list[bytes] = []
        self._result: Iterable[bytes] = ()
        self._pieces = self._all()

    def serve(self, app: App, environ: Environ) -> None:
        """Have the application answer."""
        try:
            self._result = app(environ, self._start)
        except BaseException:
            self._driver.run(self._answer.abandon())
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Close the application's iterable; what was held back is dropped."""
        try:
            self._pieces.close()
            self._driver.run(self._answer.abandon())
        finally:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take the head, as `start_response`."""
        try:
            if exc_info and self._begun:
                raise exc_info[1].with_traceback(exc_info[2])
            if self._called and not exc_info:
                raise InputError("the application called `start_response` twice")
        finally:
            exc_info = None
        self._called = True
        self._written.clear()
        self._driver.run(self._answer.abandon())
        self._status = status
        self._answer.begin(int(status.split(maxsplit=1)[0]), list(headers))
        return self._write

    def _write(self, data: bytes) -> None:
        """Take bytes of the body in the old way."""
        self._written += self._judged(self._answer.feed(data))

    def _all(self) -> Generator[bytes, None, None]:
        for data in self._result:
            yield from self._before()
            yield from self._headed(self._answer.feed(data))
            if self._answer.over:
                break
            if self._begin():
                # Servers that serve many from one thread want a sign of life for each piece.
                yield b""
        yield from self._before()
        yield from self._headed(self._answer.finish())
        self._begin()

    def _before(self) -> Iterator[bytes]:
        """Yield what was written by now."""
        written, self._written = self._written, []
        for data in written:
            self._begin()
            yield data

    def _headed(self, steps: Steps) -> Iterator[bytes]:
        """Yield what steps let go, behind the head."""
        for data in self._judged(steps):
            self._begin()
            yield data

    def _judged(self, steps: Steps) -> Iterator[bytes]:
        while (text := self._driver.advance(steps)) is not None:
            yield sent(text)

    def _begin(self) -> bool:
        """Begin the answer as soon as its head is known; return whether it has begun."""
        head = self._answer.head
        if head is not None and not self._begun:
            self._begun = True
            same = self._status.startswith(f"{head.status} ")
            self._start_response(self._status if same else _status(head.status), head.headers)
        return self._begun


def _body(environ: Environ, limit: int) -> tuple[bytes, bool]:
    """Return a request's body, and whether it is within the limit."""
    given = environ.get("CONTENT_LENGTH") or ""
    if given.isdecimal():
        wanted = int(given)
    else:
        wanted = limit + 1 if environ.get("wsgi.input_terminated") else 0
    if given.isdecimal() and wanted > limit:
        return b"", False
    pieces, size = [], 0
    while size < wanted and (piece := environ["wsgi.input"].read(wanted - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), size <= limit


def _request(environ: Environ, body: bytes) -> Request:
    query, accept = environ.get("QUERY_STRING", ""), environ.get("HTTP_ACCEPT", "")
    return Request(environ["REQUEST_METHOD"].upper(), query, accept, body)


def _environ(environ: Environ, body: bytes) -> Environ:
    """Return a request's environment without what would have the application go past the guard."""
    unseen = {f"HTTP_{name.upper().replace('-', '_')}" for name in NOT_ASKED_FOR}
    dropped = unseen | set(_PAST_THE_GUARD)
    kept = {name: value for name, value in environ.items() if name not in dropped}
    return kept | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def _status(status: int) -> str:
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{status} {known.get(status, 'Unknown')}"


def _text(path: str) -> str:
    """Return a path as people write it: WSGI gives its bytes as characters."""
    return path.encode("latin-1").decode("utf-8", "replace")


OPTIONS_OF: Final = GuardWSGI
"""Whose parameters the further options of `wrap` are."""


def wrap(
    guard: Guard, app: Any, *, routes: Mapping[str, Form] | None = None, **options: Any
) -> Any:
    """Return an application of Flask, guarded around all of its middleware.

    Args:
        guard: judges.
        app: the application; it is the one that is returned.
        routes: as for `GuardWSGI`.
        options: of `GuardWSGI`.

    Raises:
        ConfigurationError: the routes are none, or do not fit the class.
    """
    app.wsgi_app = GuardWSGI(app.wsgi_app, guard, routes or {}, **options)
    return app
