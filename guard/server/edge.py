"""The outermost layer: gives each request an id, answers refusals, logs and counts.

This module does not know why a request is refused or what it asks for.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders

from guard.log import Log
from guard.server import logs
from guard.server.errors import REQUEST_ID, Refused, respond
from guard.server.keys import CALLER
from guard.server.load import stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from guard.server.metrics import Metrics

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNKNOWN: Final = "other"

_log: Final = Log()


class Edge:
    """An ASGI app around `app` that sees every request first and every answer last.

    Args:
        app: the app inside.
        metrics: where requests are counted.
        quiet: paths whose requests are counted and not logged, such as those of probes.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, quiet: Collection[str]) -> None:
        """Serve nothing yet."""
        self._app = app
        self._metrics = metrics
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; whatever goes wrong is answered and logged."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            began = time.perf_counter()

            def note(status: int) -> None:
                self._note(scope, status, time.perf_counter() - began)

            await self._serve(scope, receive, _Answer(scope, send, note))

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        scope[REQUEST_ID] = f"req_{uuid4().hex}"
        with structlog.contextvars.bound_contextvars(request_id=scope[REQUEST_ID]):
            try:
                await self._app(scope, receive, answer.send)
            except Refused as refusal:
                await answer.give_up(refusal, receive)
            except asyncio.CancelledError:
                # The server ends, and what runs with it.
                await answer.cut_off(receive)
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, the client gets an answer
                _log.error("guard.request_failed", **logs.told(error))
                message = "something went wrong here; the log has it by the request's id"
                await answer.give_up(Refused(500, message, "internal_error"), receive)
            finally:
                answer.end()

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.request(route, status, seconds)
        if scope["path"] not in self._quiet:
            caller = scope.get(CALLER)
            _log.info(
                "guard.request",
                method=scope["method"] if scope["method"] in _METHODS else _UNKNOWN,
                route=route,
                status=status,
                seconds=round(seconds, 4),
                client=caller.name if caller else "",
            )


class _Answer:
    """One answer on its way out.

    Attributes:
        status: its status; 499 where the client went before there was one.
    """

    def __init__(self, scope: Scope, send: Send, note: Callable[[int], None]) -> None:
        self.status = 499
        self._scope = scope
        self._send = send
        self._note = note
        self._started = False
        self._ended = False

    async def send(self, message: Message) -> None:
        """Pass a message on, with the request's id."""
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            request_id = self._scope[REQUEST_ID]
            headers = MutableHeaders(scope=message)
            headers["x-guard-request-id"] = request_id
            headers.setdefault("x-request-id", request_id)
            headers.setdefault("request-id", request_id)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            # First: whoever has the answer's end may ask for the numbers.
            self.end()
        await self._send(message)

    def end(self) -> None:
        """Have the request counted, once."""
        if not self._ended:
            self._ended = True
            self._note(self.status)

    async def give_up(self, refusal: Refused, receive: Receive) -> None:
        """Answer with `refusal`.

        Raises:
            Refused: an answer has begun; the server must break the connection off.
        """
        if self._started:
            raise refusal
        await respond(self._scope, refusal)(self._scope, receive, self.send)

    async def cut_off(self, receive: Receive) -> None:
        """Answer that the server stops; an answer that has begun stays without an end."""
        if not self._started:
            await self.give_up(stopping(), receive)


def route_of(scope: Scope) -> str:
    """Return the template of the route that serves a request; a path itself may be anything."""
    route = scope.get("route")
    return str(getattr(route, "path", _UNKNOWN))
