"""Serves the pages by themselves, on this machine alone, until somebody ends it.

This module does not know any page.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from guard.errors import InputError
from guard.server.review.app import PATH, Review
from guard.server.review.sessions import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.journal.store import Journal
    from guard.server.review.labels import LabelFile

_HOST: Final = "127.0.0.1"
_END_SECONDS: Final = 2


def serve(
    journal: Journal,
    labels: LabelFile | None,
    port: int,
    started: Callable[[str], None],
) -> None:
    """Serve the pages until Ctrl-C or SIGTERM.

    Args:
        journal: where the rows are.
        labels: where labels go; `None` for pages to read alone.
        port: where to listen; 0 for any that is free.
        started: called with the link that opens the pages once.

    Raises:
        InputError: the port is taken.
    """
    with socket.socket() as listener:
        _bind(listener, port)
        own = listener.getsockname()[1]
        link = Link()
        # Browsers give a cookie to every port of a host: each server has a name of its own.
        app = Review(journal, labels, link, cookie=f"clearance_review_{own}", local=True)
        address = f"http://{_HOST}:{own}{PATH}/enter?secret={link.secret}"
        server = _Server(app, lambda: started(address))
        # Once it has ended, uvicorn does to the process what the signal would have done.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _bind(listener: socket.socket, port: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except OSError as error:
        raise InputError(
            f"port {port} of {_HOST} cannot be listened on ({error.strerror}): leave `--port` out "
            "for any that is free"
        ) from error


class _Server(uvicorn.Server):
    """Uvicorn that tells when it has begun."""

    def __init__(self, app: Review, started: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._told()
