"""What one request may cost: its headers, the size, time and depth of its body, its answer's time.

Bodies are read whole before anything is done about them, chunked or not. A client that goes
away, or that reads nothing of its answer, cancels what is being done for it, so that its place is
free.

This module does not know what a body means, and nothing about backends.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.server.errors import Refused
from guard.server.load import CLOSE

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from guard.server.load import Load
    from guard.server.settings import ServerSettings

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""JSON's strings; one without an end takes all that follows, so that the time is linear."""

_BRACKETS: Final = b"[{]}"
_STEPS: Final = bytes.maketrans(_BRACKETS, np.array([1, 1, -1, -1], np.int8).tobytes())
_OTHERS: Final = bytes(set(range(256)) - set(_BRACKETS))

_LENGTHS: Final = frozenset({b"content-length", b"transfer-encoding"})

_DIGITS: Final = 20
"""Of a declared length; more do not make it any less too long."""

_LINGER_SECONDS: Final = 2.0
"""How long the rest of a body that is too large is read, so that its sender reads the answer."""


class Limits:
    """An ASGI app in front of `app` that bounds what a request costs.

    Args:
        app: the app behind.
        settings: the bounds.
        load: how busy the server is.
        unlimited: paths that are always served, such as those of probes.
        timed: paths whose whole answer is bounded in time; others may stream.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        load: Load,
        unlimited: Collection[str],
        timed: Collection[str],
    ) -> None:
        """Serve nothing yet."""
        self._app = app
        self._settings = settings
        self._load = load
        self._unlimited = frozenset(unlimited)
        self._timed = frozenset(timed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            Refused: it costs too much, or the server is busy.
        """
        if scope["type"] != "http" or scope["path"] in self._unlimited:
            await self._app(scope, receive, send)
            return
        chunks: list[bytes] = []
        with self._load.room():
            try:
                if await self._read(scope, receive, chunks):
                    body = b"".join(chunks)
                    check_depth(body, self._settings.max_json_depth)
                    await self._serve(scope, receive, send, body)
            finally:
                self._load.drop(sum(map(len, chunks)))

    async def _read(self, scope: Scope, receive: Receive, chunks: list[bytes]) -> bool:
        """Read a body into `chunks`; return whether it came to its end."""
        limit = self._settings.max_body_bytes
        size, arrived, more = _declared(scope), 0, True
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while more and size <= limit:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    self._load.hold(len(chunk))
                    chunks.append(chunk)
                    arrived += len(chunk)
                    size = max(size, arrived)
        except TimeoutError:
            text = f"the body did not arrive in {self._settings.body_seconds:g} s"
            raise Refused(408, text, "body_timeout", CLOSE) from None
        if size > limit:
            if more:
                await _linger(receive, limit)
            text = f"the body has more than {limit:,} bytes: send it in parts"
            raise Refused(413, text, "body_too_large", CLOSE)
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        seconds = self._settings.answer_seconds if scope["path"] in self._timed else None
        visit = _Visit(receive, send, body, self._settings.send_seconds)
        time = asyncio.timeout(seconds)
        try:
            async with time:
                await visit.run(self._turn(scope, visit))
        except TimeoutError:
            if not time.expired():
                raise
            raise Refused(
                504, f"the answer took more than {seconds:g} s: send less text", "answer_timeout"
            ) from None

    async def _turn(self, scope: Scope, visit: _Visit) -> None:
        async with self._load.turn():
            await self._app(scope, visit.receive, visit.send)


class Headers:
    """An ASGI app in front of `app` that refuses requests with too many or too long headers.

    A request that tells the length of its body in two ways is refused, too: what stands in front
    of the server may read another end of it, and then another request behind it.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        """Take the bounds from `settings`."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            Refused: its headers are too many or too long, or tell two lengths of its body.
        """
        headers = scope.get("headers", ())
        size = sum(len(name) + len(value) for name, value in headers)
        most, largest = self._settings.max_headers, self._settings.max_header_bytes
        if len(headers) > most or size > largest:
            message = f"more than {most} headers or {largest:,} bytes of them: send fewer"
            raise Refused(431, message, "headers_too_large", CLOSE)
        if {name for name, _ in headers} >= _LENGTHS:
            message = "send either `content-length` or `transfer-encoding`, not both"
            raise Refused(400, message, "invalid_request", CLOSE)
        await self._app(scope, receive, send)


class _Visit:
    """One request from its body on: gives the body to the app and watches for the client's going.

    Args:
        receive: the server's.
        send: the server's.
        body: the request's, read whole.
        seconds: how long the client may read nothing of its answer before it counts as gone.
    """

    def __init__(self, receive: Receive, send: Send, body: bytes, seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._answered = False

    async def run(self, work: object) -> None:
        """Do `work`; cancel it if the client goes before it is answered."""
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        watch = asyncio.ensure_future(self._watch())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({task, watch, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not self._answered:
                task.cancel()
            await asyncio.wait({task})
        finally:
            task.cancel()
            watch.cancel()
            gone.cancel()
            await asyncio.gather(task, watch, gone, return_exceptions=True)
        if not task.cancelled():
            task.result()

    async def receive(self) -> Message:
        """Return the body once, then the client's going when it goes."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self._answered = False
            self._gone.set()
            # Until `run` cancels what is done for the client.
            await asyncio.Event().wait()

    async def _watch(self) -> None:
        """Wait until the client is gone, or the answer is sent, which servers tell alike."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()


def check_depth(body: bytes, limit: int) -> None:
    """See that no array or object of a JSON body is nested deeper than `limit`.

    Raises:
        Refused: one is. A body that is no JSON may pass.
    """
    steps = _STRINGS.sub(b"", body).translate(_STEPS, _OTHERS)
    depths = np.cumsum(np.frombuffer(steps, np.int8), dtype=np.int64)
    if depths.size and depths.max() > limit:
        raise Refused(400, f"the body is nested deeper than {limit}: flatten it", "json_too_deep")


def _declared(scope: Scope) -> int:
    """Return the length that a request says its body has, 0 where it says none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:_DIGITS])
    return 0


async def _linger(receive: Receive, most: int) -> None:
    """Read and drop up to `most` bytes, since who is sending may not read."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while most > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                most -= len(message["body"])
    except TimeoutError:
        pass
