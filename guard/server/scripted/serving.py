"""Serve an ASGI app on a loopback port in a thread, for tests and demonstrations.

This module does not know the app.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uvicorn import Server

_GRACE: Final = 1
"""Seconds that answers have to end in before the server cancels them."""

_START: Final = 20.0
"""Seconds that an app has to start in."""

_STOP: Final = 20.0
"""Seconds after which a server that was told to stop counts as hanging."""


_LOGGER: Final = logging.getLogger("guard.server.scripted")


def _is_mistake(record: logging.LogRecord) -> bool:
    """Tell an app's exception from an answer that broke off as its script said."""
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error, Exception)


_LOGGER.addFilter(_is_mistake)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs.

    Attributes:
        url: root of its addresses, without a slash at the end.
    """

    url: str
    _server: Server

    @property
    def connections(self) -> int:
        """Connections that clients hold open now, idle ones included."""
        return len(self._server.server_state.connections)


@contextlib.contextmanager
def serve_in_thread(app: Any, *, quiet: bool = False) -> Iterator[Served]:
    """Serve the ASGI app `app` on a free loopback port while the context lasts.

    Args:
        app: the app; its lifespan runs where it has one.
        quiet: log exceptions alone and not that an answer broke off, for an app that means to.

    Raises:
        MissingExtraError: uvicorn is not installed.
        RuntimeError: the app did not start, or its server does not stop.
    """
    server = _server(app, quiet=quiet)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(
            target=_run, args=(server, listener), name="serve_in_thread", daemon=True
        )
        thread.start()
        try:
            _await_start(server, thread)
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            server.should_exit = True
            thread.join(_STOP)
    if thread.is_alive():
        raise RuntimeError("the server does not stop: its app keeps a thread or swallows cancels")


def _run(server: Server, listener: socket.socket) -> None:
    # An app that does not start ends the server this way; the caller gets an error of its own.
    with contextlib.suppress(SystemExit):
        server.run(sockets=[listener])


def _server(app: Any, *, quiet: bool) -> Server:
    try:
        import uvicorn  # noqa: PLC0415  # an optional extra
        from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("uvicorn", "server") from error

    class Protocol(H11Protocol):
        """As its base, without log lines per request; the process's logging stays as it is."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.access_log = False
            if quiet:
                self.logger = _LOGGER

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            proxy_headers=False,
            loop="asyncio",
            log_config=None,
            timeout_graceful_shutdown=_GRACE,
        )
    )


def _await_start(server: Server, thread: threading.Thread) -> None:
    ends = time.monotonic() + _START
    while not server.started:
        if not thread.is_alive() or time.monotonic() > ends:
            raise RuntimeError("the app did not start; its own log says why")
        time.sleep(0.002)
