"""Runs the server: uvicorn, with signals that stop it gently and load policies anew.

SIGTERM and SIGINT: new requests get a 503, running ones go on until they end or the grace
period does. A second one ends everything at once. SIGHUP loads the policies anew.

This module does not know any endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING, Final

import uvicorn
from prometheus_client import disable_created_metrics

from guard.log import Log
from guard.server import logs
from guard.server.app import create_app
from guard.server.scripted import Delivery, ScriptedApp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from fastapi import FastAPI

    from guard.scripted import ScriptedAnswer
    from guard.server.settings import ServerSettings

_PAUSE: Final = 0.012
"""Seconds between the pieces of the scripted backend's answers: about 80 tokens a second."""

_CANCEL_SECONDS: Final = 1
"""How long requests that are cut off at the end of the grace period have to clean up."""

_log: Final = Log()


def run(
    settings: ServerSettings,
    *,
    demo: Iterable[ScriptedAnswer] = (),
    started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until a signal says to stop.

    Args:
        settings: the process's settings.
        demo: what the scripted backend answers, where the settings ask for it.
        started: called with the server's URL once it can be called.

    Raises:
        ConfigurationError: everything that is wrong with policies and model.
        JournalError: the journal cannot be opened.
    """
    logs.configure(settings.log_level)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with contextlib.ExitStack() as stack:
        if settings.demo:
            backend = stack.enter_context(
                ScriptedApp(demo, delivery=Delivery(pause=_PAUSE)).served()
            )
            settings = settings.model_copy(update={"upstream": backend.url})
        _Server(create_app(settings), settings, started).run()


class _Server(uvicorn.Server):
    """Uvicorn that goes on answering while it drains, so that load balancers see it go."""

    def __init__(
        self, app: FastAPI, settings: ServerSettings, started: Callable[[str], None]
    ) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            # The one parser with a bound on what headers may take before they are complete.
            http="h11",
            h11_max_incomplete_event_size=2 * settings.max_header_bytes,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_CANCEL_SECONDS,
        )
        super().__init__(config)
        self._service = app.state.service
        self._grace = settings.grace_seconds
        self._told = started
        self._ends: float | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Begin to listen, to SIGHUP too."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._service.guards.want_reload)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._told(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second time, stop."""
        if self._ends is None:
            self._ends = time.monotonic() + self._grace
            self._service.load.draining = True
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Stop once nothing runs or the grace period is over."""
        if self._ends is not None and not self.should_exit:
            load = self._service.load
            late = time.monotonic() >= self._ends
            if late and not load.idle:
                _log.warning("guard.cut_off", in_flight=load.in_flight, waiting=load.waiting)
            self.should_exit = late or load.idle
        return await super().on_tick(counter)
