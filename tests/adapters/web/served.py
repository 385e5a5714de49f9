"""Applications of the tests, really served, and readers that see the bytes on the socket.

An application says what it is told to: `Play` is one ASGI application and one WSGI application
that answer with given headers and pieces.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 30.0
"""Seconds in which something must have happened that happens at once."""


@dataclass
class Play:
    """What an application answers with, and what it saw.

    Attributes:
        headers: of the answer.
        pieces: of the body.
        status: of the answer.
        fails: whether it raises behind the last piece.
        waits: whether it waits behind the first half of the pieces for its reader to leave.
        seen: the requests: method, headers, body.
        told: what its sending raised.
        waiting: set when it waits.
        gone: set when its reader has left.
        after: set when it has ended.
    """

    headers: list[tuple[str, str]]
    pieces: list[bytes]
    status: int = 200
    fails: bool = False
    waits: bool = False
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    told: list[BaseException] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    after: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], headers, body))
        raw = [(name.encode(), value.encode()) for name, value in self.headers]
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": raw})
            for number, piece in enumerate(self.pieces):
                if self.waits and number == len(self.pieces) // 2:
                    self.waiting.set()
                    assert (await receive())["type"] == "http.disconnect"
                    self.gone.set()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self.fails:
                raise RuntimeError("the application failed")
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError as error:
            self.told.append(error)
            raise
        finally:
            self.after.set()

    def wsgi(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        """Answer as a WSGI application that yields."""
        headers = {k: v for k, v in environ.items() if k.startswith("HTTP_")}
        size = int(environ.get("CONTENT_LENGTH") or 0)
        self.seen.append((environ["REQUEST_METHOD"], headers, environ["wsgi.input"].read(size)))
        start_response(f"{self.status} Done", list(self.headers))
        try:
            yield from self.pieces
            if self.fails:
                raise RuntimeError("the application failed")
        except GeneratorExit as error:
            self.told.append(error)
            raise
        finally:
            self.after.set()

    def wait(self, event: threading.Event) -> None:
        """Wait for something that must happen."""
        assert event.wait(_PATIENCE)


def talk(url: str, request: bytes, *, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Send a request's bytes and return every byte that comes back; leave early if told so."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=_PATIENCE) as connection:
        connection.sendall(request)
        came = bytearray()
        while piece := connection.recv(65536):
            came += piece
            if until is not None and until(bytes(came)):
                break
    return bytes(came)


def raw_request(path: str, document: Any = None, *, method: str = "POST", more: str = "") -> bytes:
    """Return a request's bytes; the connection is closed behind the answer."""
    body = b"" if document is None else json.dumps(document).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def unchunked(came: bytes) -> bytes:
    """Return an answer's bytes with its body as it is without the chunks that it came in."""
    head, _, body = came.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return came
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
    return head + b"\r\n\r\n" + b"".join(pieces)


class _Quiet(WSGIRequestHandler):
    """Writes no access log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing."""


class _Server(WSGIServer):
    """Serves one request at a time, and is silent about what goes wrong."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what breaks off is seen on the socket."""


@contextlib.contextmanager
def served_wsgi(app: Any) -> Iterator[str]:
    """Serve a WSGI application by the standard library in a thread; give its address."""
    server = _Server(("127.0.0.1", 0), _Quiet)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE)


def wait_until(done: Callable[[], bool]) -> None:
    """Wait until something is so that soon will be."""
    ends = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.005)
